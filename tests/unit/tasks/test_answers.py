"""Answers, probabilities and thresholds of sets of labels, against their definitions and scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics

from kdcli.api import Task
from kdcli.tasks.answers import answers, at_half, best_thresholds, probabilities, same, written
from kdcli.tasks.metrics import resampled, score
from kdcli.tasks.statistics import agreement, compare_models, evaluate, label_scores

SETS = Task("topics", "single", ("a", "b", "c"), metric="micro_f1", multi_label=True)
THREE = Task("three", "single", ("a", "b", "c"))
NUMBERS = np.random.default_rng(4)
LOGITS = NUMBERS.normal(size=(60, 3)).astype(np.float32)
GOLD = LOGITS + NUMBERS.normal(size=(60, 3)) > 0.4
GOLD[:5] = False  # no label at all


def test_each_output_is_a_yes_or_no_of_its_own():
    assert probabilities(LOGITS, SETS) == pytest.approx(expit(LOGITS.astype(np.float64)))
    assert probabilities(LOGITS, THREE) == pytest.approx(softmax(LOGITS.astype(np.float64), axis=1))
    assert (answers(LOGITS, SETS) == (expit(LOGITS) > 0.5)).all()
    own = replace(SETS, thresholds=(0.3, 0.5, 0.8))
    assert (answers(LOGITS, own) == (expit(LOGITS) > np.array(own.thresholds))).all()
    assert (answers(at_half(LOGITS, own), SETS) == answers(LOGITS, own)).all()
    assert np.isfinite(probabilities(np.array([[-1e4, 1e4, 0.0]]), SETS)).all()


def test_sets_are_written_in_the_order_of_the_labels():
    assert written(np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], bool), SETS.labels) == ["a|c", "", "b"]
    assert written(np.array([2, 0]), SETS.labels) == ["c", "a"]


def test_a_threshold_has_the_highest_f1_of_its_label():
    shares = expit(LOGITS.astype(np.float64))
    for label, threshold in enumerate(best_thresholds(LOGITS, GOLD)):
        tried = [metrics.f1_score(GOLD[:, label], shares[:, label] > cut) for cut in (0.5, *shares[:, label])]
        assert metrics.f1_score(GOLD[:, label], shares[:, label] > threshold) == pytest.approx(max(tried))
    never = GOLD & [True, False, True]
    assert best_thresholds(LOGITS, never)[1] == 0.5
    assert best_thresholds(np.array([[1.0], [-1.0]]), np.array([[True], [False]])) == (0.5,), "the nearest to 0.5"


def test_metrics_are_those_of_scikit_learn():
    said = answers(LOGITS, SETS)
    assert score(SETS, LOGITS, GOLD) == pytest.approx(
        {
            "micro_f1": metrics.f1_score(GOLD, said, average="micro"),
            "macro_f1": metrics.f1_score(GOLD, said, average="macro"),
            "subset_accuracy": metrics.accuracy_score(GOLD, said),
        }
    )
    precision, recall, f1, rows = metrics.precision_recall_fscore_support(GOLD, said, zero_division=0)
    for one, *expected in zip(label_scores(SETS, LOGITS, GOLD), precision, recall, f1, rows, strict=True):
        assert [one.precision, one.recall, one.f1, one.rows] == pytest.approx(expected)
    classes, answer = NUMBERS.integers(0, 3, 60), LOGITS.argmax(1)
    found = score(THREE, LOGITS, classes)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(classes, answer, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(classes, answer))


def test_a_resample_scores_as_its_rows_do(monkeypatch):
    drawn, multinomial = [], np.random.Generator.multinomial

    class Recorded(np.random.Generator):
        def multinomial(self, *arguments):
            drawn.append(multinomial(self, *arguments))
            return drawn[-1]

    monkeypatch.setattr("kdcli.tasks.metrics.np.random.Generator", Recorded)
    monkeypatch.setattr("kdcli.tasks.metrics._AT_ONCE", 300)  # several blocks
    logits, gold = LOGITS[:12], GOLD[:12]
    (found,) = resampled(SETS, [logits], gold, resamples=40)
    keys = np.concatenate([np.packbits(gold, axis=1), np.packbits(answers(logits, SETS), axis=1)], 1)
    _, places = np.unique(keys, axis=0, return_index=True)
    assert len(drawn) > 1
    for number, counts in enumerate(np.concatenate(drawn)):
        rows = np.repeat(places, counts)
        expected = score(SETS, logits[rows], gold[rows])
        assert {name: values[number] for name, values in found.items()} == pytest.approx(expected)


def test_agreement_counts_decisions_and_tests_whole_sets():
    other = (LOGITS + NUMBERS.normal(size=LOGITS.shape)).astype(np.float32)
    first, second = answers(LOGITS, SETS), answers(other, SETS)
    assert agreement(SETS, LOGITS, other) == pytest.approx((first == second).mean())
    found = compare_models(SETS, ("one", LOGITS), ("two", other), GOLD)
    right, wrong = same(first, GOLD), same(second, GOLD)
    assert found.only_first_right == int((right & ~wrong).sum())
    assert found.metrics["subset_accuracy"].test == "McNemar's exact test"
    own = replace(SETS, thresholds=best_thresholds(LOGITS, GOLD))
    evaluated = evaluate(own, LOGITS, GOLD, np.arange(60), teacher=other)
    assert evaluated.confusion is None and [one.threshold for one in evaluated.labels] == list(own.thresholds)
    assert evaluated.metrics["macro_f1"].value >= score(SETS, LOGITS, GOLD)["macro_f1"], "chosen on these very rows"
