import pytest
import torch
from torch import nn

from kd_transfoxl.configuration import TransfoXLConfig
from kd_transfoxl.decoder import TransfoXLDecoder
from kd_transfoxl.model import TransfoXLLMHeadModel
from kdcli.lm import sampling
from kdcli.lm.sampling import sample

WORDS, LENGTH, END = 40, 24, 0
SMALL = {
    **{"vocab_size": WORDS, "cutoffs": [8, 15, 28], "div_val": 2, "d_model": 16, "d_embed": 16, "n_head": 2},
    **{"d_head": 6, "d_inner": 24, "n_layer": 3, "mem_len": 100, "clamp_len": 10, "same_length": True},
}
KINDS = {
    "published": {},
    "narrow_window": {"mem_len": 5},
    "window_of_one": {"mem_len": 1},
    "all_seen": {"mem_len": 5, "same_length": False},
    "no_memory": {"mem_len": 0, "same_length": False},
    "pre_lnorm": {"pre_lnorm": True, "mem_len": 7, "div_val": 1},
    "shared_biases": {"untie_r": False, "clamp_len": -1, "cutoffs": []},
}


def build(kind, seed=0):
    torch.manual_seed(seed)
    model = TransfoXLLMHeadModel(TransfoXLConfig(**{**SMALL, **KINDS[kind]})).eval()
    for name, weights in model.named_parameters():
        nn.init.normal_(weights, 1.0 if "layer_norm.weight" in name else 0.0, 0.3)
    return model


def texts_of(rows, seed=0, length=LENGTH):
    return torch.randint(1, WORDS, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def alone(model, text):
    """Last hidden states ``[time, d_model]`` of a plain pass over one text."""
    return model.transformer(text[None])[0][0]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rows_at_places_of_their_own_read_as_texts_alone(kind):
    model = build(kind)
    old, new = texts_of(4, seed=1), texts_of(4, seed=2)
    expected = {id(texts): [alone(model, text) for text in texts] for texts in (old, new)}
    decoder = TransfoXLDecoder(model)
    decoder.open(4, LENGTH)
    rows = torch.arange(4)
    texts, places, begun = [old] * 4, torch.zeros(4, dtype=torch.int64), [LENGTH, 3, 9, 16]
    memory = decoder.keys.data_ptr(), decoder.values.data_ptr()
    seen = 0
    for step in range(LENGTH + 9):
        for number, row in enumerate(rows.tolist()):
            if step == begun[row] or places[number] == LENGTH:  # its old text has ended, and a new one takes its place
                texts[row], places[number] = new, 0
        tokens = torch.stack([texts[row][row, place] for row, place in zip(rows, places, strict=True)])
        width = min(int(places.max()) + 1 + step % 3, LENGTH)
        hidden = decoder.hidden(tokens, places, width)
        for number, row in enumerate(rows.tolist()):
            wanted = expected[id(texts[row])][row][places[number]]
            torch.testing.assert_close(hidden[number], wanted, atol=1e-5, rtol=0)
            seen += texts[row] is new
        places = places + 1
        if step < LENGTH:
            assert (decoder.keys.data_ptr(), decoder.values.data_ptr()) == memory, "nothing is made anew"
        if step == LENGTH:  # two of the rows alone
            kept = torch.tensor([3, 1])
            decoder.keep(kept)
            rows, places = rows[kept], places[kept]
    assert seen > LENGTH and hidden.std() > 0.3


@torch.no_grad()
def one_by_one(model, first, uniforms, **options):
    """Draw each text by itself, reading it anew for each word, from the whole softmax."""
    texts = torch.full(uniforms.shape, END)
    for text, start, draws in zip(texts, first.tolist(), uniforms, strict=True):
        text[0] = start
        for place in range(1, len(draws)):
            chances = model(text[None, :place], return_logits=True).logits[:, -1]
            text[place] = sampling.draw(chances, draws[[place]], **options)[0]
            if text[place] == END:
                break
    return texts


@pytest.mark.parametrize("options", [{}, {"top_k": 5, "temperature": 0.8}], ids=["plain", "truncated"])
@pytest.mark.parametrize("kind", KINDS)
def test_sampled_texts_are_those_of_a_plain_loop(kind, options):
    model = build(kind)
    with torch.no_grad():
        model.crit.out_layers[0].bias[END] += 1.0
    first = torch.arange(50) % 9 + 1
    uniforms = torch.rand(50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def draw(hidden, uniforms):
        return model.crit.draw(hidden, uniforms, **options)

    found = sample(TransfoXLDecoder(model, draw), first, uniforms, end=END, rows=16)
    assert torch.equal(found, one_by_one(model, first, uniforms, **options))
    ends = (found == END).sum(1)
    assert (ends == 0).any() and (ends > 3).any()
    if not options:
        assert torch.equal(found, sample(TransfoXLDecoder(model), first, uniforms, end=END, rows=50))
