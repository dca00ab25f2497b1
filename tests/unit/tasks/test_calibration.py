"""Calibration, against a plain loop over the bins."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kdcli.tasks.statistics import calibration


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


rows = st.integers(1, 40).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(0, 2), min_size=count, max_size=count),
        arrays.arrays(np.float32, (count, 3), elements=st.floats(-30, 30, width=16)),
        st.integers(1, 20),
    )
)


@given(rows)
def test_ece(drawn):
    gold, logits, bins = drawn
    found = calibration(logits, np.array(gold), bins)
    assert found.ece == pytest.approx(ece_of(logits, gold, bins), abs=1e-9)
    assert sum(one.rows for one in found.bins) == len(gold)
    assert len(found.bins) == bins
    told = sum(one.rows * abs(one.accuracy - one.confidence) for one in found.bins) / len(gold)
    assert told == pytest.approx(found.ece)


def test_certainty_is_in_the_last_bin():
    found = calibration(np.array([[1000.0, -1000.0]]), np.array([1]))
    assert found.bins[-1].rows == 1 and found.bins[-1].confidence == 1 and found.bins[-1].high == 1
    assert found.ece == 1 and len(found.bins) == 15


def test_a_limit_belongs_to_the_bin_below_it():
    found = calibration(np.array([[0.0, 0.0]]), np.array([0]), bins=2)
    assert [one.rows for one in found.bins] == [1, 0]
