"""How near a student comes to its teacher on texts that it has not seen: what can be known without gold labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from kdcli.api import Task
from kdcli.tasks.answers import answers, as_classes, without_thresholds
from kdcli.tasks.metrics import RESAMPLES
from kdcli.tasks.statistics import Interval, bounds

_DRAWN = 1 << 24
"""The most numbers that are drawn at once."""


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
    """Compare the logits ``[texts, task.outputs]`` of two models of the same texts; thresholds are the student's.

    The logits of classes are centred first: a constant that is added to all of a text means nothing.
    """
    ours, theirs = student.astype(np.float64), teacher.astype(np.float64)
    nearness = [np.empty((len(ours), 0))] if task.is_score else _nearness(ours, theirs, task)
    if not task.is_score and not task.multi_label:
        ours, theirs = (logits - logits.mean(1, keepdims=True) for logits in (ours, theirs))
    # What R2 needs of each text, so that a resample of texts is a sum: the errors, the squares, the values.
    values = np.column_stack([*nearness, ((ours - theirs) ** 2).sum(1), (theirs**2).sum(1), theirs])
    drawn = np.concatenate([values.mean(0)[None], _resampled_means(values, seed)])
    if task.is_score:
        return Fidelity(None, None, _interval(_r2(drawn)))
    agreement, kl, subset = map(_interval, drawn.T[:3])
    return Fidelity(agreement, kl, _interval(_r2(drawn[:, 3:])), subset if task.multi_label else None)


def _nearness(ours: NDArray[np.float64], theirs: NDArray[np.float64], task: Task) -> list[NDArray[np.float64]]:
    """Return of each text the share of equal decisions, the divergence, and whether all decisions are equal."""
    rows = len(ours)
    equal = (answers(ours, task) == answers(theirs, without_thresholds(task))).reshape(rows, -1)
    log_ours, log_theirs = (log_softmax(as_classes(one, task), -1) for one in (ours, theirs))
    divergence = np.exp(log_theirs) * (log_theirs - log_ours)
    return [equal.mean(1), divergence.reshape(rows, -1).sum(1), equal.all(1)]


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the mean of each column in each resample of the rows, ``[resamples, columns]``."""
    random, rows = np.random.Generator(np.random.Philox(seed)), len(values)
    at_once = max(1, _DRAWN // rows)
    means = []
    for first in range(0, RESAMPLES, at_once):
        counts = random.multinomial(rows, np.full(rows, 1 / rows), min(at_once, RESAMPLES - first))
        means.append(counts @ values / rows)
    return np.concatenate(means)


def _r2(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R2 from means of errors, squares and values, ``[resamples]``."""
    spread = means[:, 1] - (means[:, 2:] ** 2).sum(1)
    return np.where(spread > 0, 1 - means[:, 0] / np.where(spread > 0, spread, 1), 0.0)


def _interval(values: NDArray[np.float64]) -> Interval:
    """Return the interval of a figure of all texts, followed by those of the resamples."""
    return Interval(float(values[0]), *bounds(values[1:]))
