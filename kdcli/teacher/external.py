"""Logits or probabilities that another tool has made: NumPy, PyTorch and table files."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError
from kdcli.tables.parquet import ROWS, slices
from kdcli.tables.read import ROW_NUMBER, read_table
from kdcli.tables.text_hash import text_hash
from kdcli.tasks.text_set import open_texts, text_columns
from kdcli.teacher.logits import Logits, label_positions

LEAST_PROBABILITY = 1e-7
"""The value that a probability of 0 counts as: about the smallest step of a float32 near 1."""

_PREFIXES = ("logits_", "logit_", "probabilities_", "probability_", "probs_", "prob_")
_NOT_LOGITS = {"source", "label", "gold_label", "is_duplicate", "index"}


def read_external(path: Path, *, transfer: Path, task: Task, reporter: Reporter) -> Logits:
    """Read logits made elsewhere.

    A table with the task's text columns is matched by text. Any other file is matched by position: its row *i* belongs
    to row *i* of the transfer set, with a warning. Probabilities become their logarithms, with a warning too.
    ``path`` is ``.npy``, ``.pt`` (a tensor saved by ``torch.save``), or a table (``.csv``, ``.tsv``, ``.jsonl``,
    ``.parquet``) whose columns are ``logits_0..`` or have the names of the labels.
    """
    if not path.is_file():
        raise DataError("there is no such file", file=path)
    hashes = None
    if path.suffix == ".npy":
        values = _checked(_numpy(path), task, path)
    elif path.suffix in (".pt", ".pth"):
        values = _checked(_tensor(path), task, path)
    else:
        values, hashes = _table(path, task, reporter)
    if hashes is None:
        _check_count(len(values), path, transfer, task)
        order = "" if task.is_score else f", its columns for {', '.join(task.labels)}"
        reporter.warn(
            f"{path.name} is matched by position: each of its {len(values):,} rows is for the same row of "
            f"{transfer.name}{order}; a table with the column {' and '.join(task.columns)} would be matched by text"
        )
    if _are_probabilities(values):
        reporter.warn(f"{path.name} holds probabilities: their logarithms become the logits")
        values = np.log(np.maximum(values, LEAST_PROBABILITY))
    return Logits(values, hashes, {})


def _numpy(path: Path) -> NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"this .npy file cannot be read: {error}", file=path) from error


_RECONSTRUCT: Any = np.zeros(0).__reduce__()[0]
_NUMPY: list[Any] = [
    np.ndarray,
    np.dtype,
    np.dtypes.Float16DType,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    codecs.encode,
]
"""All that a pickled array of numbers needs: d-bert's ``logits.pt`` is a list of such arrays, one a batch."""


def _tensor(path: Path) -> NDArray[Any]:
    try:
        with torch.serialization.safe_globals(_NUMPY):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file makes the allow-list raise anything
        what = "this file is damaged, or holds more than a tensor and is refused"
        hint = "kd loads tensors only and runs no pickled code; save the logits with torch.save(tensor) or as .npy"
        raise DataError(what, file=path, hint=hint) from error
    pieces = loaded if isinstance(loaded, list) and loaded else [loaded]
    if not all(isinstance(piece, torch.Tensor | np.ndarray) for piece in pieces):
        what = f"this file holds a {type(pieces[0]).__name__}, and tensors or arrays [rows, labels] are needed"
        raise DataError(what, file=path)
    arrays = [piece.detach().float().numpy() if isinstance(piece, torch.Tensor) else piece for piece in pieces]
    return np.concatenate([np.atleast_2d(array) for array in arrays]) if len(arrays) > 1 else arrays[0]


def _checked(values: NDArray[Any], task: Task, path: Path) -> NDArray[np.float32]:
    """Check the shape and the type of an array, and that its values are finite."""
    if values.ndim == 1 and task.is_score:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] != task.outputs or values.dtype.kind not in "fiu":
        what = f"this array is {values.dtype} {list(values.shape)}, and the task needs float [rows, {task.outputs}]"
        raise DataError(what, file=path)
    return _finite(np.array(values, np.float32), range(1, len(values) + 1), path)


def _table(path: Path, task: Task, reporter: Reporter) -> tuple[NDArray[np.float32], NDArray[np.uint64] | None]:
    """Read the logits of a table, and the hashes of its texts if it has any."""
    reader = read_table(path)
    texts = text_columns(reader.columns, task)
    names = _logit_columns(reader.columns, texts or (), task, path, reporter)
    values, hashes = [np.zeros((0, len(names)), np.float32)], [np.zeros(0, np.uint64)]
    batches: Iterable[pl.DataFrame] = read_table(path, columns=names).batches()
    if texts:
        frame = open_texts(path, task, QuietReporter()).frame
        batches = slices(frame.select(*task.columns, *names, ROW_NUMBER), ROWS)
    for batch in batches:
        columns = [_numbers(batch[name], batch[ROW_NUMBER], path) for name in names]
        values.append(_finite(np.stack(columns, axis=1), batch[ROW_NUMBER], path))
        hashes += [text_hash([batch[name] for name in task.columns])] if texts else []
    return np.concatenate(values), np.concatenate(hashes) if texts else None


def _logit_columns(
    columns: Sequence[str], texts: Sequence[str], task: Task, path: Path, reporter: Reporter
) -> list[str]:
    """Return the columns that hold the logits, in the order of the task's labels."""
    for prefix in _PREFIXES:
        numbered = [f"{prefix}{number}" for number in range(task.outputs)]
        if set(numbered) <= set(columns):
            if f"{prefix}{task.outputs}" in columns:
                raise DataError(f"there are more {prefix}... columns than the task's {task.outputs}", file=path)
            return numbered
    others = [name for name in columns if name not in texts and name not in _NOT_LOGITS]
    positions = label_positions(others, task)
    if positions is not None:
        return [others[position] for position in positions]
    if len(others) != task.outputs:
        needed = "logits_0" if task.is_score else f"logits_0 to logits_{task.outputs - 1}, or {', '.join(task.labels)}"
        hint = f"the columns are {', '.join(columns)}"
        raise DataError(f"no columns with the logits: {needed} are needed", file=path, hint=hint)
    if not task.is_score:
        pairs = ", ".join(f"{name} as {label}" for name, label in zip(others, task.labels, strict=True))
        reporter.warn(f"{path.name} does not name the labels, so its columns are read in their order: {pairs}")
    return others


def _numbers(column: pl.Series, numbers: pl.Series, path: Path) -> NDArray[np.float32]:
    """Return a column as ``float32 [rows]``, NaN where it has no value."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
        column = column.set(column == "", None)
    try:
        values = column.cast(pl.Float32, strict=False)
    except pl.exceptions.PolarsError as error:
        what = f"this column holds {column.dtype}, not numbers"
        raise DataError(what, file=path, key=column.name) from error
    wrong = (values.is_null() & column.is_not_null()).arg_true()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"this is not a number: {column[row]!r}", file=path, row=numbers[row], key=column.name)
    return values.fill_null(np.nan).to_numpy()


def _finite(values: NDArray[np.float32], numbers: Sequence[int] | pl.Series, path: Path) -> NDArray[np.float32]:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        what = f"a logit is missing or is not finite: {values[row].tolist()}"
        raise DataError(what, file=path, row=int(numbers[row]))
    return values


def _check_count(rows: int, path: Path, transfer: Path, task: Task) -> None:
    needed = int(open_texts(transfer, task, QuietReporter()).frame.select(pl.len()).collect().item())
    if rows != needed:
        what = f"this file has {rows:,} rows of logits, and the transfer set has {needed:,}"
        hint = "rows are matched by position here: make the logits for this very transfer set, in its order"
        raise DataError(what, file=path, hint=hint)


def _are_probabilities(values: NDArray[np.float32]) -> bool:
    if values.shape[1] < 2 or not len(values):
        return False
    return bool(values.min() >= 0 and values.max() <= 1 and np.allclose(values.sum(axis=1), 1, atol=0.01))
