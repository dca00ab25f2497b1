"""Score a model, and say how sure the score is: intervals, calibration, significance, nearness to the teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest

from kdcli.api import Task
from kdcli.tasks.answers import Outputs, answers, as_classes, centred, label_matrix, same, without_thresholds
from kdcli.tasks.metrics import RESAMPLES, Floats, resampled, resampled_counts, score

BINS = 15  # bins of the calibration, as in Guo et al. 2017
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A metric and its 95 % interval: percentiles of a bootstrap over the rows."""

    value: float
    low: float
    high: float


def bounds(drawn: NDArray[Any]) -> tuple[float, float]:
    """Return a 95 % interval: the percentiles of a bootstrap."""
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return low, high


@dataclass(frozen=True)
class LengthBin:
    """The rows of about one length (words of the shortest, of the longest), a quarter of all, and their scores."""

    shortest: int
    longest: int
    rows: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error, mean confidence and accuracy."""

    ece: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class LabelScore:
    """One label as a yes or no: the rows that have it, and precision, recall and F1; one without a value is 0."""

    label: str  # its readable name, if it has one
    rows: int
    precision: float
    recall: float
    f1: float
    threshold: float = 0.5  # the probability above which a multi-label model says yes


@dataclass(frozen=True)
class Evaluation:
    """A model on one table.

    ``metrics`` begin with the task's. ``confusion`` counts the rows by label and answer, ``[gold][answer]``, of a task
    with one class a row; ``calibration`` and ``labels`` are those of any labels. ``lengths`` are in words between white
    space, both of a pair. ``agreement`` with the teacher is the share of equal answers, of a multi-label task over all
    labels of all rows, or Pearson's correlation of the scores; None without one.
    """

    rows: int
    metrics: dict[str, Interval]
    confusion: list[list[int]] | None
    calibration: Calibration | None
    lengths: list[LengthBin]
    agreement: float | None
    labels: list[LabelScore] | None = None


@dataclass(frozen=True)
class Difference:
    """The first model's metric minus the second's, its 95 % interval, and the p value of equally good models."""

    difference: float
    low: float
    high: float
    p: float
    test: Literal["McNemar's exact test", "paired bootstrap"]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows: their differences, and the rows that only one has right (None for scores)."""

    first: str
    second: str
    metrics: dict[str, Difference]
    only_first_right: int | None
    only_second_right: int | None


def evaluate(
    task: Task,
    outputs: Outputs,
    gold: NDArray[Any],
    words: NDArray[np.integer[Any]],
    *,
    teacher: Outputs | None = None,
    seed: int = 1,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Score a model in all ways that fit the task.

    ``outputs`` and the ``teacher``'s are ``[rows, task.outputs]``, ``gold`` is as for ``score``, ``words`` the length
    of each row's texts ``[rows]``; thresholds of the task are the model's, not the teacher's.
    """
    values = score(task, outputs, gold)
    drawn = resampled(task, [outputs], gold, seed=seed, resamples=resamples)[0]
    names = dict.fromkeys([task.metric, *task.more_metrics, *values])
    return Evaluation(
        len(gold),
        {name: Interval(values[name], *bounds(drawn[name])) for name in names},
        None if task.is_score or task.multi_label else confusion(gold, answers(outputs, task), task.outputs),
        None if task.is_score else calibration(as_classes(outputs, task), gold),
        by_length(task, outputs, gold, words),
        None if teacher is None else agreement(task, outputs, teacher),
        None if task.is_score else label_scores(task, outputs, gold),
    )


def label_scores(task: Task, outputs: Outputs, gold: NDArray[Any]) -> list[LabelScore]:
    """Score each label by itself; of one class a row, as against all others."""
    said, wanted = label_matrix(answers(outputs, task), task), label_matrix(gold, task)
    counts = np.stack([(said & wanted).sum(0), said.sum(0), wanted.sum(0)]).tolist()
    thresholds = task.thresholds or [0.5] * task.outputs
    return [
        LabelScore(label, rows, right / max(yes, 1), right / max(rows, 1), 2 * right / max(yes + rows, 1), threshold)
        for label, right, yes, rows, threshold in zip(task.names or task.labels, *counts, thresholds, strict=True)
    ]


def confusion(gold: NDArray[np.int64], answer: NDArray[np.int64], classes: int) -> list[list[int]]:
    """Count the rows of each label (the first index) that got each answer (the second)."""
    return list(np.bincount(gold * classes + answer, minlength=classes**2).reshape(classes, classes).tolist())


def agreement(task: Task, outputs: Outputs, teacher: Outputs) -> float:
    """Return the share of rows on which two models give one answer, or the correlation of their scores."""
    if task.is_score:
        return score(task, outputs, teacher[:, 0])["pearson"]
    return float((answers(outputs, task) == answers(teacher, without_thresholds(task))).mean())


def by_length(task: Task, outputs: Outputs, gold: NDArray[Any], words: NDArray[np.integer[Any]]) -> list[LengthBin]:
    """Score short and long texts separately, in bins between the quartiles of the lengths."""
    # Each limit is a length that occurs, so that no bin is empty.
    limits = np.unique(np.quantile(words, [0.25, 0.5, 0.75, 1], method="inverted_cdf"))
    which = np.searchsorted(limits, words, side="left")
    bins = [np.flatnonzero(which == number) for number in range(len(limits))]
    return [
        LengthBin(int(words[rows].min()), int(words[rows].max()), len(rows), score(task, outputs[rows], gold[rows]))
        for rows in bins
    ]


def count_words(columns: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Count the words of each row, in all its texts together (``int64 [rows]``)."""
    return np.array([sum(len(text.split()) for text in row) for row in zip(*columns, strict=True)], np.int64)


def calibration(logits: Outputs, gold: NDArray[Any], bins: int = BINS) -> Calibration:
    """Compare confidence with accuracy, in bins of equal width (Guo et al. 2017, section 2).

    ECE is the sum over the bins B of |B| / n * |accuracy(B) - confidence(B)|; bin m of M holds the rows
    whose confidence, the highest softmax probability, lies in ((m - 1) / M, m / M].

    ``logits`` are ``[rows, classes]`` of at least one row, and ``gold`` class ids ``[rows]``; or ``[rows, labels, 2]``
    and whether a row has a label, ``[rows, labels]``: each label counts as a row.
    """
    confidence = softmax(logits.astype(np.float64), axis=-1).max(-1).ravel()
    right = (logits.argmax(-1) == gold).ravel()
    limits = np.linspace(0, 1, bins + 1)
    # Rounding may carry a probability to just above 1.
    which = np.clip(np.searchsorted(limits, confidence, side="left") - 1, 0, bins - 1)
    ece = float(np.abs(np.bincount(which, right - confidence, bins)).sum() / len(right))
    return Calibration(ece, float(confidence.mean()), float(right.mean()))


def compare_models(
    task: Task,
    first: tuple[str, Outputs],
    second: tuple[str, Outputs],
    gold: NDArray[Any],
    *,
    seed: int = 1,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Test whether two models differ, metric by metric.

    Accuracy, or subset accuracy: McNemar's exact test on the rows that only one model has right. Others: the paired
    bootstrap of Berg-Kirkpatrick et al. 2012 (section 2), two-sided. All intervals are percentiles of the bootstrap.
    ``first`` and ``second`` are a model's name and outputs, ``[rows, task.outputs]``; ``gold`` is as for ``score``.
    """
    found = [score(task, outputs, gold) for _, outputs in (first, second)]
    drawn = resampled(task, [first[1], second[1]], gold, seed=seed, resamples=resamples)
    metrics = {
        metric: _by_bootstrap(found[0][metric] - found[1][metric], drawn[0][metric] - drawn[1][metric])
        for metric in found[0]
    }
    if task.is_score:
        return Comparison(first[0], second[0], metrics, None, None)
    right, other_right = (same(answers(outputs, task), gold) for _, outputs in (first, second))
    alone, other_alone = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    p = mcnemar(alone, other_alone)
    whole = "subset_accuracy" if task.multi_label else "accuracy"
    metrics[whole] = replace(metrics[whole], p=p, test="McNemar's exact test")
    return Comparison(first[0], second[0], metrics, alone, other_alone)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p value of McNemar's exact test on the rows that only one of two models has right."""
    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def _by_bootstrap(difference: float, drawn: Floats) -> Difference:
    # Resamples scatter about the difference found; moved to scatter about 0, they show what chance alone does.
    as_large = np.abs(drawn - difference) >= abs(difference) - _ROUNDING
    p = (1 + int(as_large.sum())) / (1 + len(drawn))
    return Difference(difference, *bounds(drawn), p, "paired bootstrap")


@dataclass(frozen=True)
class Fidelity:
    """Agreement with the teacher, each figure with its 95 % interval of a bootstrap over the texts."""

    # the share of texts with the teacher's label, or of all labels of all texts decided alike; None for scores
    agreement: Interval | None
    # the mean divergence of the student's probabilities from the teacher's, in nats; the sum over a multi-label task's
    # labels; None for scores
    kl: Interval | None
    # the share of the variance of the teacher's logits that the student's explain; 0 where they do not vary
    r2: Interval
    subset: Interval | None = None  # the share of texts with the teacher's whole set of labels, of a multi-label task

    @property
    def nearness(self) -> Interval:
        """The agreement, or R2 of scores."""
        return self.agreement or self.r2


def fidelity(student: NDArray[np.float32], teacher: NDArray[np.float32], task: Task, *, seed: int = 1) -> Fidelity:
    """Compare the logits ``[texts, task.outputs]`` of two models of the same texts; thresholds are the student's."""
    ours, theirs = (centred(logits.astype(np.float64), task) for logits in (student, teacher))
    nearness = [np.empty((len(ours), 0))] if task.is_score else _nearness(ours, theirs, task)
    # What R2 needs of each text, so that a resample of texts is a sum: the errors, the squares, the values.
    values = np.column_stack([*nearness, ((ours - theirs) ** 2).sum(1), (theirs**2).sum(1), theirs])
    draws = resampled_counts(np.ones(len(values)), np.random.Generator(np.random.Philox(seed)))
    drawn = np.concatenate([values.mean(0)[None], *(drawn @ values / len(values) for drawn in draws)])
    if task.is_score:
        return Fidelity(None, None, _interval(_r2(drawn)))
    agreement, kl, subset = map(_interval, drawn.T[:3])
    return Fidelity(agreement, kl, _interval(_r2(drawn[:, 3:])), subset if task.multi_label else None)


def _nearness(ours: Floats, theirs: Floats, task: Task) -> list[Floats]:
    """Return of each text the share of equal decisions, the divergence, and whether all decisions are equal."""
    rows = len(ours)
    equal = (answers(ours, task) == answers(theirs, without_thresholds(task))).reshape(rows, -1)
    log_ours, log_theirs = (log_softmax(as_classes(one, task), -1) for one in (ours, theirs))
    divergence = np.exp(log_theirs) * (log_theirs - log_ours)
    return [equal.mean(1), divergence.reshape(rows, -1).sum(1), equal.all(1)]


def _r2(means: Floats) -> Floats:
    """Return R2 from means of errors, squares and values, ``[resamples]``."""
    spread = means[:, 1] - (means[:, 2:] ** 2).sum(1)
    return np.where(spread > 0, 1 - means[:, 0] / np.where(spread > 0, spread, 1), 0.0)


def _interval(values: Floats) -> Interval:
    return Interval(float(values[0]), *bounds(values[1:]))
