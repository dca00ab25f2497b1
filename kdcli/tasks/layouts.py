"""The tables of a task, in whatever layout they come: texts and labels, checked row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.data.forms import Form, Numbers
from kdcli.data.tables import TableReader, read_table
from kdcli.errors import DataError
from kdcli.profile.schema import TaskSettings
from kdcli.tasks.recognition import Shape, recognise

Split = Literal["train", "dev", "test"]

SAMPLE = "kd:sample"
"""The data folder that comes with the package."""

_STEMS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("dev", "dev_matched", "dev_mismatched"),
    "test": ("test", "test_matched", "test_mismatched"),
}


def load_split(settings: TaskSettings, task: Task, split: Split, reporter: Reporter) -> pa.Table:
    """Read the train, dev or test table of a task.

    Args:
        settings: Where the data lie, and how.
        task: The task.
        split: Which table; train and dev must have a label in every row.
        reporter: Told of the layout and of what is odd.

    Returns:
        The text columns ``index`` (as in the table, or counted from 0), ``task.columns`` and ``label`` (null where
        there is none).

    Raises:
        DataError: The folder, the file or a column is missing, the file is empty, a row cannot be read, a label is
            outside the task's, or all training rows have the same.
    """
    folder = _folder(settings)
    found = _find(folder, split)
    if not found:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
        hint = f"it is {split}.tsv, .csv, .jsonl or .parquet, or one of these with .gz; the folder holds {there}"
        raise DataError(f"there is no {split} table", file=folder, hint=hint)
    if len(found) > 1:
        reporter.info(f"{found[0].name} is read, and not {', '.join(path.name for path in found[1:])}")
    table = _load(found[0], settings, task, reporter, labelled=split != "test")
    if split == "train":
        _check_classes(table["label"], task, found[0], reporter)
    return table


def load_table(path: Path, settings: TaskSettings, task: Task, reporter: Reporter) -> pa.Table:
    """Read one table of a task, as ``load_split`` does; labels are not needed.

    Raises:
        DataError: As for ``load_split``.
    """
    return _load(path, settings, task, reporter, labelled=False)


def split_files(settings: TaskSettings, split: Split) -> tuple[Path, ...]:
    """Return the file that ``load_split`` reads; none where there is no such split."""
    return tuple(_find(_folder(settings), split)[:1])


def has_split(settings: TaskSettings, split: Split) -> bool:
    """Tell whether there is a table for a split."""
    return bool(split_files(settings, split))


def encode_labels(
    labels: pa.Array | pa.ChunkedArray, task: Task, *, file: str | Path, rows: Numbers | None = None
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Turn labels into class ids (in the order of ``task.labels``), or into scores.

    Args:
        labels: The labels as the table has them.
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


def _folder(settings: TaskSettings) -> Path:
    if not settings.data_dir:
        raise DataError("no data folder is named", key="task.data_dir", hint="name it with --data-dir FOLDER")
    if settings.data_dir == SAMPLE:
        return Path(__file__).parents[1] / "data" / "sample"
    folder = Path(settings.data_dir).expanduser()
    if not folder.is_dir():
        what = "this is a file, not a data folder" if folder.exists() else "there is no such data folder"
        raise DataError(what, file=folder, key="task.data_dir", hint="name another one with --data-dir FOLDER")
    return folder


def _find(folder: Path, split: Split) -> list[Path]:
    names = [f"{stem}.{form}{zipped}" for stem in _STEMS[split] for form in get_args(Form) for zipped in ("", ".gz")]
    return [folder / name for name in names if (folder / name).is_file()]


def _load(path: Path, settings: TaskSettings, task: Task, reporter: Reporter, *, labelled: bool) -> pa.Table:
    shape = recognise(path, settings, task)
    reporter.info(f"{path.name}: {shape}")
    if labelled and shape.label is None:
        what = f"there is no column {settings.label_column!r}" if settings.label_column else "there is no label column"
        raise DataError(what, file=path, hint="name it with task.label_column", key=settings.label_column or None)
    reader = read_table(path, header=shape.header, columns=shape.columns, bad_rows=settings.bad_rows, form=shape.form)
    table = _read(reader, shape, task, reporter, labelled=labelled)
    if reader.skipped:
        reporter.warn(f"{path.name}: {reader.skipped} bad rows skipped, the first is {reader.first_skipped}")
    if not len(table):
        raise DataError("the table has no rows", file=path)
    if shape.index is None:
        numbers = pa.array(np.arange(len(table))).cast(pa.string())
        table = table.set_column(0, "index", pa.chunked_array([numbers]))
    return table


def _read(reader: TableReader, shape: Shape, task: Task, reporter: Reporter, *, labelled: bool) -> pa.Table:
    """Read all rows under the names that ``kd`` uses, each label checked."""
    schema = pa.schema([(name, pa.string()) for name in ("index", *task.columns, "label")])
    parts, empty = [], []
    for rows, batch in reader.numbered():
        nothing = pa.nulls(len(rows), pa.string())
        index = nothing if shape.index is None else batch[shape.index].cast(pa.string())
        texts = [_texts(batch[name], name, rows, reader.path) for name in shape.texts]
        label = nothing if shape.label is None else _labels(batch[shape.label], rows, task, reader.path, labelled)
        parts.append(pa.RecordBatch.from_arrays([index, *texts, label], schema=schema))
        lengths = np.minimum.reduce([pc.binary_length(text).to_numpy() for text in texts])
        empty += rows[lengths == 0].tolist()
    if empty:
        reporter.warn(f"{reader.path.name}: {len(empty)} rows with an empty text are kept, the first is row {empty[0]}")
    return pa.Table.from_batches(parts, schema)


def _texts(texts: pa.Array, column: str, rows: Numbers, path: Path) -> pa.StringArray:
    if not pa.types.is_string(texts.type):
        raise DataError(f"the column holds {texts.type}, not text", file=path, key=column)
    if texts.null_count:
        row = int(rows[texts.is_null().to_numpy(zero_copy_only=False).argmax()])
        raise DataError("a row has no text (an empty one is a text)", file=path, row=row, key=column)
    return texts


def _labels(labels: pa.Array, rows: Numbers, task: Task, path: Path, labelled: bool) -> pa.StringArray:
    """Return checked labels; an empty one, and where labels are not needed also GLUE's hidden -1, is none."""
    text = labels.cast(pa.string())
    none = pc.fill_null(pc.equal(text, ""), True)
    hidden = "-1" not in task.labels and not (task.is_score and (task.score_range is None or task.score_range[0] <= -1))
    if hidden and not labelled:
        none = pc.or_(none, pc.fill_null(pc.equal(text, "-1"), False))
    text = pc.if_else(none, pa.scalar(None, pa.string()), text)
    there = np.ones(len(text), bool) if labelled else ~none.to_numpy(zero_copy_only=False)
    encode_labels(text.filter(pa.array(there)), task, file=path, rows=rows[there])
    return text


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
    return DataError(what, file=file, row=row, hint="mend the row, or set task.labels (and task.label_column)")


def _check_classes(labels: pa.ChunkedArray, task: Task, path: Path, reporter: Reporter) -> None:
    """Refuse training labels that are all the same, and tell of classes that have no row."""
    found: set[Any] = set(pc.unique(labels).to_pylist())
    if len(found) < 2:
        what = f"every row has the {'score' if task.is_score else 'label'} {found.pop()!r}: there is nothing to learn"
        raise DataError(what, file=path, hint="two classes at least are needed" if not task.is_score else None)
    missing = [label for label in task.labels if label not in found]
    if missing:
        reporter.warn(f"{path.name}: no row has the label {' or '.join(missing)}")
