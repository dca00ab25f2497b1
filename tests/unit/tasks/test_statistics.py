import json
import math
from dataclasses import asdict
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import confusion_matrix

from kdcli.api import Task
from kdcli.tasks.metrics import score
from kdcli.tasks.statistics import by_length, calibration, compare_models, count_words, evaluate, mcnemar

THREE = Task("mnli", "pair", ("a", "b", "c"), metric="f1", more_metrics=("mcc",))
SCORES = Task("stsb", "pair", (), metric="spearman")
BINARY = Task("sst2", "single", ("0", "1"))


def drawn(rows=60, outputs=3, seed=1):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, outputs)).astype(np.float32)
    gold = random.integers(0, 3, rows) if outputs > 1 else random.uniform(0, 5, rows).astype(np.float32)
    return logits, gold, random.integers(1, 40, rows), random.normal(size=(rows, outputs)).astype(np.float32)


def test_classes_and_scores():
    logits, gold, words, teacher = drawn()
    found = evaluate(THREE, logits, gold, words, teacher=teacher)
    assert found.rows == 60
    assert list(found.metrics) == ["f1", "mcc", "accuracy", "macro_f1", "balanced_accuracy"]  # the task's own first
    assert {name: one.value for name, one in found.metrics.items()} == pytest.approx(score(THREE, logits, gold))
    assert all(one.low < one.value < one.high for one in found.metrics.values())
    assert found.confusion == confusion_matrix(gold, logits.argmax(1), labels=[0, 1, 2]).tolist()
    same = sum(a.index(max(a)) == b.index(max(b)) for a, b in zip(logits.tolist(), teacher.tolist(), strict=True))
    assert found.agreement == pytest.approx(same / 60)
    assert found.calibration.accuracy == pytest.approx(found.metrics["accuracy"].value)
    assert json.loads(json.dumps(asdict(found)))["confusion"] == found.confusion
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


def test_quarters_of_counted_words():
    words = np.arange(100)
    bins = by_length(THREE, np.zeros((100, 3)), np.zeros(100, np.int64), words)
    assert [(one.shortest, one.longest) for one in bins] == [(0, 24), (25, 49), (50, 74), (75, 99)]
    assert count_words([["a b", "", " c\u00a0d "], ["x", "y  z", ""]]).tolist() == [3, 2, 2]


def ece_of(logits, gold, bins):
    """Guo et al. 2017, equation 3, row by row."""
    found = [[] for _ in range(bins)]
    for row, label in zip(logits.tolist(), gold, strict=True):
        powers = [math.exp(value - max(row)) for value in row]
        confidence = max(powers) / sum(powers)
        for number in range(bins):
            if number / bins < confidence <= (number + 1) / bins or (number == bins - 1 and confidence > 1):
                found[number].append((confidence, row.index(max(row)) == label))
    total = 0.0
    for rows in found:
        if rows:
            total += abs(sum(right for _, right in rows) - sum(confidence for confidence, _ in rows)) / len(gold)
    return total


calibrated = st.integers(1, 40).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(0, 2), min_size=count, max_size=count),
        arrays.arrays(np.float32, (count, 3), elements=st.floats(-30, 30, width=16)),
        st.integers(1, 20),
    )
)


@given(calibrated)
def test_ece(drawn):
    gold, logits, bins = drawn
    found = calibration(logits, np.array(gold), bins)
    assert found.ece == pytest.approx(ece_of(logits, gold, bins), abs=1e-9)
    assert found.accuracy == pytest.approx(np.mean(logits.argmax(1) == gold))


def test_certainty_is_in_the_last_bin_and_a_limit_in_the_bin_below_it():
    found = calibration(np.array([[1000.0, -1000.0]]), np.array([1]))
    assert (found.ece, found.confidence, found.accuracy) == (1, 1, 0)
    # The confidences 0.5, right, and 0.7, wrong: in one bin they would nearly cancel.
    logits = np.array([[0.0, 0.0], [np.log(0.7 / 0.3), 0.0]])
    assert calibration(logits, np.array([0, 1]), bins=2).ece == pytest.approx((0.5 + 0.7) / 2)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_sign_test(first, second):
    total = first + second
    tail = sum(comb(total, number) for number in range(min(first, second) + 1)) / 2**total
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(first, second) == mcnemar(second, first)


def outputs_of(answers):
    return np.eye(2, dtype=np.float32)[answers]


def test_two_models_of_classes_and_of_scores():
    gold = np.array([0, 1] * 50)
    good, bad = gold.copy(), gold.copy()
    good[:5] = 1 - gold[:5]
    bad[3:30] = 1 - gold[3:30]
    found = compare_models(BINARY, ("a", outputs_of(good)), ("b", outputs_of(bad)), gold)
    assert (found.first, found.second, found.only_first_right, found.only_second_right) == ("a", "b", 25, 3)
    accuracy, f1 = found.metrics["accuracy"], found.metrics["f1"]
    assert accuracy.difference == pytest.approx(0.22)
    assert accuracy.low < 0.22 < accuracy.high
    # The share of discordant pairs is 28 of 100: the difference has the variance (28 - 22^2 / 100) / 100^2.
    assert (accuracy.high - accuracy.low) / 2 == pytest.approx(1.96 * np.sqrt(0.28 - 0.22**2) / 10, rel=0.12)
    assert (accuracy.test, f1.test) == ("McNemar's exact test", "paired bootstrap")
    assert accuracy.p == pytest.approx(2 * sum(comb(28, n) for n in range(4)) / 2**28)
    expected = [score(BINARY, outputs_of(one), gold)["f1"] for one in (good, bad)]
    assert f1.difference == pytest.approx(expected[0] - expected[1])
    assert f1.p == 1 / 1001  # none of the resamples is as far off
    random = np.random.default_rng(2)
    gold = random.uniform(0, 5, 150).astype(np.float32)
    good, bad = (gold[:, None] + random.normal(0, spread, (150, 1)) for spread in (0.3, 2.0))
    found = compare_models(SCORES, ("a", good), ("b", bad), gold, resamples=200)
    assert found.only_first_right is found.only_second_right is None
    expected = np.corrcoef(good[:, 0], gold)[0, 1] - np.corrcoef(bad[:, 0], gold)[0, 1]
    pearson = found.metrics["pearson"]
    assert pearson.difference == pytest.approx(expected)
    assert pearson.low < expected < pearson.high and pearson.p == 1 / 201
    assert {one.test for one in found.metrics.values()} == {"paired bootstrap"}
    gold = np.array([0, 1, 1, 0])
    found = compare_models(BINARY, ("a", outputs_of([0, 1, 0, 0])), ("b", outputs_of([0, 1, 0, 0])), gold)
    assert {(one.difference, one.low, one.high, one.p) for one in found.metrics.values()} == {(0, 0, 0, 1)}
    assert (found.only_first_right, found.only_second_right) == (0, 0)
