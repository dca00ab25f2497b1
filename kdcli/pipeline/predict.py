"""Predictions of a student or a teacher for a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.profile.schema import TaskSettings
from kdcli.tasks.layouts import load_table
from kdcli.tasks.task import settings_of

ROWS = 8192


class Model(Protocol):
    """A loaded student or teacher."""

    @property
    def task(self) -> Task:
        """What it predicts."""

    def logits(self, columns: Sequence[Sequence[str]]) -> np.ndarray:
        """Return ``float32 [rows, task.outputs]`` for the text columns."""


def predict(
    model: Model, table: Path, settings: TaskSettings | None = None, reporter: Reporter | None = None
) -> pa.Table:
    """Predict a label, or a score, for each row of a table.

    Args:
        model: A student or a teacher.
        table: A table with the task's text columns; labels are not needed.
        settings: How to read it; by default by the model's task.
        reporter: Shows the progress.

    Returns:
        The columns ``index`` (as in the table, or counted from 0) and ``prediction`` (the label as the task writes
        it, or the score), a row each.

    Raises:
        DataError: The table is not one of the task.
    """
    reporter = reporter or QuietReporter()
    task = model.task
    texts = load_table(table, settings or settings_of(task), task, reporter, labels=False)
    predictions: list[str] = []
    with reporter.progress("predict", len(texts)) as progress:
        for begin in range(0, len(texts), ROWS):
            rows = texts.slice(begin, ROWS)
            logits = model.logits([rows[column].to_pylist() for column in task.columns])
            predictions += named(logits, task)
            progress.advance(len(rows))
    return pa.table({"index": texts["index"], "prediction": pa.array(predictions, pa.string())})


def named(logits: np.ndarray, task: Task) -> list[str]:
    """Name the label of the highest logit of each row, or write its score, no further than the task's range goes."""
    if task.is_score:
        scores = logits[:, 0] if task.score_range is None else logits[:, 0].clip(*task.score_range)
        return [f"{score:.6g}" for score in scores]
    return [task.labels[best] for best in logits.argmax(1)]
