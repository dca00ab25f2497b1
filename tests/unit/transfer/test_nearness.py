"""Nearness against the formulas, computed on their own, and the order that comes of it."""

import math
import re

import numpy as np
import polars as pl
import pytest

from kdcli.api import QuietReporter
from kdcli.errors import DataError
from kdcli.transfer import corpus as module
from kdcli.transfer.corpus import lm_nearness, nearest, tfidf_nearness

TASK = ["The film film film is good", "a dull plot", "Good plot , good film !", "of the"]
TEXTS = ["good GOOD film", "the plot of a film", "dull", "unseen words", "the of and", "film film film plot good"]
FUNCTION_WORDS = {"the", "is", "a", "of", "and"}


def by_hand(task: list[str], texts: list[str]) -> list[float]:
    """Compute the cosines from the definitions: (1 + ln tf) * (1 + ln((1 + n) / (1 + df))), of length 1."""

    def words(text: str) -> list[str]:
        return [word for word in re.findall(r"\w\w+", text.lower()) if word not in FUNCTION_WORDS]

    terms = sorted({word for text in task for word in words(text)})
    idf = {t: 1 + math.log((1 + len(task)) / (1 + sum(t in words(text) for text in task))) for t in terms}

    def vector(text: str) -> np.ndarray:
        found = words(text)
        weights = [(1 + math.log(found.count(t))) * idf[t] if t in found else 0.0 for t in terms]
        return np.array(weights) / (np.linalg.norm(weights) or 1)

    centroid = np.mean([vector(text) for text in task], axis=0)
    return [float(vector(text) @ centroid / np.linalg.norm(centroid)) for text in texts]


def test_tfidf_is_what_the_definitions_give():
    found = tfidf_nearness(TASK)(TEXTS)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_hand(TASK, TEXTS), rtol=1e-9, atol=1e-12)
    assert found[3] == found[4] == 0
    assert 0 < found.max() <= 1


@pytest.mark.parametrize("task", [[], ["of the", "!"]])
def test_a_task_without_words_is_an_error(task):
    with pytest.raises(DataError, match="no words") as error:
        tfidf_nearness(task)
    assert error.value.key == "transfer.corpus.order_by"


def test_lm_nearness_is_bits_per_character_fewer_being_nearer():
    bits = {"ab": 8.0, "abcd\tefg": 8.0, "\u00e9\U0001f600": 3.0}
    near = lm_nearness(lambda texts: np.array([bits[text] for text in texts]))
    assert near(list(bits)).tolist() == [-4.0, -1.0, -1.5]


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_the_nearest_come_first_and_equal_ones_in_their_order(monkeypatch, count):
    monkeypatch.setattr(module, "ROWS", 2)
    monkeypatch.setattr(module, "ASKED", 2)
    pairs = [("b\u00e9", "1"), ("a", "2"), ("c", "3"), ("", "4"), ("a", "5")]
    score = {"b\u00e9\t1": 0.5, "a\t2": 0.1, "c\t3": 0.9, "\t4": 0.5, "a\t5": math.nan}
    texts = pl.DataFrame(pairs, schema=["x", "y"], orient="row").lazy()
    found = list(nearest(texts, lambda asked: np.array([score[text] for text in asked]), count, 5, QuietReporter()))
    assert all(len(frame) <= 2 and frame.columns == ["x", "y"] for frame in found)
    rows = [row for frame in found for row in frame.rows()]
    assert rows == [("c", "3"), ("b\u00e9", "1"), ("", "4"), ("a", "2"), ("a", "5")][:count]
