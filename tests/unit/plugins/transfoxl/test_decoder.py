import pytest
import torch
from decoding import check_rows
from torch import nn

from kd_transfoxl.language_model import decoder as decoder_of
from kd_transfoxl.model import TransfoXLConfig, TransfoXLLMHeadModel
from kdcli.lm import sampling
from kdcli.lm.sampling import sample

WORDS, END = 40, 0
SMALL = {
    **{"vocab_size": WORDS, "cutoffs": [8, 15, 28], "div_val": 2, "d_model": 16, "d_embed": 16, "n_head": 2},
    **{"d_head": 6, "d_inner": 24, "n_layer": 3, "mem_len": 100, "clamp_len": 10, "same_length": True},
}
KINDS = {
    "published": {},
    "narrow_window": {"mem_len": 5},
    "window_of_one": {"mem_len": 1},
    "all_seen": {"mem_len": 5, "same_length": False},
    "plain_softmax": {"mem_len": 0, "same_length": False, "clamp_len": -1, "cutoffs": []},
}


def build(kind, seed=0):
    torch.manual_seed(seed)
    model = TransfoXLLMHeadModel(TransfoXLConfig(**{**SMALL, **KINDS[kind]})).eval()
    for name, weights in model.named_parameters():
        nn.init.normal_(weights, 1.0 if "layer_norm.weight" in name else 0.0, 0.3)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_rows_at_places_of_their_own_read_as_texts_alone(kind):
    model = build(kind)
    decoder = decoder_of(model)
    check_rows(decoder, decoder.logits, lambda text: model.transformer(text[None])[0], WORDS)


@torch.no_grad()
def one_by_one(model, first, uniforms, **options):
    """Draw each text by itself, reading it anew for each word, from the whole softmax."""
    texts = torch.full(uniforms.shape, END)
    for text, start, draws in zip(texts, first.tolist(), uniforms, strict=True):
        text[0] = start
        for place in range(1, len(draws)):
            chances = model.crit.log_probs(model.transformer(text[None, :place])[:, -1])
            text[place] = sampling.draw(chances, draws[[place]], **options)[0]
            if text[place] == END:
                break
    return texts


@pytest.mark.parametrize("options", [{}, {"top_k": 5, "temperature": 0.8}], ids=["plain", "truncated"])
@pytest.mark.parametrize("kind", KINDS)
def test_sampled_texts_are_those_of_a_plain_loop(kind, options):
    model = build(kind)
    with torch.no_grad():
        model.crit.out_layers[0].bias[END] += 3.0 if kind == "plain_softmax" else 1.0
    first = torch.arange(50) % 9 + 1
    uniforms = torch.rand(50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def draw(hidden, uniforms):
        return model.crit.draw(hidden, uniforms, **options)

    found = sample(decoder_of(model, draw), first, uniforms, end=END, rows=16)
    assert torch.equal(found, one_by_one(model, first, uniforms, **options))
    ends = (found == END).sum(1)
    assert (ends == 0).any() and (ends > 3).any()
    if not options:
        assert torch.equal(found, sample(decoder_of(model), first, uniforms, end=END, rows=50))
