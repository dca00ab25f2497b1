"""Logits or probabilities that another tool has made: NumPy, PyTorch and table files."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError
from kdcli.tables.forms import Numbers
from kdcli.tables.read import TableReader, read_table
from kdcli.tasks.text_set import TextSet, open_texts, text_columns
from kdcli.teacher.labels import positions
from kdcli.teacher.logits import Logits
from kdcli.teacher.texts import read_texts

LEAST_PROBABILITY = 1e-7
"""What a probability of 0 is taken as: about the smallest step of a float32 near 1."""

_PREFIXES = ("logits_", "logit_", "probabilities_", "probability_", "probs_", "prob_")
_NOT_NUMBERS = {"source", "label", "gold_label", "is_duplicate", "index"}


def read_foreign(path: Path, *, transfer: Path, task: Task, reporter: Reporter) -> Logits:
    """Read logits made elsewhere.

    A table with the task's text columns is matched by text. Any other file is matched by position: its row *i* is
    taken for row *i* of the transfer set, which is said aloud. So is it where the values are probabilities, whose
    logarithms become the logits.

    Args:
        path: ``.npy``, ``.pt`` (a tensor saved by ``torch.save``), or a table (``.csv``, ``.tsv``, ``.jsonl``,
            ``.parquet``) whose columns are ``logits_0..`` or bear the names of the labels.
        transfer: The transfer set.
        task: The task.
        reporter: Told how the file is taken.

    Raises:
        DataError: The file cannot be read or is refused, or its rows, columns or values do not fit.
    """
    if not path.is_file():
        raise DataError("there is no such file", file=path)
    hashes = None
    if path.suffix == ".npy":
        values = _shaped(_numpy(path), task, path)
    elif path.suffix in (".pt", ".pth"):
        values = _shaped(_tensor(path), task, path)
    else:
        values, hashes = _table(path, task, reporter)
    if hashes is None:
        _check_count(len(values), path, transfer, task)
        order = "" if task.is_score else f", its columns for {', '.join(task.labels)}"
        texts = " and ".join(task.columns)
        reporter.warn(
            f"{path.name} is matched by position: each of its {len(values):,} rows is taken for the same row of "
            f"{transfer.name}{order}; a table with the column {texts} would be matched by text"
        )
    if _are_probabilities(values):
        reporter.warn(f"{path.name} holds probabilities: their logarithms are taken as logits")
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
"""What a pickled array of numbers is made of: d-bert's ``logits.pt`` is a list of such arrays, one a batch."""


def _tensor(path: Path) -> NDArray[Any]:
    try:
        with torch.serialization.safe_globals(_NUMPY):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or hostile file makes the allow-list raise
        hint = "kd loads tensors only and runs no pickled code; save the logits with torch.save(tensor) or as .npy"
        raise DataError(
            "this file is damaged, or holds more than a tensor and is refused", file=path, hint=hint
        ) from error
    pieces = loaded if isinstance(loaded, list) and loaded else [loaded]
    if not all(isinstance(piece, torch.Tensor | np.ndarray) for piece in pieces):
        what = f"this file holds a {type(pieces[0]).__name__}, and tensors or arrays [rows, labels] are needed"
        raise DataError(what, file=path)
    arrays = [piece.detach().float().numpy() if isinstance(piece, torch.Tensor) else piece for piece in pieces]
    return np.concatenate([np.atleast_2d(array) for array in arrays]) if len(arrays) > 1 else arrays[0]


def _shaped(values: NDArray[Any], task: Task, path: Path) -> NDArray[np.float32]:
    if values.ndim == 1 and task.is_score:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] != task.outputs or values.dtype.kind not in "fiu":
        what = f"this array is {values.dtype} {list(values.shape)}, and the task needs float [rows, {task.outputs}]"
        raise DataError(what, file=path)
    made = np.array(values, np.float32)
    _check_finite(made, np.arange(1, len(made) + 1), path)
    return made


def _table(path: Path, task: Task, reporter: Reporter) -> tuple[NDArray[np.float32], NDArray[np.uint64] | None]:
    reader = read_table(path)
    texts = text_columns(reader.columns, task)
    names = _number_columns(reader.columns, texts or (), task, path, reporter)
    values = [np.zeros((0, len(names)), np.float32)]
    if texts is None:
        for numbers, batch in reader.numbered():
            values.append(_numbers(batch, names, numbers, reader))
        return np.concatenate(values), None
    hashes = [np.zeros(0, np.uint64)]
    for rows in read_texts(TextSet(reader, task, texts)):
        values.append(_numbers(rows.batch, names, rows.numbers, reader))
        hashes.append(rows.hashes)
    return np.concatenate(values), np.concatenate(hashes)


def _number_columns(
    columns: Sequence[str], texts: Sequence[str], task: Task, path: Path, reporter: Reporter
) -> list[str]:
    """Return the columns that hold the logits, in the order of the task's labels."""
    for prefix in _PREFIXES:
        numbered = [f"{prefix}{number}" for number in range(task.outputs)]
        if set(numbered) <= set(columns):
            if f"{prefix}{task.outputs}" in columns:
                raise DataError(f"there are more {prefix}... columns than the task's {task.outputs}", file=path)
            return numbered
    others = [name for name in columns if name not in texts and name not in _NOT_NUMBERS]
    order = positions(others, task)
    if order is not None:
        return [others[position] for position in order]
    if len(others) != task.outputs:
        needed = "logits_0" if task.is_score else f"logits_0 to logits_{task.outputs - 1}, or {', '.join(task.labels)}"
        hint = f"the columns are {', '.join(columns)}"
        raise DataError(f"no columns with the logits: {needed} are needed", file=path, hint=hint)
    if not task.is_score:
        pairs = ", ".join(f"{name} as {label}" for name, label in zip(others, task.labels, strict=True))
        reporter.warn(f"{path.name} does not name the labels, so its columns are taken in their order: {pairs}")
    return others


def _numbers(batch: pa.RecordBatch, names: Sequence[str], numbers: Numbers, reader: TableReader) -> NDArray[np.float32]:
    columns = []
    for name in names:
        column = batch[name]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(column, ""), None, column)
        try:
            columns.append(pc.fill_null(column.cast(pa.float32(), safe=False), np.nan).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid as error:
            row = next((row for row, value in zip(numbers, column, strict=True) if not _is_number(value)), None)
            raise DataError(f"this is no number: {error}", file=reader.path, row=row, key=name) from error
    values = np.stack(columns, axis=1)
    _check_finite(values, numbers, reader.path)
    return values


def _is_number(value: pa.Scalar) -> bool:
    try:
        value.cast(pa.float32(), safe=False)
    except pa.ArrowInvalid:
        return False
    return True


def _check_finite(values: NDArray[np.float32], numbers: Numbers, path: Path) -> None:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(
            f"a logit is missing or is not finite: {values[row].tolist()}", file=path, row=int(numbers[row])
        )


def _check_count(rows: int, path: Path, transfer: Path, task: Task) -> None:
    needed = sum(len(numbers) for numbers, _, _ in open_texts(transfer, task, QuietReporter(), texts_alone=True).rows())
    if rows != needed:
        what = f"this file has {rows:,} rows of logits, and the transfer set has {needed:,}"
        hint = "rows are matched by position here: make the logits for this very transfer set, in its order"
        raise DataError(what, file=path, hint=hint)


def _are_probabilities(values: NDArray[np.float32]) -> bool:
    if values.shape[1] < 2 or not len(values):
        return False
    return bool(values.min() >= 0 and values.max() <= 1 and np.allclose(values.sum(axis=1), 1, atol=0.01))
