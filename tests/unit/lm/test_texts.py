import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from decoding import nats_one_by_one
from hypothesis import given, strategies as st

from kdcli.lm.texts import IGNORED, TokenRows, TokenTexts, causal_fit, text_nats
from kdcli.lm.trainer import ByLength

TEXTS = ["a good film about a bad dog", "naïve — 你好 🙂", "x", "it\twas  dull ", "the <|endoftext|> is near"]
LONG = 10_000


def tokens_of(made):
    return np.split(made.tokens, made.rows.offsets[1:-1])


@pytest.mark.parametrize("seed", [None, 3])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), min_size=1))
def test_tokens_are_those_of_the_text_and_an_end(tokenizer, texts, seed):
    made = TokenTexts(texts, tokenizer, LONG, seed)
    rows = [row.tolist() for row in tokens_of(made)]
    assert [tokenizer.decode(row[:-1]) for row in rows] == texts
    assert all(row[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in row[:-1] for row in rows)
    assert made.rows.lengths.tolist() == list(map(len, rows)) and len(made.rows) == len(texts)
    assert made.whole.all() and made.read() == texts


def test_each_epoch_cuts_elsewhere_and_each_run_in_the_same_places(tokenizer):
    def epochs(seed, order=(0, 1, 2)):
        made = TokenTexts(TEXTS * 5, tokenizer, LONG, seed)
        found = {}
        for epoch in order:
            made.start(epoch)
            found[epoch] = made.tokens.tolist()
        return found

    first = epochs(1)
    assert first == epochs(1, (2, 0, 1)) and first != epochs(2)
    whole = TokenTexts(TEXTS * 5, tokenizer, LONG).tokens.tolist()
    assert len({str(tokens) for tokens in [*first.values(), whole]}) == 4
    assert TokenTexts(TEXTS * 5, tokenizer, LONG, 1).tokens.tolist() == first[0], "it begins with epoch 0"


def test_cuts_are_at_random_characters_and_pieces_are_encoded_for_themselves(tokenizer):
    text = "the plot is very dull"
    made = TokenTexts([text] * 3000, tokenizer, LONG, 7)
    plain = TokenTexts([text], tokenizer, LONG).tokens.tolist()

    def pieces(place):
        encoded = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text[:place], text[place:])]
        return (*encoded[0], *encoded[1], tokenizer.eos_token_id)

    possible = {pieces(place) for place in range(len(text))}
    found = {tuple(row.tolist()) for row in tokens_of(made)}
    assert found == possible and tuple(plain) in possible and len(possible) > 5
    share = np.mean([row.tolist() == plain for row in tokens_of(made)])
    expected = np.mean([list(pieces(place)) == plain for place in range(len(text))])
    assert share == pytest.approx(expected, abs=0.05)


def test_the_first_token_is_given_and_a_text_that_is_too_long_has_no_end(tokenizer):
    made = TokenTexts(TEXTS, tokenizer, LONG)
    batch = {name: values.numpy() for name, values in made.rows.batch([0, 2]).items()}
    longest, short = made.rows.lengths[[0, 2]]
    assert batch["input_ids"].shape == (2, longest) and short == 2 < longest
    assert batch["attention_mask"].sum(1).tolist() == [longest, short]
    assert batch["labels"][:, 0].tolist() == [IGNORED] * 2
    assert (batch["labels"][0, 1:] == batch["input_ids"][0, 1:]).all()
    assert batch["labels"][1, 1:].tolist() == [tokenizer.eos_token_id] + [IGNORED] * (longest - 2)
    assert made.tokens[made.rows.offsets[:-1]].tolist() == [row[0] for row in tokens_of(made)]
    text = TEXTS[0]
    encoded = tokenizer(text)["input_ids"]
    whole = [*encoded, tokenizer.eos_token_id]
    for longest in (len(whole), len(encoded), 4):  # with its end, without, and cut
        made = TokenTexts([text, "x"], tokenizer, longest)
        assert made.whole.tolist() == [longest == len(whole), True] and len(tokens_of(made)[1]) == 2
        assert tokens_of(made)[0].tolist() == whole[:longest]
    assert made.read() == [tokenizer.decode(encoded[:4]), "x"] and text.startswith(made.read()[0])


def test_no_text_is_cut_where_a_space_would_come_into_the_cut(spaced_tokenizer):
    texts = ["the plot is dull", "a dog"]
    pieces = [spaced_tokenizer(part)["input_ids"] for part in ("pl", "ot")]
    assert spaced_tokenizer.decode(pieces[0] + pieces[1]) == "pl ot"
    made = TokenTexts(texts, spaced_tokenizer, LONG, seed=1)
    assert made.seed is None
    assert made.tokens.tolist() == TokenTexts(texts, spaced_tokenizer, LONG).tokens.tolist()
    assert [spaced_tokenizer.decode(row[:-1]) for row in tokens_of(made)] == texts


ROWS = TokenRows(
    fields={"input_ids": np.array([5, 6, 7, 8, 9, 4], np.int32), "labels": np.array([-100, 6, 7, -100, 9, -100])},
    padding={"input_ids": 0, "labels": -100},
    offsets=np.array([0, 3, 5, 6]),
)


def test_rows_are_cut_out_and_padded():
    batch = {name: values.tolist() for name, values in ROWS.batch([2, 0]).items()}
    assert (len(ROWS), ROWS.lengths.tolist()) == (3, [3, 2, 1])
    assert batch == {
        "attention_mask": [[1, 0, 0], [1, 1, 1]],
        "input_ids": [[4, 0, 0], [5, 6, 7]],
        "labels": [[-100, -100, -100], [-100, 6, 7]],
    }
    assert replace(ROWS, left=True).batch([1, 0])["input_ids"].tolist() == [[0, 8, 9], [5, 6, 7]]


class Lengths(SimpleNamespace):
    def __len__(self):
        return len(self.lengths)


@pytest.mark.parametrize("rows", [5, 64, 1003])
def test_order_by_length(rows):
    lengths = np.random.default_rng(0).integers(3, 60, rows)
    examples = SimpleNamespace(rows=Lengths(lengths=lengths))
    order = ByLength(examples, 16, seed=1)
    first = list(order)
    assert first == list(order)
    order.epoch = 1
    second = list(order)
    assert sorted(first) == sorted(second) == list(range(rows))
    if rows == 1003:
        assert first != second and first != list(ByLength(examples, 16, seed=2))
        assert lengths.max() in lengths[first[:16]]

        def padded(indices):
            return sum(len(part) * lengths[part].max() for part in np.array_split(indices, range(16, rows, 16)))

        assert padded(second) < 1.1 * lengths.sum() < padded(np.random.default_rng(0).permutation(rows))


SCORED = ["a good film about a bad dog", "x", "naïve but great fun", "it was dull", "fun fun fun !"]


@pytest.fixture
def encoded(tokenizer):
    return [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in SCORED]


@pytest.mark.parametrize("at_once", [1, 40, 4096])
def test_nats_of_texts_are_those_of_a_naive_loop(tokenizer, make_model, encoded, at_once):
    model = make_model()
    found = text_nats(model, TokenTexts(SCORED, tokenizer, 64), at_once)
    np.testing.assert_allclose(found, [nats_one_by_one(model, tokens) for tokens in encoded], rtol=1e-5)
    assert found.dtype == np.float64 and found.min() > 0


def test_no_batch_has_more_tokens_than_may_go_at_once_and_what_is_cut_off_does_not_count(tokenizer, make_model):
    model, shapes = make_model(), []
    model.register_forward_pre_hook(lambda *given: shapes.append(given[2]["input_ids"].shape), with_kwargs=True)
    text_nats(model, TokenTexts(SCORED * 20, tokenizer, 64), 200)
    assert sum(rows for rows, _ in shapes) == 100
    assert all(100 < rows * time <= 200 for rows, time in shapes[:-1])
    assert len(text_nats(model, TokenTexts([], tokenizer, 64))) == 0
    model, made = make_model(), TokenTexts(SCORED[:1], tokenizer, 7)
    tokens = tokenizer(SCORED[0])["input_ids"][:7]
    read, nats = tokenizer.decode(tokens), nats_one_by_one(model, tokens)
    fit = causal_fit(text_nats(model, made).sum(), made)
    assert 0 < len(read) < len(SCORED[0])
    assert fit["bits_per_character"] == pytest.approx(nats / math.log(2) / len(read))
    assert fit["word_perplexity"] == pytest.approx(math.exp(nats / len(read.split())))
    assert causal_fit(1e9, made)["word_perplexity"] < math.inf
