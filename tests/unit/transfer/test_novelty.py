from collections import Counter
from itertools import islice

import numpy as np
import polars as pl
import pytest
from hypothesis import given, strategies as st

from kdcli.api import Task
from kdcli.transfer import novelty as module
from kdcli.transfer.novelty import EXAMPLES, novelty

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


@pytest.mark.parametrize("task", [SINGLE, PAIR])
@given(data=st.data())
def test_against_counting_one_by_one(task, data):
    train, samples = data.draw(rows_of(task)), data.draw(rows_of(task))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", data.draw(st.integers(1, 5)))
        patch.setattr(module, "_HELD", data.draw(st.integers(0, 9)))
        found = report(samples, train, task)
    few = min(word_count(samples), word_count(train))
    assert (found.samples, found.words, found.equal_words) == (len(samples), word_count(samples), few)
    for n in (1, 2, 3):
        assert getattr(found, f"equal_distinct_{n}") == distinct(samples, n, few)
        assert getattr(found, f"equal_train_distinct_{n}") == distinct(train, n, few)
    for rows, mean in ((samples, found.mean_length), (train, found.train_mean_length)):
        assert mean == pytest.approx(word_count(rows) / len(rows) if rows else 0.0)


def test_bits_per_character():
    asked = []

    def bits(texts):
        asked.append(list(texts))
        return np.array([3.0 * len(text) + 5 for text in texts])

    samples = [("ab c", "d"), ("é", "f g")]
    found = report(samples, [("a", "b")], PAIR, bits=bits)
    assert [sorted(texts) for texts in asked] == [["ab c\td", "é\tf g"]]
    assert (found.bits_per_character, found.scored) == (pytest.approx((3 * (6 + 5) + 2 * 5) / (6 + 5)), 2)
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
