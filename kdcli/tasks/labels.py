"""Labels and scores as tables write them, checked row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.tables.forms import Numbers

Spelling = tuple[str, ...]
"""How a table writes the labels of a task, in the task's order."""


def spellings(task: Task) -> list[Spelling]:
    """Return how a table may write the labels of a task: as they are, by their readable names, or by their numbers.

    The Hugging Face Hub numbers the classes that GLUE's own tables name. Numbers are not taken for labels that are
    numbers themselves: 1 and 2 must not become 0 and 1.
    """
    numbers = tuple(str(number) for number in range(len(task.labels)))
    known = [task.labels, task.names, () if any(label.isdigit() for label in task.labels) else numbers]
    return [spelling for spelling in known if spelling]


def spelling_of(labels: pa.Array, task: Task) -> Spelling:
    """Return the first spelling that all the labels have; the task's own if none does, so that its errors are told."""
    there = set(pc.unique(labels.drop_null()).to_pylist())
    return next((spelling for spelling in spellings(task) if there <= set(spelling)), task.labels)


def respell(labels: pa.Array, spelling: Spelling, task: Task) -> pa.Array:
    """Write labels as the task does; what is none of the spelling stays as it is."""
    if spelling == task.labels:
        return labels
    found = pc.index_in(labels, value_set=pa.array(spelling, pa.string()))
    return pc.coalesce(pc.take(pa.array(task.labels, pa.string()), found), labels)


def encode_labels(
    labels: pa.Array | pa.ChunkedArray, task: Task, *, file: str | Path, rows: Numbers | None = None
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Turn labels into class ids (in the order of ``task.labels``), or into scores.

    Args:
        labels: The labels as the task writes them.
        task: The task.
        file: The table, for messages.
        rows: The number of each label's row in it; by default counted from 2, below a header.

    Returns:
        ``int64 [rows]`` class ids, or ``float32 [rows]`` scores.

    Raises:
        DataError: A label is missing, outside the task's, or no number in the task's range; names the row.
    """
    text = labels.cast(pa.string())
    text = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    if task.is_score:
        values, wrong = _scores(text, task)
    else:
        found = pc.index_in(text, value_set=pa.array(task.labels, pa.string()))
        values, wrong = found.fill_null(-1).to_numpy().astype(np.int64), found.is_null().to_numpy(zero_copy_only=False)
    if wrong.any():
        place = int(wrong.argmax())
        raise _wrong_label(text[place].as_py(), task, file, place + 2 if rows is None else int(rows[place]))
    return values


def without_hidden(labels: pa.Array, task: Task, *, labelled: bool) -> pa.Array:
    """Take an empty label for none, and where labels are not needed also GLUE's -1 for a label that is kept back."""
    none = pc.fill_null(pc.equal(labels, ""), True)
    range_has_it = task.is_score and (task.score_range is None or task.score_range[0] <= -1)
    if not labelled and "-1" not in task.labels and not range_has_it:
        none = pc.or_(none, pc.fill_null(pc.equal(labels, "-1"), False))
    return pc.if_else(none, pa.scalar(None, pa.string()), labels)


def _scores(text: pa.StringArray, task: Task) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    try:
        values = text.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        values = np.array([_number(value) for value in text.to_pylist()])
    low, high = task.score_range or (-np.inf, np.inf)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.isfinite(values) & (values >= low) & (values <= high))
    return values.astype(np.float32), wrong


def _number(text: str | None) -> float:
    try:
        return pa.scalar(text).cast(pa.float64()).as_py() if text is not None else np.nan
    except pa.ArrowInvalid:
        return np.nan


def _wrong_label(label: str | None, task: Task, file: str | Path, row: int) -> DataError:
    if label is None:
        return DataError("a row has no label", file=file, row=row)
    if task.is_score:
        within = f" from {task.score_range[0]:g} to {task.score_range[1]:g}" if task.score_range else ""
        return DataError(f"the score {label!r} is no number{within}", file=file, row=row, hint="see task.score_range")
    what = f"the label {label!r} is none of the task's: {', '.join(task.labels)}"
    hint = "set task.labels (`kd data check` lists those of the tables), mend the row, or drop such: task.drop_labels"
    return DataError(what, file=file, row=row, hint=hint)
