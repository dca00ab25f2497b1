import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import expit, softmax
from sklearn import metrics as sk

from kdcli.api import Task
from kdcli.tasks import metrics
from kdcli.tasks.answers import answers, at_half, best_thresholds, probabilities, same, written
from kdcli.tasks.metrics import metric_title, resampled, score
from kdcli.tasks.statistics import agreement, compare_models, evaluate, label_scores

BINARY = Task("sst2", "single", ("0", "1"))
THREE = Task("mnli", "pair", ("a", "b", "c"))
SCORES = Task("stsb", "pair", (), metric="pearson")


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


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
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(gold, answer))
        f1 = sk.f1_score(gold, answer, average="binary" if labels == 2 else "macro", zero_division=0)
        assert found["f1"] == pytest.approx(f1)
        mcc = sk.matthews_corrcoef(gold, answer) if len({*gold, *answer}) > 1 else 0
        assert found["mcc"] == pytest.approx(mcc, abs=1e-6)


def test_correlations_and_one_class_only():
    random = np.random.default_rng(1)
    gold = random.integers(0, 6, 50).astype(np.float32)
    predicted = (gold + random.normal(0, 1, 50)).astype(np.float32)
    found = score(SCORES, predicted[:, None], gold)
    assert found["pearson"] == pytest.approx(np.corrcoef(predicted, gold)[0, 1])
    # Spearman is Pearson of the ranks, equal values sharing their mean rank.
    ranks = [[(np.sum(v < x) + np.sum(v <= x) + 1) / 2 for x in v] for v in (predicted, gold)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert set(found) == {"pearson", "spearman"}
    found = score(BINARY, np.array([[1.0, 0.0]] * 4), np.zeros(4, np.int64))
    assert found == {"accuracy": 1.0, "f1": 0.0, "mcc": 0.0, "macro_f1": 1.0, "balanced_accuracy": 1.0}


@pytest.mark.parametrize("predicted", [[1.0, 1.0, 1.0], [np.nan, 1.0, 2.0], [1.0]])
def test_a_correlation_without_a_value_is_0(predicted):
    outputs = np.array(predicted, np.float32)[:, None]
    assert score(SCORES, outputs, np.arange(len(predicted), dtype=np.float32)) == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("outputs", [np.zeros((3, 3)), np.zeros((2, 2)), np.zeros((0, 2))])
def test_outputs_that_do_not_fit_are_refused(outputs):
    with pytest.raises(ValueError, match="gold rows"):
        score(BINARY, outputs, np.zeros(0 if not len(outputs) else 3, np.int64))


def classes(count):
    return Task("x", "single", tuple(map(str, range(count))))


def outputs_of(answers, count):
    return np.eye(count, dtype=np.float32)[np.array(answers)]


class Recorded:
    """The draws of a generator, kept."""

    def __init__(self, random):
        self.random, self.drawn = random, []

    def __getattr__(self, name):
        def draw(*arguments):
            self.drawn.append(getattr(self.random, name)(*arguments))
            return self.drawn[-1]

        return draw


@pytest.fixture
def recorded(monkeypatch):
    kept = []
    generator = np.random.Generator

    def make(bits):
        kept.append(Recorded(generator(bits)))
        return kept[-1]

    monkeypatch.setattr(metrics.np.random, "Generator", make)
    return kept


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_resample_scores_as_its_rows_do(count, recorded):
    random = np.random.default_rng(count)
    gold = random.integers(0, count, 12)
    answers = [random.integers(0, count, 12) for _ in range(2)]
    found = resampled(classes(count), [outputs_of(one, count) for one in answers], gold, resamples=40)
    cells = sorted(set(zip(gold.tolist(), *(one.tolist() for one in answers), strict=True)))
    assert len(found) == 2
    for number, drawn in enumerate(recorded[0].drawn[0]):
        rows = np.repeat(np.array(cells), drawn, axis=0)
        assert len(rows) == 12
        for model, values in enumerate(found, 1):
            expected = score(classes(count), outputs_of(rows[:, model], count), rows[:, 0])
            assert {name: one[number] for name, one in values.items()} == pytest.approx(expected)


def test_each_resample_of_scores_too(recorded, monkeypatch):
    monkeypatch.setattr(metrics, "_AT_ONCE", 40)  # several blocks, the last of another size
    random = np.random.default_rng(3)
    gold = random.integers(0, 3, 6).astype(np.float32)
    predicted = [random.normal(size=(6, 1)).astype(np.float32), np.ones((6, 1), np.float32)]
    found = resampled(SCORES, predicted, gold, resamples=50)
    resamples = np.concatenate(recorded[0].drawn)
    assert [len(block) for block in recorded[0].drawn] == [6] * 8 + [2]
    for number, rows in enumerate(resamples):
        for values, one in zip(found, predicted, strict=True):
            expected = score(SCORES, one[rows], gold[rows])
            assert {name: value[number] for name, value in values.items()} == pytest.approx(expected)


@pytest.mark.parametrize("positive", ["", "ham", "spam"])
def test_f1_is_that_of_the_label_asked_for(positive):
    task = Task("mail", "single", ("spam", "ham"), positive=positive)
    outputs = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    gold = np.random.default_rng(2).integers(0, 2, 200)
    label = task.labels.index(positive or "ham")
    expected = sk.f1_score(gold == label, outputs.argmax(1) == label)
    assert score(task, outputs, gold)["f1"] == pytest.approx(expected)
    (resamples,) = resampled(task, [outputs], gold, resamples=500)
    assert abs(resamples["f1"].mean() - expected) < 0.02
    assert metric_title(task, "f1") == f"f1 of {positive or 'ham'}" and metric_title(task, "mcc") == "mcc"
    assert metric_title(Task("t", "single", ("a", "b", "c")), "f1") == "macro f1"


SETS = Task("topics", "single", ("a", "b", "c"), metric="micro_f1", multi_label=True)
CLASSES = Task("three", "single", ("a", "b", "c"))
NUMBERS = np.random.default_rng(4)
LOGITS = NUMBERS.normal(size=(60, 3)).astype(np.float32)
GOLD = LOGITS + NUMBERS.normal(size=(60, 3)) > 0.4
GOLD[:5] = False  # no label at all


def test_each_output_is_a_yes_or_no_of_its_own():
    assert probabilities(LOGITS, SETS) == pytest.approx(expit(LOGITS.astype(np.float64)))
    assert probabilities(LOGITS, CLASSES) == pytest.approx(softmax(LOGITS.astype(np.float64), axis=1))
    assert (answers(LOGITS, SETS) == (expit(LOGITS) > 0.5)).all()
    own = replace(SETS, thresholds=(0.3, 0.5, 0.8))
    assert (answers(LOGITS, own) == (expit(LOGITS) > np.array(own.thresholds))).all()
    assert (answers(at_half(LOGITS, own), SETS) == answers(LOGITS, own)).all()
    assert np.isfinite(probabilities(np.array([[-1e4, 1e4, 0.0]]), SETS)).all()
    assert written(np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], bool), SETS.labels) == ["a|c", "", "b"]
    assert written(np.array([2, 0]), SETS.labels) == ["c", "a"]


def test_a_threshold_has_the_highest_f1_of_its_label():
    shares = expit(LOGITS.astype(np.float64))
    for label, threshold in enumerate(best_thresholds(LOGITS, GOLD)):
        tried = [sk.f1_score(GOLD[:, label], shares[:, label] > cut) for cut in (0.5, *shares[:, label])]
        assert sk.f1_score(GOLD[:, label], shares[:, label] > threshold) == pytest.approx(max(tried))
    never = GOLD & [True, False, True]
    assert best_thresholds(LOGITS, never)[1] == 0.5
    assert best_thresholds(np.array([[1.0], [-1.0]]), np.array([[True], [False]])) == (0.5,), "the nearest to 0.5"


def test_metrics_are_those_of_scikit_learn():
    said = answers(LOGITS, SETS)
    expected = {f"{kind}_f1": sk.f1_score(GOLD, said, average=kind) for kind in ("micro", "macro")}
    assert score(SETS, LOGITS, GOLD) == pytest.approx(expected | {"subset_accuracy": sk.accuracy_score(GOLD, said)})
    precision, recall, f1, rows = sk.precision_recall_fscore_support(GOLD, said, zero_division=0)
    for one, *expected in zip(label_scores(SETS, LOGITS, GOLD), precision, recall, f1, rows, strict=True):
        assert [one.precision, one.recall, one.f1, one.rows] == pytest.approx(expected)
    classes, answer = NUMBERS.integers(0, 3, 60), LOGITS.argmax(1)
    found = score(CLASSES, LOGITS, classes)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(classes, answer, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(classes, answer))


def test_a_resample_of_sets_of_labels_scores_as_its_rows_do(recorded, monkeypatch):
    monkeypatch.setattr(metrics, "_AT_ONCE", 300)  # several blocks
    logits, gold = LOGITS[:12], GOLD[:12]
    (found,) = resampled(SETS, [logits], gold, resamples=40)
    keys = np.concatenate([np.packbits(gold, axis=1), np.packbits(answers(logits, SETS), axis=1)], 1)
    _, places = np.unique(keys, axis=0, return_index=True)
    drawn = recorded[0].drawn
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
