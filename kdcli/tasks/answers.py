"""From logits to answers, the one place for each kind of task: a score, one class, or a set of labels (multi-label).

It needs NumPy alone, so that a student predicts with little else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.tables import SEPARATOR

Outputs = NDArray[np.floating[Any]]
_FARTHEST = 10.0  # the farthest that a threshold's logit lies from 0: a probability of 0.99995


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
        values: list[Any] = [one.score if isinstance(one, Score) else getattr(one, "label", None) for one in self]
        if self and isinstance(self[0], LabelSet):
            values = [[int(label in one.labels) for label in sorted(one.probabilities)] for one in self]
        return np.array(values, dtype)


def probabilities(logits: Outputs, task: Task) -> NDArray[np.float64]:
    """Return the probability of each label, ``[rows, labels]``: a softmax, or of a multi-label task sigmoids."""
    logits = logits.astype(np.float64)
    if task.multi_label:
        return np.asarray((1 + np.tanh(logits / 2)) / 2, np.float64)  # the sigmoid, without an overflow
    odds = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    return np.asarray(odds / odds.sum(1, keepdims=True), np.float64)


def answers(logits: Outputs, task: Task) -> NDArray[Any]:
    """Return the answers of logits ``[rows, task.outputs]``.

    They are class ids ``int64 [rows]``, scores ``[rows]``, or of a multi-label task ``bool [rows, labels]``: whether a
    label's probability is above its threshold, 0.5 by default.
    """
    if task.multi_label:
        return at_half(logits, task) > 0
    return logits[:, 0] if task.is_score else logits.argmax(1)


def centred(logits: NDArray[Any], task: Task) -> NDArray[Any]:
    """Return logits less each row's mean where a softmax, which does not see it, reads them; squared errors would."""
    return logits if task.is_score or task.multi_label else logits - logits.mean(1, keepdims=True)


def at_half(logits: Outputs, task: Task) -> Outputs:
    """Return logits less those of the task's thresholds: with them 0.5 is the threshold of each label."""
    if not task.thresholds:
        return logits
    thresholds = np.array(task.thresholds)
    return np.asarray(logits - np.log(thresholds / (1 - thresholds)))


def as_classes(logits: Outputs, task: Task) -> Outputs:
    """Return logits of classes in the last axis; no and yes are the classes of each label of a multi-label task.

    They are ``[rows, classes]``, or ``[rows, labels, 2]``.
    """
    return np.stack([np.zeros_like(logits), logits], axis=-1) if task.multi_label else logits


def without_thresholds(task: Task) -> Task:
    """Return the task of a model that decides at 0.5."""
    return replace(task, thresholds=())


def written(answers: NDArray[Any], names: Sequence[str]) -> list[str]:
    """Write class ids, or sets of labels, as texts; ``names`` are those of the labels."""
    if answers.ndim == 1:
        return [names[label] for label in answers.tolist()]
    found: list[list[str]] = [[] for _ in answers]
    for row, label in zip(*(places.tolist() for places in np.nonzero(answers)), strict=True):
        found[row].append(names[label])
    return list(map(SEPARATOR.join, found))


def shown(logits: Outputs, task: Task, *, shares: bool = False) -> dict[str, Any]:
    """Return the columns of predictions that depend on the logits: ``prediction`` and ``probability_LABEL``.

    A prediction is the label with the highest logit, the set of labels above their thresholds, or the score, cut to
    the task's range.
    """
    found: dict[str, Any] = {"prediction": answers(logits, task)}
    if task.labels:
        found["prediction"] = written(found["prediction"], task.labels)
    elif task.score_range is not None:
        found["prediction"] = found["prediction"].clip(*task.score_range)
    if shares:
        columns = probabilities(logits, task).astype(np.float32).T
        found |= {f"probability_{label}": column for label, column in zip(task.labels, columns, strict=True)}
    return found


def predictions(logits: NDArray[np.float32], task: Task) -> Predictions:
    """Return the predictions of logits ``[rows, task.outputs]``."""
    found = shown(logits, task)["prediction"]
    if task.is_score:
        return Predictions(map(Score, found.tolist()))
    shares = [dict(zip(task.labels, row, strict=True)) for row in probabilities(logits, task).tolist()]
    if task.multi_label:
        sets = [tuple(filter(None, text.split(SEPARATOR))) for text in found]
        return Predictions(map(LabelSet, sets, shares))
    return Predictions(map(Prediction, found, shares))


def label_matrix(answers: NDArray[Any], task: Task) -> NDArray[np.bool_]:
    """Return class ids as ``bool [rows, labels]``; of a multi-label task they are so already."""
    return answers if task.multi_label else np.eye(task.outputs, dtype=bool)[answers]


def same(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows have the same answer, ``[rows]``: the same class, or the same set of labels."""
    return np.asarray((first == second).reshape(len(first), -1).all(1), np.bool_)


def best_thresholds(logits: Outputs, gold: NDArray[np.bool_]) -> tuple[float, ...]:
    """Return for each label the threshold of its probability with the highest F1 (Lipton et al. 2014).

    ``gold`` says which labels each row has; both are ``[rows, labels]``. Candidates are 0.5 and the middles between
    neighbouring logits; of equally good ones the nearest to 0.5 wins. A label of no row, or of all, gets 0.5.
    """
    return tuple(_best_threshold(*columns) for columns in zip(logits.T.astype(np.float64), gold.T, strict=True))


def _best_threshold(logits: NDArray[np.float64], gold: NDArray[np.bool_]) -> float:
    if gold.all() or not gold.any():
        return 0.5
    ordered, rows, positives = np.unique(logits), np.sort(logits), np.sort(logits[gold])
    cuts = np.append((ordered[1:] + ordered[:-1]) / 2, 0.0)
    cuts = cuts[np.abs(cuts) <= _FARTHEST]
    cuts = cuts[np.argsort(np.abs(cuts), kind="stable")]
    said = len(rows) - np.searchsorted(rows, cuts, "right")  # how many lie above each cut
    right = len(positives) - np.searchsorted(positives, cuts, "right")
    best = cuts[np.argmax(2 * right / (said + len(positives)))]
    return float((1 + np.tanh(best / 2)) / 2)
