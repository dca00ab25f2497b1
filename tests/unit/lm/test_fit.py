import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from kdcli.lm.texts import IGNORED, TokenTexts, causal_fit, text_nats, token_nats

TEXTS = ["a good film about a bad dog", "x", "naïve but great fun", "it was dull", "fun fun fun !"]


@torch.no_grad()
def naive(model, tokens):
    """Compute the nats of all tokens but the first, one by one."""
    total = 0.0
    for place in range(1, len(tokens)):
        chances = model(torch.tensor([tokens[:place]])).logits[0, -1].double().softmax(-1)
        total -= math.log(chances[tokens[place]])
    return total


@pytest.fixture
def encoded(tokenizer):
    return [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in TEXTS]


@pytest.mark.parametrize("at_once", [1, 40, 4096])
def test_nats_of_texts_are_those_of_a_naive_loop(tokenizer, make_model, encoded, at_once):
    model = make_model()
    found = text_nats(model, TokenTexts(TEXTS, tokenizer, 64), at_once)
    np.testing.assert_allclose(found, [naive(model, tokens) for tokens in encoded], rtol=1e-5)
    assert found.dtype == np.float64 and found.min() > 0


def test_no_batch_has_more_tokens_than_may_go_at_once(tokenizer, make_model, monkeypatch):
    model, shapes = make_model(), []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **inputs: shapes.append(inputs["input_ids"].shape) or forward(**inputs)
    )
    made = TokenTexts(TEXTS * 20, tokenizer, 64)
    text_nats(model, made, 200)
    assert sum(rows for rows, _ in shapes) == 100
    assert all(100 < rows * time <= 200 for rows, time in shapes[:-1])
    assert len(text_nats(model, TokenTexts([], tokenizer, 64))) == 0


def test_what_is_cut_off_does_not_count(tokenizer, make_model):
    model, text = make_model(), TEXTS[0]
    made = TokenTexts([text], tokenizer, 7)
    tokens = tokenizer(text)["input_ids"][:7]
    read = tokenizer.decode(tokens)
    fit = causal_fit(text_nats(model, made).sum(), made)
    assert 0 < len(read) < len(text)
    assert fit["bits_per_character"] == pytest.approx(naive(model, tokens) / math.log(2) / len(read))
    assert fit["word_perplexity"] == pytest.approx(math.exp(naive(model, tokens) / len(read.split())))
    assert causal_fit(1e9, made)["word_perplexity"] < math.inf


def test_ignored_places_have_no_loss():
    logits = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 9, (3, 6), generator=torch.Generator().manual_seed(1))
    labels[0, 3:], labels[1] = IGNORED, IGNORED
    each = -functional.log_softmax(logits, -1)
    expected = [
        sum(each[row, place - 1, labels[row, place]].item() for place in range(1, 6) if labels[row, place] >= 0)
        for row in range(3)
    ]
    found = token_nats(logits, labels)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    assert found[1] == 0
    assert token_nats(logits.bfloat16(), labels).dtype == torch.float32
