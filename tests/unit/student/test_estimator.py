import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from made_student import PAIR, SCORE, SINGLE, TEXTS, make_student
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import f1_score, get_scorer, r2_score
from sklearn.model_selection import cross_val_predict
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from kdcli.api import Task
from kdcli.errors import DataError, UsageError
from kdcli.student.student import load_student

UNSORTED = Task("toy", "single", ("yes", "no"))
THREE = Task("toy", "single", ("c", "a", "b"))
MULTI = Task("toy", "single", ("c", "a", "b"), metric="micro_f1", multi_label=True, thresholds=(0.5, 0.4, 0.6))
KNOWN = ("the", "a", "plot", "film", "was", "is", "good", "bad", "dull", "great", "not", "very", "warm", "cold", "seen")
WORDS = [" ".join(words) for words in np.random.default_rng(0).choice(KNOWN, (40, 6))]


def labels_of(student, texts):
    return [one.label for one in student.predict(texts)]


@pytest.mark.parametrize("task", [SINGLE, UNSORTED, THREE], ids=lambda task: "-".join(task.labels))
def test_columns_are_those_of_sorted_classes(tmp_path, task):
    student = load_student(make_student(tmp_path / "student", task))
    assert student.classes_.tolist() == sorted(task.labels)
    found = student.predict(WORDS)
    wanted = [[one.probabilities[label] for label in sorted(task.labels)] for one in found]
    np.testing.assert_allclose(student.predict_proba(WORDS), wanted, atol=1e-7)
    decided = student.decision_function(WORDS)
    logits = student.logits([WORDS])
    if len(task.labels) == 2:
        labels = np.array(labels_of(student, WORDS))
        assert set(labels) == {"no", "yes"} and (found == labels).all() and not (found != labels).any()
        assert [get_scorer(name)(student, WORDS, labels) for name in ("roc_auc", "f1_macro")] == [1, 1]
        yes, no = task.labels.index("yes"), task.labels.index("no")
        np.testing.assert_allclose(decided, logits[:, yes] - logits[:, no], atol=1e-5)
        assert np.array_equal(student.classes_[(decided > 0).astype(int)], found)
    else:
        np.testing.assert_allclose(decided, logits[:, [1, 2, 0]], atol=1e-5)
        assert np.array_equal(student.classes_[decided.argmax(1)], found)


def test_it_is_a_fitted_classifier_or_regressor_and_pickled_as_its_path(tmp_path):
    for task in (SINGLE, MULTI, SCORE):
        student = load_student(make_student(tmp_path / task.metric, task))
        assert is_regressor(student) == task.is_score != is_classifier(student)
        assert clone(student) is student and student.fit(WORDS) is student and student.get_params() == {}
        check_is_fitted(student)
        assert hasattr(student, "classes_") != task.is_score
    folder = make_student(tmp_path / "student")
    student = load_student(folder)
    packed = pickle.dumps(FrozenEstimator(student))
    assert len(packed) < 1000 and b"student" in packed
    assert pickle.loads(packed).predict(WORDS) == student.predict(WORDS)
    assert pickle.loads(pickle.dumps(load_student(folder, torch=True))).compute is None
    student.folder = None
    with pytest.raises(UsageError):
        pickle.dumps(student)
    student.save(tmp_path / "again")
    assert pickle.loads(pickle.dumps(student)).folder == tmp_path / "again"
    assert "toy" in repr(student) and len(repr(student)) < 300


@pytest.mark.parametrize("task", [UNSORTED, THREE], ids=lambda task: "-".join(task.labels))
def test_it_is_calibrated_and_cross_validated(tmp_path, task):
    student, texts = load_student(make_student(tmp_path / "student", task)), WORDS
    truth = np.array(labels_of(student, texts))
    truth[::7] = np.random.default_rng(0).permutation(truth)[::7]  # some are wrong
    for estimator in (FrozenEstimator(student), student):
        shares = cross_val_predict(estimator, texts, truth, cv=3, method="predict_proba")
        np.testing.assert_allclose(shares, student.predict_proba(texts), atol=1e-6)
        assert cross_val_predict(estimator, np.array(texts), truth, cv=3).tolist() == labels_of(student, texts)
        calibrated = CalibratedClassifierCV(estimator, method="sigmoid", cv=3).fit(texts, truth)
        assert calibrated.classes_.tolist() == sorted(task.labels)
        assert (calibrated.predict(texts) == truth).mean() > 0.6


def test_scores_and_sets_of_labels(tmp_path):
    student = load_student(make_student(tmp_path / "score", SCORE))
    pairs = list(zip(WORDS, WORDS[::-1], strict=True))
    scores = [one.score for one in student.predict(pairs)]
    assert r2_score(scores, student.predict(pairs)) == 1 and student.predict(np.array(pairs)) == student.predict(pairs)
    assert cross_val_predict(student, pairs, scores, cv=2) == pytest.approx(scores, abs=1e-5)
    for call in (student.predict_proba, student.decision_function):
        with pytest.raises(UsageError):
            call(pairs)
    student = load_student(make_student(tmp_path / "multi", MULTI))
    sets = np.array([[label in one.labels for label in "abc"] for one in student.predict(WORDS)], int)
    assert np.array_equal(student.predict(WORDS), sets)
    assert type_of_target(student.predict(WORDS)) == "multilabel-indicator"
    assert f1_score(sets, student.predict(WORDS), average="micro") == 1
    assert np.array_equal(student.decision_function(WORDS) > 0, sets)
    assert np.array_equal(student.predict_proba(WORDS) > [0.4, 0.6, 0.5], sets)


def test_texts_come_in_lists_arrays_columns_and_tables(tmp_path):
    student, pairs = (load_student(make_student(tmp_path / task.kind, task)) for task in (SINGLE, PAIR))
    texts = TEXTS[2:]
    expected = student.predict(texts)
    forms = [tuple(texts), np.array(texts), np.array(texts, object), pd.Series(texts), pl.Series(texts)]
    forms += [pd.Series(texts, dtype="category"), pd.DataFrame({"id": texts}), pl.DataFrame({"id": texts})]
    for form in forms:
        assert student.predict(form) == expected
    rows = list(zip(texts, texts[::-1], strict=True))
    for form in (np.array(rows), pd.DataFrame(rows), pl.DataFrame(rows, ["one", "two"], orient="row")):
        assert pairs.predict(form) == pairs.predict(rows)
    for wrong in (pd.Series(["good", None]), pl.Series(["good", None]), pd.DataFrame(rows), np.array([1, 2])):
        with pytest.raises(DataError):
            student.predict(wrong)
    with pytest.raises(DataError):
        pairs.predict(pd.DataFrame({"one": texts}))
