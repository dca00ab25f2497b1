"""What a student says of texts: its logits in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.tables.strings import is_unicode


@dataclass(frozen=True)
class Prediction:
    """What a student says of a text, or of a pair.

    Attributes:
        label: The most probable label, as the task's tables write it.
        probabilities: Of every label, in the task's order; they sum to 1.
    """

    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Score:
    """What a student of a regression task says.

    Attributes:
        score: The score, no further than the task's range goes.
    """

    score: float


def columns_of(texts: Sequence[str] | Sequence[tuple[str, str]], task: Task) -> list[list[str]]:
    """Return the text columns of texts, or of pairs of texts.

    Raises:
        DataError: They are not texts, or not pairs of texts.
    """
    one = task.kind == "single"
    hint = 'give it texts: predict(["..."])' if one else 'give it pairs of texts: predict([("...", "...")])'
    if isinstance(texts, str):
        raise DataError("one text alone was given to predict", hint=hint)
    columns: list[list[str]] = [[] for _ in task.columns]
    for row, given in enumerate(texts, 1):
        parts = (given,) if one or not isinstance(given, list | tuple) else given
        if len(parts) != len(columns) or not all(isinstance(part, str) and is_unicode(part) for part in parts):
            raise DataError(f"this is not {'a text' if one else 'a pair of texts'}: {given!r:.80}", row=row, hint=hint)
        for column, part in zip(columns, parts, strict=True):
            column.append(str(part))
    return columns


def predictions(logits: NDArray[np.float32], task: Task) -> list[Prediction] | list[Score]:
    """Return what logits ``[rows, task.outputs]`` say."""
    if task.is_score:
        scores = logits[:, 0] if task.score_range is None else logits[:, 0].clip(*task.score_range)
        return [Score(score) for score in scores.tolist()]
    odds = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf), dtype=np.float64)
    every = (odds / odds.sum(1, keepdims=True)).tolist()
    best = logits.argmax(1).tolist()
    return [
        Prediction(task.labels[label], dict(zip(task.labels, row, strict=True)))
        for label, row in zip(best, every, strict=True)
    ]
