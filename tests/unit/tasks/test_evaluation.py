"""An evaluation's numbers, against plain loops and scikit-learn."""

import json
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from kdcli.api import Task
from kdcli.tasks.metrics import score
from kdcli.tasks.statistics import by_length, count_words, evaluate

THREE = Task("mnli", "pair", ("a", "b", "c"), metric="f1", more_metrics=("mcc",))
SCORES = Task("stsb", "pair", (), metric="spearman")


def drawn(rows=60, outputs=3, seed=1):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, outputs)).astype(np.float32)
    gold = random.integers(0, 3, rows) if outputs > 1 else random.uniform(0, 5, rows).astype(np.float32)
    return logits, gold, random.integers(1, 40, rows), random.normal(size=(rows, outputs)).astype(np.float32)


def test_classes():
    logits, gold, words, teacher = drawn()
    found = evaluate(THREE, logits, gold, words, teacher=teacher)
    assert found.rows == 60
    assert list(found.metrics) == ["f1", "mcc", "accuracy"]  # the task's own first
    assert {name: one.value for name, one in found.metrics.items()} == pytest.approx(score(THREE, logits, gold))
    assert all(one.low < one.value < one.high for one in found.metrics.values())
    assert found.confusion == confusion_matrix(gold, logits.argmax(1), labels=[0, 1, 2]).tolist()
    same = sum(a.index(max(a)) == b.index(max(b)) for a, b in zip(logits.tolist(), teacher.tolist(), strict=True))
    assert found.agreement == pytest.approx(same / 60)
    assert found.calibration.accuracy == pytest.approx(found.metrics["accuracy"].value)
    assert json.loads(json.dumps(asdict(found)))["confusion"] == found.confusion


def test_scores():
    predicted, gold, words, teacher = drawn(outputs=1)
    found = evaluate(SCORES, predicted, gold, words, teacher=teacher, resamples=100)
    assert list(found.metrics) == ["spearman", "pearson"]
    assert found.confusion is None and found.calibration is None
    assert found.agreement == pytest.approx(np.corrcoef(predicted[:, 0], teacher[:, 0])[0, 1])
    json.dumps(asdict(found))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_bins_of_lengths_hold_every_row_once_and_none_is_empty(lengths):
    words = np.array(lengths)
    logits, gold = np.eye(3, dtype=np.float32)[words % 3], words % 2
    bins = by_length(THREE, logits, gold, words)
    assert sum(one.rows for one in bins) == len(lengths)
    assert 1 <= len(bins) <= 4
    assert all(one.longest < other.shortest for one, other in pairwise(bins))
    for one in bins:
        rows = [row for row, length in enumerate(lengths) if one.shortest <= length <= one.longest]
        assert len(rows) == one.rows
        assert one.metrics == pytest.approx(score(THREE, logits[rows], gold[rows]))


def test_quarters():
    words = np.arange(100)
    bins = by_length(THREE, np.zeros((100, 3)), np.zeros(100, np.int64), words)
    assert [(one.shortest, one.longest) for one in bins] == [(0, 24), (25, 49), (50, 74), (75, 99)]


def test_count_words():
    assert count_words([["a b", "", " c\u00a0d "], ["x", "y  z", ""]]).tolist() == [3, 2, 2]
