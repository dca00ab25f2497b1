"""The predictions of a student, as values of Python."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.tables import SEPARATOR
from kdcli.tasks.answers import answers, probabilities, written


@dataclass(frozen=True)
class Prediction:
    """The most probable label of a text, or of a pair, and the probability of every label."""

    label: str
    probabilities: dict[str, float]
    deferred: bool = False  # whether the student is too unsure to answer, where that was asked for


@dataclass(frozen=True)
class LabelSet:
    """The labels of a text, or of a pair, in a multi-label task, perhaps none, and the probability of every label."""

    labels: tuple[str, ...]
    probabilities: dict[str, float]
    deferred: bool = False


@dataclass(frozen=True)
class Score:
    """The predicted score of a text, or of a pair, within the task's range."""

    score: float
    deferred: bool = False


Predictions = list[Prediction] | list[LabelSet] | list[Score]


def predictions(logits: NDArray[np.float32], task: Task) -> Predictions:
    """Return the predictions of logits ``[rows, task.outputs]``."""
    if task.is_score:
        scores = logits[:, 0] if task.score_range is None else logits[:, 0].clip(*task.score_range)
        return [Score(score) for score in scores.tolist()]
    shares = [dict(zip(task.labels, row, strict=True)) for row in probabilities(logits, task).tolist()]
    chosen = written(answers(logits, task), task.labels)
    if task.multi_label:
        sets = [tuple(filter(None, text.split(SEPARATOR))) for text in chosen]
        return [LabelSet(*one) for one in zip(sets, shares, strict=True)]
    return [Prediction(*one) for one in zip(chosen, shares, strict=True)]
