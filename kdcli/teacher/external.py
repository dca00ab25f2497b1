"""Logits or probabilities that another tool has made: NumPy, PyTorch and table files."""

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError, first_line
from kdcli.tables.parquet import ROWS
from kdcli.tables.read import ROW_NUMBER, as_texts, read_table
from kdcli.tables.text_hash import text_hash
from kdcli.tasks.text_set import open_texts, text_columns
from kdcli.teacher.logits import Logits, label_positions

LEAST_PROBABILITY = 1e-7
"""The value that a probability of 0 counts as: about the smallest step of a float32 near 1."""

_PREFIXES = ("logits_", "logit_", "probabilities_", "probability_", "probs_", "prob_")
_NOT_LOGITS = {"source", "label", "gold_label", "is_duplicate", "index"}


Values = Literal["auto", "logits", "probabilities", "percentages"]


def read_external(path: Path, *, transfer: Path, task: Task, reporter: Reporter, values: Values = "auto") -> Logits:
    """Read logits made elsewhere: ``.npy``, ``.pt``, or a table with the columns ``logits_0..`` or the labels' names.

    A table with the task's text columns is matched by text, any other file by position. Probabilities and percentages
    become the logarithms of probabilities, and of a multi-label task their log-odds. ``values`` says what the file
    holds: ``auto`` takes rows that sum to 1 for probabilities, or of a multi-label task those from 0 to 1.
    """
    if not path.is_file():
        raise DataError("there is no such file", file=path)
    hashes = None
    if path.suffix in (".npy", ".pt", ".pth"):
        logits = _checked(_arrays(path), task, path)
    else:
        logits, hashes = _table(path, task, reporter)
    if hashes is None:
        needed = int(open_texts(transfer, task, QuietReporter()).select(pl.len()).collect().item())
        if len(logits) != needed:
            what = f"this file has {len(logits):,} rows of logits, and the transfer set has {needed:,}"
            hint = "rows are matched by position here: make the logits for this very transfer set, in its order"
            raise DataError(what, file=path, hint=hint)
        order = "" if task.is_score else f", its columns for {', '.join(task.labels)}"
        reporter.warn(
            f"{path.name} is matched by position: each of its {len(logits):,} rows is for the same row of "
            f"{transfer.name}{order}; a table with the column {' and '.join(task.columns)} would be matched by text"
        )
    if values == "auto":
        values = _kind_of(logits, path, task, reporter)
    if values != "logits":
        logits = _logarithms(logits / np.float32(100) if values == "percentages" else logits, task, path)
    return Logits(logits, hashes, {})


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


def _arrays(path: Path) -> NDArray[Any]:
    """Read an array, a tensor or a list of both: the batches, one after the other."""
    try:
        if path.suffix == ".npy":
            return np.lib.format.open_memmap(path, mode="r")
        with torch.serialization.safe_globals(_NUMPY):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        pieces = [_array(piece) for piece in (loaded if isinstance(loaded, list) else [loaded])]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.atleast_2d(piece) for piece in pieces])
    except Exception as error:  # a broken or hostile file makes the allow-list raise anything
        what = f"this file is damaged, or holds more than numbers and is refused: {first_line(error)}"
        hint = "kd runs no pickled code: save one dense float tensor [rows, labels] with torch.save, or as .npy"
        raise DataError(what, file=path, hint=hint) from error


def _array(piece: Any) -> NDArray[Any]:
    """Return an array, or a dense tensor of numbers as one; anything else raises."""
    if isinstance(piece, np.ndarray):
        return piece
    if not isinstance(piece, torch.Tensor) or piece.is_quantized:
        raise TypeError(f"it holds a {type(piece).__name__}, not a tensor of numbers")
    tensor = piece.detach().resolve_conj().resolve_neg()
    array: NDArray[Any] = (tensor.float() if tensor.dtype.is_floating_point else tensor).numpy()
    return array


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
    texts = text_columns(reader.columns, task) or ()
    names = _logit_columns(reader.columns, texts, task, path, reporter)
    values, hashes = [np.zeros((0, len(names)), np.float32)], [np.zeros(0, np.uint64)]
    for batch in read_table(path, columns=[*texts, *names]).batches():
        columns = [_numbers(batch[name], batch[ROW_NUMBER], path) for name in names]
        values.append(_finite(np.stack(columns, axis=1), batch[ROW_NUMBER], path))
        if texts:
            hashes.append(text_hash(as_texts(batch, texts, path).select(texts).get_columns()))
    return np.concatenate(values), np.concatenate(hashes) if texts else None


def _logit_columns(
    columns: Sequence[str], texts: Sequence[str], task: Task, path: Path, reporter: Reporter
) -> list[str]:
    """Return the columns that hold the logits, in the order of the task's labels."""
    others = [name for name in columns if name not in texts and name not in _NOT_LOGITS]
    for prefix in _PREFIXES:
        found = [name for name in columns if name.startswith(prefix)]
        if found and (chosen := _in_order(found, prefix, task, path, reporter)):
            return chosen
    if others and (chosen := _in_order(others, others[0].rstrip("0123456789"), task, path, reporter)):
        return chosen
    if len(others) != task.outputs:
        needed = "logits_0" if task.is_score else f"logits_0 to logits_{task.outputs - 1}, or {', '.join(task.labels)}"
        hint = f"the columns are {', '.join(columns)}"
        raise DataError(f"no columns with the logits: {needed} are needed", file=path, hint=hint)
    if not task.is_score:
        pairs = ", ".join(f"{name} as {label}" for name, label in zip(others, task.labels, strict=True))
        reporter.warn(f"{path.name} does not name the labels, so its columns are read in their order: {pairs}")
    return others


def _in_order(names: Sequence[str], prefix: str, task: Task, path: Path, reporter: Reporter) -> list[str] | None:
    """Return columns in the order of the labels: by the labels, or by numbers from 0 on, behind a prefix or alone.

    Where the two differ, kd's own ``logits_NUMBER`` and ``probability_LABEL`` decide; others are a ``DataError``.
    """
    ends = [name.removeprefix(prefix) for name in names]
    numbered = [f"{prefix}{number}" for number in range(task.outputs)]
    by_number = numbered if set(numbered) <= set(names) else None
    if by_number and f"{prefix}{task.outputs}" in names:
        raise DataError(f"there are more {prefix}... columns than the task's {task.outputs}", file=path)
    positions = label_positions(names, task) or label_positions(ends, task)
    by_label = [names[position] for position in positions] if positions else None
    chosen = by_label or by_number
    if by_number and by_label and by_number != by_label:
        if prefix not in ("logits_", "probability_", ""):
            what = f"the columns {', '.join(names)} may be in the order of their numbers, or named by the labels"
            raise DataError(what, file=path, hint="name them logits_0, logits_1, ... or probability_LABEL")
        chosen = by_number if prefix == "logits_" else by_label
    if chosen and not task.is_score:
        pairs = ", ".join(f"{name} is {label}" for name, label in zip(chosen, task.labels, strict=True))
        reporter.info(f"{path.name}: {pairs}")
    return chosen


def _numbers(column: pl.Series, numbers: pl.Series, path: Path) -> NDArray[np.float32]:
    """Return a column as ``float32 [rows]``, NaN where it has no value."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
        column = column.set(column == "", None)
    if column.dtype == pl.Boolean:
        raise DataError("this column holds true and false, not numbers", file=path, key=column.name)
    try:
        values = column.cast(pl.Float32, strict=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"this column holds {column.dtype}, not numbers", file=path, key=column.name) from error
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


def _kind_of(values: NDArray[np.float32], path: Path, task: Task, reporter: Reporter) -> Values:
    """Tell what a file holds: probabilities sum to 1, as far as they are rounded; what is only alike is an error."""
    if values.shape[1] < 2 or not len(values) or values.min() < 0 or values.max() > 100:
        return "logits"
    unit = values.max() <= 1
    if task.multi_label and unit:
        reporter.warn(f"{path.name} holds probabilities: their log-odds become the logits")
        return "probabilities"
    sums = values.sum(axis=1, dtype=np.float64) / (1 if unit else 100)
    step = _last_decimal(values) / (1 if unit else 100)
    off = np.abs(sums - 1) > values.shape[1] * step / 2 + 1e-4
    if unit and not off.any():
        reporter.warn(f"{path.name} holds probabilities: their logarithms become the logits")
        return "probabilities"
    if not unit and np.mean(off) > 0.5:
        return "logits"
    if unit:
        what = f"the values lie between 0 and 1, but row {int(off.argmax()) + 1} sums to {sums[off.argmax()]:.3f}"
    else:
        what = "the values are like percentages"
    hint = "say what they are: --values logits, probabilities or percentages; a sigmoid's scores are none of them"
    raise DataError(what, file=path, key="join.values", hint=hint)


def _logarithms(values: NDArray[np.float32], task: Task, path: Path) -> NDArray[np.float32]:
    """Return the logarithms of probabilities, or log-odds; one that was rounded to 0 is half of the last decimal."""
    wrong = (values < 0).any(axis=1) | (values > 1 + 1e-6).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        what = f"these are no probabilities: {values[row].tolist()}"
        raise DataError(what, file=path, row=row + 1, key="join.values", hint="--values says what the file holds")
    step = _last_decimal(values)
    floor = step / 2 if step > 1e-6 else LEAST_PROBABILITY
    if task.multi_label:
        shares = values.astype(np.float64).clip(floor, 1 - floor)
        return np.asarray(np.log(shares / (1 - shares)), np.float32)
    return np.log(np.maximum(values, np.float32(floor)))


def _last_decimal(values: NDArray[np.float32]) -> float:
    """Return the step to which values are rounded: 0.01 for two decimals; 1e-7 for one-hot rows, or without a step."""
    for decimals in range(7):
        step = 10.0**-decimals
        parts = (values[start : start + ROWS].astype(np.float64) / step for start in range(0, len(values), ROWS))
        if all(np.abs(part - part.round()).max() < 1e-6 * max(1, np.abs(part).max()) for part in parts):
            hard = bool(np.isin(values, (0, values.max(initial=0))).all())
            return 1e-7 if hard else step
    return 1e-7
