"""What a model's logits say: a label, or a score, and how probable each label is, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.errors import UsageError
from kdcli.tables.strings import strings


class Model(Protocol):
    """A loaded student or teacher."""

    @property
    def task(self) -> Task:
        """What it predicts."""

    def logits(self, columns: Sequence[Sequence[str]]) -> np.ndarray:
        """Return ``float32 [rows, task.outputs]`` for the text columns."""


def schema_of(task: Task, *, probabilities: bool = False) -> pa.Schema:
    """Return the columns of predictions: ``index``, ``prediction``, and ``probability_LABEL`` for each label.

    Raises:
        UsageError: Probabilities are asked for, and the task has scores.
    """
    if probabilities and task.is_score:
        raise UsageError(f"{task.name} predicts scores, which have no probabilities", hint="leave out --probabilities")
    fields = [("index", pa.string()), ("prediction", pa.float32() if task.is_score else pa.string())]
    fields += [(f"probability_{label}", pa.float32()) for label in task.labels if probabilities]
    return pa.schema(fields)


def predictions(
    model: Model, index: pa.StringArray, columns: Sequence[Sequence[str]], *, probabilities: bool = False
) -> pa.RecordBatch:
    """Predict a label, or a score, for each text.

    Args:
        model: A student or a teacher.
        index: What the rows are called.
        columns: The texts, a list for each text column of the task.
        probabilities: Give that of each label too.

    Returns:
        The columns of ``schema_of``: the label of the highest logit as the task writes it, or the score, no further
        than the task's range goes.
    """
    task, logits = model.task, model.logits(columns)
    if task.is_score:
        told = _floats(logits[:, 0] if task.score_range is None else logits[:, 0].clip(*task.score_range))
    else:
        told = strings([task.labels[best] for best in logits.argmax(1)])
    more = [_floats(column) for column in softmax(logits).T] if probabilities else []
    return pa.RecordBatch.from_arrays([index, told, *more], schema=schema_of(task, probabilities=probabilities))


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Return the probabilities of the classes, ``float32 [rows, classes]``, computed in float64."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    powers = np.exp(shifted)
    probabilities: NDArray[np.float32] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return probabilities


def _floats(values: NDArray[Any]) -> pa.FloatArray:
    data = np.ascontiguousarray(values, np.float32)
    return pa.Array.from_buffers(pa.float32(), len(data), [None, pa.py_buffer(data)])
