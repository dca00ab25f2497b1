import json
from collections import Counter
from dataclasses import asdict
from itertools import islice

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from kdcli.api import Task
from kdcli.transfer import novelty as module
from kdcli.transfer.novelty import BINS, EXAMPLES, novelty

SINGLE = Task("t", "single", ("0", "1"))
PAIR = Task("t", "pair", ("0", "1"))
WORDS = ["a", "b", "ab", "é", "eighteen-letter-wd", "\u200b", "[MASK]"]
SPACES = [" ", "  ", "\xa0", "\x1c", "\x85", "\u2028", "\u3000"]

text = st.lists(st.sampled_from(WORDS + SPACES), max_size=12).map("".join) | st.lists(
    st.sampled_from(WORDS), max_size=70
).map(" ".join)


def rows_of(task):
    return st.lists(st.tuples(*[text] * len(task.columns)), max_size=12)


def table(rows, task=SINGLE):
    return pl.DataFrame(rows, schema=dict.fromkeys(task.columns, pl.String), orient="row")


def report(samples, train=(("a",),), task=SINGLE, **changes):
    arguments = {"seed": 1, "raw": 0, "raw_in_train": 0} | changes
    return novelty(samples=table(samples, task).lazy(), train=table(list(train), task), task=task, **arguments)


def ngrams(rows, n, most=None):
    """All n-grams of the first ``most`` words, texts one after the other."""
    words = [(word, text) for text, words in enumerate(text.split() for row in rows for text in row) for word in words]
    words = words[:most]
    runs = zip(*(islice(words, skip, None) for skip in range(n)), strict=False)
    return Counter(tuple(word for word, _ in run) for run in runs if len({text for _, text in run}) == 1)


def distinct(rows, n, most=None):
    counts = ngrams(rows, n, most)
    return len(counts) / counts.total() if counts else 0.0


def word_count(rows):
    return sum(len(text.split()) for row in rows for text in row)


def in_bin(words, length):
    low, _, high = words.removesuffix("+").partition("-")
    return int(low) <= length and (words.endswith("+") or length <= int(high))


@pytest.mark.parametrize("task", [SINGLE, PAIR])
@given(data=st.data())
def test_against_counting_one_by_one(task, data):
    train, samples = data.draw(rows_of(task)), data.draw(rows_of(task))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", data.draw(st.integers(1, 5)))
        found = report(samples, train, task)
    few = min(word_count(samples), word_count(train))
    assert (found.samples, found.words, found.equal_words) == (len(samples), word_count(samples), few)
    for n in (1, 2, 3):
        assert getattr(found, f"distinct_{n}") == distinct(samples, n)
        assert getattr(found, f"train_distinct_{n}") == distinct(train, n)
        assert getattr(found, f"equal_distinct_{n}") == distinct(samples, n, few)
        assert getattr(found, f"equal_train_distinct_{n}") == distinct(train, n, few)
    for rows, mean, shares in (
        (samples, found.mean_length, found.lengths),
        (train, found.train_mean_length, found.train_lengths),
    ):
        lengths = [word_count([row]) for row in rows]
        assert mean == pytest.approx(np.mean(lengths) if lengths else 0.0)
        assert list(shares) == list(BINS)
        for words, share in shares.items():
            assert share == pytest.approx(sum(in_bin(words, length) for length in lengths) / max(1, len(lengths)))


def test_figures_made_by_hand():
    samples = [("the cat  sat",), ("the cat",), ("a",), ("x " * 70,)]
    found = report(samples, [("the dog",), ("the\u2028cat ",)])
    assert (found.words, found.distinct_1) == (76, 5 / 76)
    assert found.distinct_2 == 3 / (2 + 1 + 69)
    assert found.distinct_3 == 2 / (1 + 68)
    assert (found.train_distinct_1, found.train_distinct_2, found.train_distinct_3) == (3 / 4, 1, 0)
    assert (found.equal_words, found.equal_distinct_1, found.equal_train_distinct_1) == (4, 3 / 4, 3 / 4)
    assert (found.equal_distinct_2, found.equal_distinct_3) == (1, 1)
    assert (found.mean_length, found.train_mean_length) == (19, 2)
    shares = {words: (found.lengths[words], found.train_lengths[words]) for words in BINS}
    assert tuple(shares) == ("0-2", "3-4", "5-8", "9-12", "13-16", "17-24", "25-32", "33-48", "49-64", "65+")
    assert {words: both for words, both in shares.items() if any(both)} == {
        "0-2": (0.5, 1),
        "3-4": (0.25, 0),
        "65+": (0.25, 0),
    }


@pytest.mark.parametrize("task", [SINGLE, PAIR])
def test_many_texts_in_batches_of_any_size(task, monkeypatch):
    """Also the hashes' merging, which a million n-grams would begin."""
    monkeypatch.setattr(module, "_HELD", 100)
    monkeypatch.setattr(module, "SCORED", 100)
    random = np.random.default_rng(3)

    def texts(count):
        zipf = np.minimum(random.zipf(1.3, size=(count, len(task.columns), 9)), 2000)
        return [tuple(" ".join(f"w{word}" for word in text[: random.integers(1, 9)]) for text in row) for row in zipf]

    train, samples = texts(100), texts(800)
    monkeypatch.setattr(module, "_ROWS", 70)
    found = report(samples, train, task)
    for n in (1, 2, 3):
        assert getattr(found, f"distinct_{n}") == distinct(samples, n)
        assert getattr(found, f"equal_distinct_{n}") == distinct(samples, n, word_count(train))
    for rows in (7, 33, 800):
        monkeypatch.setattr(module, "_ROWS", rows)
        assert report(samples, train, task) == found


def test_share_in_train_of_what_was_there_before_copies_were_dropped():
    assert report([("x",)], raw_in_train=1, raw=10).in_train == 1 / 10
    assert report([], raw_in_train=0, raw=0).in_train == 0.0


def test_bits_per_character():
    asked = []

    def bits(texts):
        asked.append(list(texts))
        return np.array([3.0 * len(text) + 5 for text in texts])

    samples = [("ab c", "d"), ("é", "f g")]
    found = report(samples, [("a", "b")], PAIR, bits=bits)
    assert [sorted(texts) for texts in asked] == [["ab c\td", "é\tf g"]]
    assert found.bits_per_character == pytest.approx((3 * (6 + 5) + 2 * 5) / (6 + 5))
    assert found.scored == 2
    assert (report(samples, [("a", "b")], PAIR).bits_per_character, report(samples, [], PAIR).scored) == (None, 0)
    assert report([], bits=bits).bits_per_character is None


def test_draws_at_random_and_by_the_seed(monkeypatch):
    monkeypatch.setattr(module, "SCORED", 40)
    samples = [(f"text {i}",) for i in range(60)]
    asked = []
    found = report(samples, bits=lambda texts: asked.extend(texts) or np.ones(len(texts)))
    assert len(found.examples) == len(set(found.examples)) == EXAMPLES
    assert len(asked) == len(set(asked)) == found.scored == 40
    assert set(found.examples) <= set(asked) <= {text for (text,) in samples}
    assert report(samples).examples == found.examples
    assert report(samples, seed=2).examples != found.examples
    assert report([("a b", "c")], [], PAIR).examples == ["a b | c"]


def test_each_sample_is_drawn_as_often_as_any_other(monkeypatch):
    monkeypatch.setattr(module, "SCORED", 4)
    monkeypatch.setattr(module, "EXAMPLES", 2)
    drawn, first = Counter(), Counter()
    for seed in range(400):
        asked = []
        found = report(
            [(str(i),) for i in range(10)], seed=seed, bits=lambda texts, asked=asked: asked.extend(texts) or np.ones(4)
        )
        drawn.update(asked)
        first.update(found.examples)
    for counts, of in ((drawn, 4), (first, 2)):
        assert counts.total() == 400 * of
        # Drawn without putting back, the counts vary less than chi-square takes them to: scaled to what it expects.
        expected = 40 * of
        scaled = [expected + (counts[str(i)] - expected) * (9 / (10 - of)) ** 0.5 for i in range(10)]
        assert chisquare(scaled).pvalue > 0.001


def test_nothing_at_all_and_empty_texts():
    found = report([], [])
    assert json.loads(json.dumps(asdict(found))) == asdict(found)
    assert not any(asdict(found)[name] for name in ("samples", "words", "distinct_1", "in_train", "mean_length"))
    found = report([("",), ("a b",)], [("",)], bits=lambda texts: np.ones(len(texts)))
    assert (found.samples, found.words, found.bits_per_character) == (2, 2, 2 / 3)
    assert report([("",)], bits=lambda texts: np.ones(len(texts))).bits_per_character is None
