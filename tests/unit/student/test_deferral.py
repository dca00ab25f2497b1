import json
from math import comb, inf, log

import numpy as np
import pytest

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.student import deferral
from kdcli.student.deferral import Calibration, Familiar, WordCounts, calibrate, differs, margins, upper_bound

CLASSES = Task("toy", "single", ("a", "b", "c"))
SCORE = Task("toy", "single", (), score_range=(0.0, 5.0), metric="pearson")
ALL = Familiar(1.0, 1000)


def counts(words, unknown):
    return WordCounts(np.array(words), np.array(unknown, float))


@pytest.mark.parametrize(("errors", "texts"), [(0, 20), (1, 20), (3, 57), (19, 20), (12, 300)])
def test_the_bound_by_a_sum_of_the_binomial_distribution(errors, texts):
    bound = float(upper_bound(errors, texts))
    below = sum(comb(texts, k) * bound**k * (1 - bound) ** (texts - k) for k in range(errors + 1))
    assert below == pytest.approx(0.05, rel=1e-9)  # the largest probability under which so few errors are likely


def test_the_bound_at_both_ends():
    assert upper_bound(np.array([0, 20]), 20).tolist() == pytest.approx([1 - 0.05 ** (1 / 20), 1.0])
    for agree in (0.9, 0.95, 0.98, 0.99):
        needed = deferral.texts_needed(agree)
        assert upper_bound(0, needed) <= 1 - agree < upper_bound(0, needed - 1)
        assert needed - 1 < log(0.05) / log(agree) <= needed


def simulate(random, texts, ties):
    """Draw margins from 0 to 1, and errors that are the likelier the smaller the margin: (1 - margin)^2 / 2."""
    margin = random.random(texts)
    if ties:
        margin = np.floor(margin * 8) / 8
    return margin, random.random(texts) < (1 - margin) ** 2 / 2


def risk(threshold, ties):
    """The probability that a text is answered, its margin above the threshold, and wrong."""
    if not ties:
        return (1 - np.clip(threshold, 0, 1)) ** 3 / 6
    values = np.arange(8) / 8
    return ((values > threshold) * (1 - values) ** 2 / 2).sum() / 8


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("texts", "agree"), [(80, 0.95), (400, 0.98), (400, 0.9)])
def test_the_target_is_missed_in_at_most_one_of_twenty_calibrations(texts, agree, ties):
    random, draws = np.random.default_rng(1), 2000
    missed, answered = 0, []
    for _ in range(draws):
        margin, wrong = simulate(random, texts, ties)
        found = calibrate(margin, wrong, agree=agree, familiar=ALL)
        missed += risk(found.threshold(), ties) > 1 - agree
        answered.append(found.answered[found.errors()])
    # Four standard deviations of a share of 5 % among the draws.
    assert missed / draws <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / draws)
    assert np.mean(answered) > 0.05  # which is not kept by answering nothing


def test_a_calibration_counts_what_lies_strictly_above_each_threshold_and_is_cross_fitted_by_halves():
    margin = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.5, -inf, 0.4])
    wrong = np.array([False, True, False, False, True, False, True, False])
    right = np.array([[True] * 4 + [False] * 4, [True, False, True, True, True, False, True, True]])
    found = calibrate(margin, wrong, agree=0.5, familiar=ALL, right=right)
    assert found.margins == [0.8, 0.6]  # that of a text which is not familiar is none
    assert found.answered == [1 / 8, 4 / 8, 7 / 8]
    for threshold, accuracy in zip([*found.margins, -inf], found.accuracy, strict=True):
        assert accuracy == pytest.approx(np.where(margin > threshold, right[1], right[0]).mean())
    assert found.teacher_accuracy == 0.5
    assert found.bounds == pytest.approx(upper_bound(np.arange(3), 8).tolist())
    assert (found.errors(0.5), found.threshold(0.5), found.threshold(0.01), found.errors(0.99)) == (1, 0.6, -inf, None)
    deferred = {0.5: [4, 5, 6, 7], 0.01: [6], 0.99: [*range(8)]}
    assert {agree: np.flatnonzero(found.defers(margin, agree)).tolist() for agree in deferred} == deferred
    margin, wrong = simulate(np.random.default_rng(2), 4000, ties=False)
    found = calibrate(margin, wrong, agree=0.95, familiar=ALL)
    answered, agreement = deferral.cross_fit(margin, wrong, found)
    # Half as many texts allow a little less; the risk stays near the target.
    assert answered < found.answered[found.errors()]
    assert 0.95 <= agreement <= 0.97


def test_margins_differences_and_what_is_familiar():
    logits = np.array([[1.0, 3.0, 2.5], [0.0, -1.0, -4.0]], np.float32)
    few = counts([5, 50], [0.2, 0.0])
    assert margins(logits, few, CLASSES, ALL).tolist() == [0.5, 1.0]
    assert margins(logits, few, CLASSES, Familiar(1.0, 49)).tolist() == [0.5, -inf]
    assert margins(logits, few, CLASSES, Familiar(0.1, 50)).tolist() == [-inf, 1.0]
    assert margins(logits[:, :1], few, SCORE, ALL).tolist() == [-0.2, 0.0]
    assert differs(logits, logits[:, [1, 0, 2]], CLASSES).tolist() == [True, True]
    assert differs(logits, logits + 1, CLASSES).tolist() == [False, False]
    scores = np.array([[4.0], [9.0], [1.0]]), np.array([[4.4], [5.0], [1.6]])  # 9 is beyond the range
    assert differs(*scores, SCORE, 0.5).tolist() == [False, False, True]
    random = np.random.default_rng(1)
    some = counts(random.integers(1, 1000, 1000), random.random(1000))
    found = Familiar.like(some)
    assert {(some.words <= found.words).sum(), (some.unknown <= found.unknown).sum()} <= {*range(990, 995)}
    assert Familiar.like(counts([7], [0.0])) == Familiar(0.0, 7)


def test_the_file(tmp_path):
    path = tmp_path / "calibration.json"
    assert Calibration.load(path) is None
    found = calibrate(*simulate(np.random.default_rng(1), 50, ties=False), agree=0.9, familiar=Familiar(0.1, 30))
    found.save(path)
    assert Calibration.load(path) == found
    content = json.loads(path.read_text())
    changes = ({"bounds": [0.1]}, {"format": "kd.calibration/9"}, {"margins": "x"}, {"familiar": {}})
    for text in ("{", *(json.dumps(content | change) for change in changes)):
        path.write_text(text)
        with pytest.raises(DataError):
            Calibration.load(path)
