import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.lm.sampling import draw

SIZES = [2, 255, 256, 257, 512, 700]
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


def shares(tokens, words):
    return np.bincount(tokens.numpy(), minlength=words) / len(tokens)


@pytest.mark.parametrize("words", SIZES)
def test_even_uniforms_give_each_token_its_share(words):
    logits, count = logits_of(words, seed=1), 20_000
    found = drawn(logits, (torch.arange(count, dtype=torch.float64) + 0.5) / count)
    assert (found.diff() >= 0).all(), "the greater the uniform, the later the token"
    np.testing.assert_allclose(shares(found, words), plainly(logits), atol=1.01 / count)


@settings(max_examples=60)
@given(
    words=st.integers(2, 600),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 2, 7, 300]),
    top_p=st.floats(0.05, 1.0),
)
def test_truncation_and_temperature_as_in_a_plain_loop(words, seed, temperature, top_k, top_p):
    logits, count = logits_of(words, seed), 4000
    expected = plainly(logits, temperature, top_k, top_p)
    even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    found = shares(drawn(logits, even, temperature=temperature, top_k=top_k, top_p=top_p), words)
    np.testing.assert_allclose(found, expected, atol=1.01 / count)


def test_tokens_as_likely_as_the_last_of_top_k_count_too():
    logits = torch.tensor([1.0, 3.0, 1.0, 0.0])
    even = torch.linspace(0, 0.999, 1000, dtype=torch.float64)
    assert drawn(logits, even, top_k=2).unique().tolist() == [0, 1, 2]
    assert drawn(logits, even, top_k=1).unique().tolist() == [1]


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


def test_half_precision_and_no_rows():
    logits = logits_of(300)
    even = torch.linspace(0, 0.999, 500, dtype=torch.float64)
    assert torch.equal(drawn(logits.bfloat16(), even), drawn(logits.bfloat16().float(), even))
    assert draw(logits.expand(0, -1), even[:0]).shape == (0,)
