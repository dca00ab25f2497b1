"""Tests of significance, against their definitions."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcli.api import Task
from kdcli.tasks.metrics import score
from kdcli.tasks.statistics import compare_models, mcnemar

BINARY = Task("sst2", "single", ("0", "1"))
SCORES = Task("stsb", "pair", (), metric="pearson")


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_sign_test(first, second):
    total = first + second
    tail = sum(comb(total, number) for number in range(min(first, second) + 1)) / 2**total
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(first, second) == mcnemar(second, first)


def outputs_of(answers):
    return np.eye(2, dtype=np.float32)[answers]


def test_classes():
    gold = np.array([0, 1] * 50)
    good, bad = gold.copy(), gold.copy()
    good[:5] = 1 - gold[:5]
    bad[3:30] = 1 - gold[3:30]
    found = compare_models(BINARY, ("a", outputs_of(good)), ("b", outputs_of(bad)), gold)
    assert (found.first, found.second) == ("a", "b")
    assert (found.only_first_right, found.only_second_right) == (25, 3)
    accuracy, f1 = found.metrics["accuracy"], found.metrics["f1"]
    assert accuracy.difference == pytest.approx(0.22)
    assert accuracy.low < 0.22 < accuracy.high
    # The share of discordant pairs is 28 of 100: the difference has the variance (28 - 22^2 / 100) / 100^2.
    assert (accuracy.high - accuracy.low) / 2 == pytest.approx(1.96 * np.sqrt(0.28 - 0.22**2) / 10, rel=0.12)
    assert (accuracy.test, f1.test) == ("McNemar's exact test", "paired bootstrap")
    assert accuracy.p == pytest.approx(2 * sum(comb(28, n) for n in range(4)) / 2**28)
    assert f1.difference == pytest.approx(
        score(BINARY, outputs_of(good), gold)["f1"] - score(BINARY, outputs_of(bad), gold)["f1"]
    )
    assert f1.p == 1 / 1001  # none of the resamples is as far off


def test_a_model_does_not_differ_from_itself():
    gold = np.array([0, 1, 1, 0])
    found = compare_models(BINARY, ("a", outputs_of([0, 1, 0, 0])), ("b", outputs_of([0, 1, 0, 0])), gold)
    assert {(one.difference, one.low, one.high, one.p) for one in found.metrics.values()} == {(0, 0, 0, 1)}
    assert (found.only_first_right, found.only_second_right) == (0, 0)


def test_scores():
    random = np.random.default_rng(2)
    gold = random.uniform(0, 5, 150).astype(np.float32)
    good, bad = (gold[:, None] + random.normal(0, spread, (150, 1)) for spread in (0.3, 2.0))
    found = compare_models(SCORES, ("a", good), ("b", bad), gold, resamples=200)
    assert found.only_first_right is None and found.only_second_right is None
    expected = np.corrcoef(good[:, 0], gold)[0, 1] - np.corrcoef(bad[:, 0], gold)[0, 1]
    pearson = found.metrics["pearson"]
    assert pearson.difference == pytest.approx(expected)
    assert pearson.low < expected < pearson.high and pearson.p == 1 / 201
    assert {one.test for one in found.metrics.values()} == {"paired bootstrap"}
