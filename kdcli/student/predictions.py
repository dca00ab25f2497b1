"""The predictions of a student, as values of Python."""

from dataclasses import dataclass
from typing import Any

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


class Predictions(list[Any]):
    """A ``Prediction``, a ``LabelSet`` or a ``Score`` for each text; NumPy reads it as an array of the answers."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return labels or scores ``[texts]``, or zeros and ones ``[texts, labels]``, the labels sorted by name."""
        answers: list[Any] = [one.score if isinstance(one, Score) else getattr(one, "label", None) for one in self]
        if self and isinstance(self[0], LabelSet):
            answers = [[int(label in one.labels) for label in sorted(one.probabilities)] for one in self]
        return np.array(answers, dtype)


def predictions(logits: NDArray[np.float32], task: Task) -> Predictions:
    """Return the predictions of logits ``[rows, task.outputs]``."""
    if task.is_score:
        scores = logits[:, 0] if task.score_range is None else logits[:, 0].clip(*task.score_range)
        return Predictions(map(Score, scores.tolist()))
    shares = [dict(zip(task.labels, row, strict=True)) for row in probabilities(logits, task).tolist()]
    chosen = written(answers(logits, task), task.labels)
    if task.multi_label:
        sets = [tuple(filter(None, text.split(SEPARATOR))) for text in chosen]
        return Predictions(map(LabelSet, sets, shares))
    return Predictions(map(Prediction, chosen, shares))
