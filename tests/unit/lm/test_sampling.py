import math
from itertools import product

import numpy as np
import pytest
import torch
from decoding import loud
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare

from kdcli.lm import sampling
from kdcli.lm.causal import CausalDecoder
from kdcli.lm.sampling import draw, sample

END, WORDS, LENGTH, DRAWS = 0, 8, 5, 60_000


@pytest.fixture(scope="module")
def tiny():
    """A model of 8 words that says very different things at different places, and after different words."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(4)
    config = GPT2Config(vocab_size=WORDS, n_embd=16, n_layer=2, n_head=2, n_positions=LENGTH)
    return loud(GPT2LMHeadModel(config).double(), 12)


def first_of(draws):
    return torch.arange(draws) % 3 + 1  # texts begin with 1, 2 or 3


def uniforms_of(draws, seed=0):
    return torch.rand(draws, LENGTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def enumerated(model):
    """Give the probability of each text of up to 5 words, filled up with ends, by plain passes of the model."""
    texts = torch.tensor([(first, *rest) for first in (1, 2, 3) for rest in product(range(WORDS), repeat=LENGTH - 1)])
    chances = model(input_ids=texts).logits[:, :-1].softmax(-1)
    each = chances.gather(2, texts[:, 1:, None])[:, :, 0]
    over = (texts[:, 1:-1] == END).cummax(1).values  # what follows an end is filling: an end, for sure
    filling = (texts[:, 2:] == END).double()
    each[:, 1:] = torch.where(over, filling, each[:, 1:])
    return texts.numpy(), (each.prod(1) / 3).numpy()


def lengths(texts):
    """Words before the end; 5 where there is none."""
    ends = texts == END
    return np.where(ends.any(1), ends.argmax(1), LENGTH)


def alike(found, texts, chances):
    """Return the p-values of: tokens at places 1, 2 and 3, each and together, lengths, whole texts."""
    together = np.array([1, WORDS, WORDS**2])
    views = [lambda texts, place=place: texts[:, place] for place in (1, 2, 3)]
    views += [lambda texts: texts[:, 1:4] @ together, lengths, lambda texts: texts @ WORDS ** np.arange(LENGTH)]
    values = []
    for view in views:
        expected = np.bincount(view(texts), chances) * len(found)
        observed = np.bincount(view(found), minlength=len(expected))
        often = expected >= 5
        assert not observed[expected == 0].any()
        cells = [np.append(counts[often], counts[~often].sum()) for counts in (observed, expected)]
        cells = [counts[cells[1] > 0] for counts in cells]
        values.append(chisquare(*cells).pvalue)
    return values


@pytest.fixture(scope="module")
def exact(tiny):
    texts, chances = enumerated(tiny)
    assert chances.sum() == pytest.approx(1)
    spread = [np.bincount(texts[:, place], chances).max() for place in (1, 2, 3)]
    assert all(0.2 < most < 0.9 for most in spread) and 0.02 < chances[lengths(texts) == LENGTH].sum() < 0.9
    return texts, chances


@pytest.mark.parametrize("rows", [DRAWS, 2000], ids=["full", "refilled"])
def test_the_distribution_is_that_of_the_model(tiny, exact, rows):
    drawn = sample(CausalDecoder(tiny), first_of(DRAWS), uniforms_of(DRAWS, seed=rows), end=END, rows=rows)
    assert min(alike(drawn.numpy(), *exact)) > 1e-3


@pytest.mark.parametrize("look", [1, 16])
@pytest.mark.parametrize("rows", [7, 9000])
def test_a_text_depends_on_its_own_uniforms_alone(tiny, monkeypatch, rows, look):
    monkeypatch.setitem(sampling._SYNC_STEPS, "cpu", look)
    first, uniforms = first_of(80), uniforms_of(80)
    together = sample(CausalDecoder(tiny), first, uniforms, end=END, rows=rows)
    alone = [sample(CausalDecoder(tiny), first[[draw]], uniforms[[draw]], end=END, rows=1) for draw in range(0, 80, 10)]
    assert torch.equal(together[::10], torch.cat(alone))
    assert torch.equal(together, sample(CausalDecoder(tiny), first, uniforms, end=END, rows=1))


class Script:
    """A decoder that reads texts from a script, and looks whether it is asked for them in a sound order.

    The uniforms are no uniforms: those of draw 7 are 7000, 7001, 7002, ..., so that they say who asks.
    """

    device = torch.device("cpu")

    def __init__(self, script):
        self.script = script
        self.steps, self.kept, self.widths = 0, [], []

    def open(self, rows, length):
        self.seen = torch.full((rows, length), -1)
        self.length = length

    def step(self, tokens, places, width, uniforms):
        assert width > places.max() and width < self.length
        rows = torch.arange(len(tokens))
        self.seen[rows, places] = tokens
        draws, asked = uniforms.long() // 1000, uniforms.long() % 1000
        drawn = torch.zeros_like(tokens)
        for row, (number, place) in enumerate(zip(draws.tolist(), asked.tolist(), strict=True)):
            if number:  # draw 0 is nobody's
                assert place == places[row] + 1
                read = self.seen[row, :place].tolist()
                assert read == self.script[number - 1][:place], "all that came before, and no other"
                drawn[row] = self.script[number - 1][place]
        self.steps += 1
        self.widths.append(width)
        return drawn

    def keep(self, rows):
        self.kept.append((len(self.seen), len(rows)))
        self.seen = self.seen[rows]


def scripted(texts, rows, length):
    script = [[*text, *[END] * length][:length] for text in texts]
    draws = len(texts)
    uniforms = 1000.0 * torch.arange(1, draws + 1)[:, None] + torch.arange(length)
    decoder = Script(script)
    found = sample(decoder, torch.tensor([text[0] for text in script], dtype=torch.int64), uniforms, end=END, rows=rows)
    assert found.tolist() == script
    return decoder


texts_of = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=9), max_size=40)


@given(texts=texts_of, rows=st.integers(1, 50), length=st.integers(2, 9))
def test_every_draw_appears_once_and_in_its_place(texts, rows, length):
    scripted([text[:length] for text in texts], rows, length)


def test_rows_are_full_or_given_up():
    decoder = scripted([[1] * 4] * 90, rows=10, length=9)
    assert decoder.steps == 4 * 90 / 10 and decoder.kept == []
    # One text goes on for 30 steps when the others have ended.
    decoder = scripted([[1, 2]] * 15 + [[1] * 30], rows=16, length=40)
    assert decoder.kept == [(16, 1)] and decoder.steps == 30
    # Two long ones of 4 rows: the first halving; then one more.
    decoder = scripted([[1, 2], [1] * 10, [1, 2, 3], [1] * 20], rows=4, length=40)
    assert decoder.kept == [(4, 2), (2, 1)]
    # A row that has nothing to do does not walk on.
    decoder = scripted([[1] * 12, [1] * 12, [1, 2]], rows=3, length=100)
    assert max(decoder.widths) == 12


LAST = {torch.float64: math.nextafter(1, 0), torch.float32: 1 - 2**-24}


def logits_of(words, seed=0, spread=3.0):
    return spread * torch.randn(words, generator=torch.Generator().manual_seed(seed))


def drawn(logits, uniforms, **options):
    return draw(logits.expand(len(uniforms), -1), uniforms, **options)


def plainly(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Compute the probabilities that tokens are drawn with, one token after the other."""
    weights = [math.exp(value / temperature) for value in logits.double().tolist()]
    ranked = sorted(range(len(weights)), key=lambda token: -weights[token])[: top_k or None]
    total, kept, so_far = sum(weights[token] for token in ranked), [], 0.0
    for token in ranked:
        kept.append(token)
        so_far += weights[token] / total
        if so_far >= top_p:
            break
    total = sum(weights[token] for token in kept)
    return np.array([weights[token] / total if token in kept else 0.0 for token in range(len(weights))])


@settings(max_examples=60)
@given(
    words=st.sampled_from([255, 256, 257, 512]) | st.integers(2, 700),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 2, 7, 300]),
    top_p=st.floats(0.05, 1.0),
)
def test_truncation_and_temperature_as_in_a_plain_loop(words, seed, temperature, top_k, top_p):
    logits, count = logits_of(words, seed), 4000
    expected = plainly(logits, temperature, top_k, top_p)
    even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    found = drawn(logits, even, temperature=temperature, top_k=top_k, top_p=top_p)
    assert (found.diff() >= 0).all(), "the greater the uniform, the later the token"
    shares = np.bincount(found.numpy(), minlength=words) / count
    np.testing.assert_allclose(shares, expected, atol=1.01 / count)


def test_equally_likely_tokens_half_precision_and_no_rows():
    logits, even = torch.tensor([1.0, 3.0, 1.0, 0.0]), torch.linspace(0, 0.999, 1000, dtype=torch.float64)
    assert drawn(logits, even, top_k=2).unique().tolist() == [0, 1, 2]
    assert drawn(logits, even, top_k=1).unique().tolist() == [1]
    logits = logits_of(300)
    assert torch.equal(drawn(logits.bfloat16(), even), drawn(logits.bfloat16().float(), even))
    assert draw(logits.expand(0, -1), even[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("words", [5, 256, 300, 700])
def test_the_ends_of_the_unit_interval(words, dtype):
    logits = logits_of(words)
    edges = torch.tensor([0.0, LAST[dtype]], dtype=dtype)
    assert drawn(logits, edges).tolist() == [0, words - 1]
    assert drawn(logits, torch.tensor([1.0], dtype=dtype)).tolist() == [words - 1], "what rounding makes of the last"
    logits[[0, 1, -1]] = -torch.inf
    assert drawn(logits, edges).tolist() == [2, words - 2]
    logits[:] = -torch.inf
    logits[words // 2] = 0.0
    assert drawn(logits, edges).tolist() == [words // 2] * 2


@settings(max_examples=60)
@given(words=st.integers(2, 900), seed=st.integers(0, 1000), share=st.floats(0.02, 0.98))
def test_a_token_of_probability_0_is_never_drawn(words, seed, share):
    logits = logits_of(words, seed)
    random = np.random.default_rng(seed)
    never = random.random(words) < share
    never[random.integers(words)] = False
    logits[torch.from_numpy(never)] = -torch.inf
    # Where tokens border on each other is where rounding can go wrong.
    borders = logits.float().softmax(0).double().cumsum(0).numpy()
    close = np.concatenate([np.nextafter(borders, 0), borders, np.nextafter(borders, 2)])
    found = drawn(logits, torch.from_numpy(close[close <= 1]))
    assert not never[found.numpy()].any()
