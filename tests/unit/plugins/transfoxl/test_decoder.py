import numpy as np
import pytest
import torch
from decoding import check_rows
from torch import nn

from kd_transfoxl.adaptive import AdaptiveSoftmax
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


SIZE, WIDTH = 60, 8
SHAPES = {
    "published": {"cutoffs": [10, 20, 40], "d_embed": 8, "div_val": 2},
    "plain": {"cutoffs": [], "d_embed": 8, "div_val": 2},
    "small_clusters": {"cutoffs": [1, 2, 59], "d_embed": 9, "div_val": 2},
}


def softmax_of(shape):
    made = AdaptiveSoftmax(SIZE, SHAPES[shape]["cutoffs"], SHAPES[shape]["d_embed"], WIDTH, SHAPES[shape]["div_val"])
    random = torch.Generator().manual_seed(0)
    for weights in made.requires_grad_(False).parameters():
        weights.copy_(0.7 * torch.randn(weights.shape, generator=random))
    return made


def hidden_of(rows, seed=0):
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_nats_and_draws_are_those_of_the_whole_distribution(shape):
    softmax, words = softmax_of(shape), torch.randperm(SIZE, generator=torch.Generator().manual_seed(1))
    hidden = hidden_of(SIZE)
    whole = softmax.log_probs(hidden)
    assert whole.shape == (SIZE, SIZE) and whole.std() > 0.5
    torch.testing.assert_close(whole.exp().sum(1), torch.ones(SIZE))
    torch.testing.assert_close(softmax.nats(hidden, words), -whole.gather(1, words[:, None])[:, 0])
    for word in (0, 9, 10, 40, 59):  # clusters without words
        alone = softmax.nats(hidden[:3], torch.full((3,), word))
        torch.testing.assert_close(alone, -whole[:3, word])
    assert softmax.nats(hidden[:0], words[:0]).shape == (0,)
    softmax, count = softmax_of(shape).double(), 3000
    hidden = hidden_of(count).double()
    uniforms = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = softmax.log_probs(hidden)
    words = softmax.draw(hidden, uniforms)
    sums = whole.exp().cumsum(1)
    before = sums.gather(1, words[:, None])[:, 0] - whole.gather(1, words[:, None])[:, 0].exp()
    after = sums.gather(1, words[:, None])[:, 0]
    assert (before <= uniforms + 1e-6).all() and (uniforms <= after + 1e-6).all()
    assert len(words.unique()) > 30
    assert (words == sampling.draw(whole, uniforms)).float().mean() > 0.999
    assert torch.equal(words, softmax.draw(hidden, uniforms))
    alone = [softmax.draw(hidden[[row]], uniforms[[row]]) for row in range(100)]
    assert torch.equal(words[:100], torch.cat(alone))


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5}, {"top_k": 7}, {"top_p": 0.6}], ids=str)
@pytest.mark.parametrize("without", [0, 1, 9, 10, 35, 59])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_word_the_others_have_their_shares_of_its_probability(shape, without, options):
    softmax, hidden, count = softmax_of(shape).double(), hidden_of(1, seed=4).double(), 4000
    chances = softmax.log_probs(hidden)[0].exp().numpy() ** (1 / options.get("temperature", 1))
    chances[without] = 0
    order = np.argsort(-chances)[: options.get("top_k", SIZE)]
    kept = chances[order] / chances[order].sum()
    kept[np.cumsum(kept) - kept >= options.get("top_p", 1)] = 0
    expected = np.zeros(SIZE)
    expected[order] = kept / kept.sum()
    even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    words = softmax.draw(hidden.expand(count, -1), even, without=without, **options)
    assert not (words == without).any()
    shares = np.bincount(words.numpy(), minlength=SIZE) / count
    np.testing.assert_allclose(shares, expected, atol=1.01 / count)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_ends_of_the_unit_interval(shape, dtype):
    softmax = softmax_of(shape)
    edges = torch.tensor([0.0, 1 - 2**-24], dtype=dtype)
    softmax.out_layers[-1].bias[-1] = 3.0
    assert softmax.draw(hidden_of(1).expand(2, -1), edges).tolist() == [0, SIZE - 1]
    assert softmax.draw(hidden_of(1), torch.ones(1, dtype=dtype)).tolist() == [SIZE - 1], "what rounding makes of it"
