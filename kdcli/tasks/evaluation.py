"""How good a model is on labelled rows, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.tasks.bootstrap import RESAMPLES, resampled
from kdcli.tasks.calibration import Calibration, calibration
from kdcli.tasks.metrics import score


@dataclass(frozen=True)
class Measured:
    """A metric, and the 95 % interval that the percentiles of a bootstrap over the rows give it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LengthBin:
    """The rows of about one length: a quarter of all, more where many are equally long.

    Attributes:
        shortest: Words of the shortest.
        longest: Words of the longest.
        rows: How many there are.
        metrics: The scores on these rows alone.
    """

    shortest: int
    longest: int
    rows: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """A model on one table.

    Attributes:
        rows: The rows of the table.
        metrics: By name, those of the task first.
        confusion: How many rows of each label got each answer, ``[gold][answer]`` in the task's order; None for scores.
        calibration: Confidence against accuracy; None for scores.
        lengths: The metrics by length of the texts (both of a pair), in words between white space.
        agreement: With the teacher: the share of equal answers, or Pearson's correlation of the scores; None without
            one.
    """

    rows: int
    metrics: dict[str, Measured]
    confusion: list[list[int]] | None
    calibration: Calibration | None
    lengths: list[LengthBin]
    agreement: float | None


def evaluate(
    task: Task,
    outputs: NDArray[np.floating[Any]],
    gold: NDArray[Any],
    words: NDArray[np.integer[Any]],
    *,
    teacher: NDArray[np.floating[Any]] | None = None,
    seed: int = 1,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Score a model in all ways that fit the task.

    Args:
        task: The task.
        outputs: The model's, ``[rows, task.outputs]``, one row at least.
        gold: The class ids ``int64 [rows]``, or the scores ``float32 [rows]``.
        words: The length of each row's texts, ``[rows]``.
        teacher: The teacher's outputs.
        seed: Seed of the bootstrap.
        resamples: How many it draws.
    """
    values = score(task, outputs, gold)
    drawn = resampled(task, [outputs], gold, seed=seed, resamples=resamples)[0]
    names = dict.fromkeys([task.metric, *task.more_metrics, *values])
    return Evaluation(
        len(gold),
        {name: Measured(values[name], *np.percentile(drawn[name], [2.5, 97.5]).tolist()) for name in names},
        None if task.is_score else confusion(gold, outputs.argmax(1), task.outputs),
        None if task.is_score else calibration(outputs, gold),
        by_length(task, outputs, gold, words),
        None if teacher is None else agreement(task, outputs, teacher),
    )


def confusion(gold: NDArray[np.int64], answer: NDArray[np.int64], classes: int) -> list[list[int]]:
    """Count the rows of each label (the first index) that got each answer (the second)."""
    counts = np.bincount(gold * classes + answer, minlength=classes * classes)
    matrix: list[list[int]] = counts.reshape(classes, classes).tolist()
    return matrix


def agreement(task: Task, outputs: NDArray[np.floating[Any]], teacher: NDArray[np.floating[Any]]) -> float:
    """Return the share of rows on which two models give one answer, or the correlation of their scores."""
    if task.is_score:
        return score(task, outputs, teacher[:, 0])["pearson"]
    return float((outputs.argmax(1) == teacher.argmax(1)).mean())


def by_length(
    task: Task, outputs: NDArray[np.floating[Any]], gold: NDArray[Any], words: NDArray[np.integer[Any]]
) -> list[LengthBin]:
    """Score short and long texts apart, in bins between the quartiles of the lengths."""
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
