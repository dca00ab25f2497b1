"""The metrics, against their formulas."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kdcli.api import Task
from kdcli.tasks.metrics import score

BINARY = Task("sst2", "single", ("0", "1"))
THREE = Task("mnli", "pair", ("a", "b", "c"))
SCORES = Task("stsb", "pair", (), metric="pearson")


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def f1_of(label: int, gold: list[int], answer: list[int]) -> float:
    right = sum(g == a == label for g, a in zip(gold, answer, strict=True))
    return 2 * right / max(1, gold.count(label) + answer.count(label))


def mcc_of(gold: list[int], answer: list[int], labels: int) -> float:
    """The correlation of the two as points of a simplex: Gorodkin's R_K, written as a covariance."""
    first, second = np.eye(labels)[gold], np.eye(labels)[answer]
    first, second = first - first.mean(0), second - second.mean(0)
    spread = math.sqrt((first * first).sum() * (second * second).sum())
    return float((first * second).sum() / spread) if spread else 0.0


rows = st.integers(1, 30).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(0, 2), min_size=count, max_size=count),
        arrays.arrays(np.float32, (count, 3), elements=st.floats(-5, 5, width=16)),
    )
)


@given(rows)
def test_classes(drawn):
    gold, logits = drawn
    for task, labels in ((THREE, 3), (BINARY, 2)):
        gold = [label % labels for label in gold]
        answer = [max(range(labels), key=lambda label: (row[label], -label)) for row in logits[:, :labels].tolist()]
        found = score(task, logits[:, :labels], np.array(gold))
        assert found["accuracy"] == pytest.approx(np.mean([g == a for g, a in zip(gold, answer, strict=True)]))
        seen = sorted({*gold, *answer})
        f1 = f1_of(1, gold, answer) if labels == 2 else np.mean([f1_of(label, gold, answer) for label in seen])
        assert found["f1"] == pytest.approx(f1)
        assert found["mcc"] == pytest.approx(mcc_of(gold, answer, labels), abs=1e-6)


def test_scores():
    random = np.random.default_rng(1)
    gold = random.integers(0, 6, 50).astype(np.float32)
    predicted = (gold + random.normal(0, 1, 50)).astype(np.float32)
    found = score(SCORES, predicted[:, None], gold)
    assert found["pearson"] == pytest.approx(np.corrcoef(predicted, gold)[0, 1])
    # Spearman is Pearson of the ranks, equal values sharing their mean rank.
    ranks = [[(np.sum(v < x) + np.sum(v <= x) + 1) / 2 for x in v] for v in (predicted, gold)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert set(found) == {"pearson", "spearman"}


@pytest.mark.parametrize("predicted", [[1.0, 1.0, 1.0], [np.nan, 1.0, 2.0], [1.0]])
def test_a_correlation_without_a_value_is_0(predicted):
    outputs = np.array(predicted, np.float32)[:, None]
    assert score(SCORES, outputs, np.arange(len(predicted), dtype=np.float32)) == {"pearson": 0.0, "spearman": 0.0}


def test_one_class_only_has_an_accuracy_and_no_warnings():
    found = score(BINARY, np.array([[1.0, 0.0]] * 4), np.zeros(4, np.int64))
    assert found == {"accuracy": 1.0, "f1": 0.0, "mcc": 0.0}


@pytest.mark.parametrize("outputs", [np.zeros((3, 3)), np.zeros((2, 2)), np.zeros((0, 2))])
def test_outputs_that_do_not_fit_are_refused(outputs):
    with pytest.raises(ValueError, match="gold rows"):
        score(BINARY, outputs, np.zeros(0 if not len(outputs) else 3, np.int64))
