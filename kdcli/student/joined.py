"""The joined set: texts with the teacher's logits and a label, as ``kd join`` or d-bert writes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.errors import DataError
from kdcli.tables.forms import Numbers
from kdcli.tables.read import TableReader, read_table
from kdcli.tasks.labels import encode_labels, respell, spelling_of
from kdcli.tasks.text_set import text_columns


@dataclass(frozen=True)
class JoinedSet:
    """An open joined set, which can be read again and again.

    Attributes:
        reader: The table.
        task: The task.
        texts: The columns of the texts.
        logits: The columns of the logits, in the order of the task's labels.
        label: The column of the label; None where there is none.
        made: Whether its rows count as fabricated: without a label the teacher's choice is theirs.
    """

    reader: TableReader
    task: Task
    texts: tuple[str, ...]
    logits: tuple[str, ...]
    label: str | None
    made: bool

    @property
    def path(self) -> Path:
        """The file."""
        return self.reader.path

    def batches(self) -> Iterator[tuple[list[pa.Array], NDArray[np.float32], NDArray[Any] | None]]:
        """Give the rows in batches: the text columns, the logits, and the labels if all rows have one.

        Raises:
            DataError: A row cannot be read, a logit is no finite number, or a label is not the task's.
        """
        for numbers, batch in self.reader.numbered():
            logits = np.stack([_floats(batch, name, numbers, self.path) for name in self.logits], axis=1)
            yield [batch[name] for name in self.texts], logits, self._labels(batch, logits, numbers)

    def texts_alone(self) -> Iterator[list[pa.Array]]:
        """Give the text columns in batches."""
        for batch in read_table(self.path, columns=self.texts):
            yield [batch[name] for name in self.texts]

    def _labels(self, batch: pa.RecordBatch, logits: NDArray[np.float32], numbers: Numbers) -> NDArray[Any] | None:
        if self.label is None:
            return None if not self.made else logits[:, 0] if self.task.is_score else logits.argmax(axis=1)
        labels = batch[self.label].cast(pa.string())
        if pc.any(pc.is_in(labels, _NO_LABEL)).as_py():
            return None
        if self.task.is_score:  # a teacher's score may lie outside of the task's range
            return _floats(batch, self.label, numbers, self.path)
        labels = respell(labels, spelling_of(labels, self.task), self.task)
        return encode_labels(labels, self.task, file=self.path, rows=numbers)


def open_joined(path: Path, task: Task, reporter: Reporter) -> JoinedSet:
    """Open a joined set by its header.

    d-bert's tables have the text columns of GLUE's, a score in the column ``score``, no ``source``, and in ``label``
    the number of the teacher's choice, or no such column (QQP's ``is_duplicate`` is 0 in every row).

    Args:
        path: A table with the task's text columns, ``logits_0`` and so on, and (optionally) ``source`` and ``label``.
        task: The task.
        reporter: Told how a table is taken that ``kd`` has not written.

    Raises:
        DataError: The file cannot be read, a column is missing, or there are more logits than the task has labels.
    """
    there = read_table(path).columns
    texts = text_columns(there, task) or task.columns
    logits = tuple(f"logits_{number}" for number in range(task.outputs))
    if task.is_score and "logits_0" not in there and "score" in there:
        logits = ("score",)
    for name in (*texts, *logits):
        if name not in there:
            hint = f"`kd join` makes such a table; the columns of this one are {', '.join(there)}"
            raise DataError(f"there is no column {name!r}", file=path, key=name, hint=hint)
    if f"logits_{task.outputs}" in there:
        what = f"there are more logits than the {task.outputs} of task {task.name}"
        raise DataError(what, file=path, hint="task.labels must name the classes of this table")
    label = "label" if "label" in there else None
    made = "source" not in there
    if made:
        where = "in 'label'" if label else "the teacher's choice"
        found = ", ".join(map(repr, (*texts, *logits)))
        reporter.info(f"{path.name}: texts and logits in {found}, labels {where}; all its rows count as fabricated")
    reader = read_table(path, columns=[*texts, *logits, *([label] if label else [])])
    return JoinedSet(reader, task, texts, logits, label, made)


def _floats(batch: pa.RecordBatch, name: str, numbers: Numbers, path: Path) -> NDArray[np.float32]:
    try:
        values = batch[name].cast(pa.float32())
    except pa.ArrowInvalid:
        values = pa.array([_number(value) for value in batch[name].to_pylist()], pa.float32())
    floats: NDArray[np.float32] = pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~np.isfinite(floats))
    if len(wrong):
        what = f"{name} must be a finite number, not {batch[name][int(wrong[0])].as_py()!r}"
        raise DataError(what, file=path, row=int(numbers[wrong[0]]), key=name)
    return floats


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


_NO_LABEL = pa.array([None, ""], pa.string())
