"""The tables of a task, in whatever layout they come: texts and labels, checked row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tables.forms import Form, Numbers, check_texts
from kdcli.tables.read import read_table
from kdcli.tables.strings import strings
from kdcli.tasks.labels import Spelling, encode_labels, respell, spelling_of, without_hidden
from kdcli.tasks.recognition import Shape, recognise

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

SAMPLE = "kd:sample"
"""The data folder that comes with the package."""

_SPLITS: dict[Split, str] = {"train": "train", "dev": "dev|validation", "test": "test|diagnostic"}
_PARTS = ("", "_matched", "_mismatched")
"""MNLI has two tables for dev and for test: of the genres that it was trained on, and of others."""


def load_split(settings: TaskSettings, task: Task, split: Split, reporter: Reporter) -> pa.Table:
    """Read the train, dev or test rows of a task; MNLI's matched and mismatched ones together.

    Args:
        settings: Where the data lie, and how.
        task: The task.
        split: Which rows; those of train and dev must have labels.
        reporter: Told of the layout and of what is odd.

    Returns:
        The text columns ``index`` (as in the table, or counted from 0), ``task.columns`` and ``label`` (as the task
        writes it, null where there is none).

    Raises:
        DataError: The folder, the file or a column is missing, the file is empty, a row cannot be read, a label is
            outside the task's, or all training rows have the same.
    """
    return pa.concat_tables(load_tables(settings, task, split, reporter).values())


def load_tables(settings: TaskSettings, task: Task, split: Split, reporter: Reporter) -> dict[str, pa.Table]:
    """Read the tables of a split one by one, as ``load_split`` does: ``dev``, or both of MNLI's.

    Raises:
        DataError: As for ``load_split``.
    """
    files = needed_files(settings, split)
    tables = {}
    for path in files:
        table = _load(path, settings, task, reporter, labelled=split != "test")
        if split == "train":
            _check_classes(table["label"], task, path, reporter)
        tables[table_name(path, split)] = table
    unread = [path.name for path in _candidates(settings, split) if path not in files]
    if unread:
        reporter.info(f"{', '.join(path.name for path in files)} read, and not {', '.join(unread)}")
    return tables


def load_table(path: Path, settings: TaskSettings, task: Task, reporter: Reporter, *, labels: bool = True) -> pa.Table:
    """Read one table of a task, as ``load_split`` does; labels are not needed, and no row is dropped.

    Args:
        path: The table.
        settings: How it is to be read.
        task: The task.
        reporter: Told of the layout and of what is odd.
        labels: Read them where there are any; otherwise they are not looked at.

    Raises:
        DataError: As for ``load_split``.
    """
    return _load(path, settings, task, reporter, labelled=False, labels=labels)


def stream_table(path: Path, settings: TaskSettings, task: Task, reporter: Reporter) -> Iterator[pa.RecordBatch]:
    """Give the rows of one table in batches, as ``load_table`` reads them without labels, in bounded memory.

    Raises:
        DataError: As for ``load_split``.
    """
    shape = replace(recognise(path, settings, task), label=None)
    reporter.info(f"{path.name}: {shape}")
    rows = 0
    for batch in _Reading(path, settings, task, shape, reporter, False).batches():
        rows += batch.num_rows
        yield batch.select(["index", *task.columns])
    if not rows:
        raise DataError("the table has no rows", file=path)


def needed_files(settings: TaskSettings, split: Split) -> tuple[Path, ...]:
    """Return the files that ``load_split`` reads.

    Raises:
        DataError: There is no such split.
    """
    if files := split_files(settings, split):
        return files
    folder = _folder(settings)
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
    hint = f"it is {split}.tsv, .csv, .jsonl or .parquet, or one of these with .gz; the folder holds {there}"
    raise DataError(f"there is no {split} table", file=folder, hint=hint)


def split_files(settings: TaskSettings, split: Split) -> tuple[Path, ...]:
    """Return the files that ``load_split`` reads; none where there is no such split.

    A split is one table (``dev.tsv``; ``validation.parquet`` and ``validation-00000-of-00001.parquet`` as the Hub
    calls it), or a matched and a mismatched one. Of several files of one name the first form counts.
    """
    parts: dict[str, Path] = {}
    for path in _candidates(settings, split):
        parts.setdefault(table_name(path, split), path)
    return (parts[split],) if split in parts else tuple(parts.values())


def has_split(settings: TaskSettings, split: Split) -> bool:
    """Tell whether there is a table for a split."""
    return bool(split_files(settings, split))


def table_name(path: Path, split: Split) -> str:
    """Return what a file of a split is called in results: ``dev``, ``dev_matched`` or ``dev_mismatched``."""
    return next((split + part for part in reversed(_PARTS) if part in path.name), split)


def _folder(settings: TaskSettings) -> Path:
    if not settings.data_dir:
        raise DataError("no data folder is named", key="task.data_dir", hint="name it with --data-dir FOLDER")
    if settings.data_dir == SAMPLE:
        return Path(__file__).parent / "sample"
    folder = Path(settings.data_dir).expanduser()
    if not folder.is_dir():
        what = "this is a file, not a data folder" if folder.exists() else "there is no such data folder"
        raise DataError(what, file=folder, key="task.data_dir", hint="name another one with --data-dir FOLDER")
    return folder


def _candidates(settings: TaskSettings, split: Split) -> list[Path]:
    """Return the files that may be a table of the split, in the order of their parts, then of their forms."""
    forms = [f".{form}{zipped}" for form in get_args(Form) for zipped in ("", ".gz")]
    files = sorted(path for path in _folder(settings).iterdir() if path.is_file())
    stems = [re.compile(rf"({_SPLITS[split]}){part}(-00000-of-00001)?") for part in _PARTS]
    return [
        path
        for stem in stems
        for form in forms
        for path in files
        if path.name.endswith(form) and stem.fullmatch(path.name.removesuffix(form))
    ]


def _load(
    path: Path, settings: TaskSettings, task: Task, reporter: Reporter, *, labelled: bool, labels: bool = True
) -> pa.Table:
    shape = recognise(path, settings, task)
    shape = shape if labels else replace(shape, label=None)
    reporter.info(f"{path.name}: {shape}")
    if labelled and shape.label is None:
        what = f"there is no column {settings.label_column!r}" if settings.label_column else "there is no label column"
        hint = "name it with --label-col, or task.label_column"
        raise DataError(what, file=path, hint=hint, key=settings.label_column or None)
    reading = _Reading(path, settings, task, shape, reporter, labelled)
    table = pa.Table.from_batches(reading.batches(), reading.schema)
    if not len(table):
        raise DataError("the table has no rows", file=path)
    return table


class _Reading:
    """One pass over a table under the names that ``kd`` uses; what is odd is counted on the way and told at its end."""

    def __init__(
        self, path: Path, settings: TaskSettings, task: Task, shape: Shape, reporter: Reporter, labelled: bool
    ) -> None:
        self.path, self.settings, self.task, self.shape = path, settings, task, shape
        self.reporter, self.labelled = reporter, labelled
        self.schema = pa.schema([(name, pa.string()) for name in ("index", *task.columns, "label")])
        self.spelling: Spelling | None = None
        self.rows = self.dropped = self.empty = self.first_empty = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read all rows, each label checked."""
        shape, bad_rows = self.shape, self.settings.bad_rows
        reader = read_table(self.path, header=shape.header, columns=shape.columns, bad_rows=bad_rows, form=shape.form)
        for rows, batch in reader.numbered():
            yield self._batch(batch, rows)
        name = self.path.name
        if reader.skipped:
            self.reporter.warn(f"{name}: {reader.skipped} bad rows skipped, the first is {reader.first_skipped}")
        if self.dropped:
            marks = " or ".join(self.settings.drop_labels)
            self.reporter.info(f"{name}: {self.dropped:,} rows dropped whose label is {marks}")
        if self.empty:
            first = self.first_empty
            self.reporter.warn(f"{name}: {self.empty} rows with an empty text are kept, the first is row {first}")

    def _batch(self, batch: pa.RecordBatch, rows: Numbers) -> pa.RecordBatch:
        nothing = pa.nulls(len(rows), pa.string())
        index = nothing if self.shape.index is None else batch[self.shape.index].cast(pa.string())
        label = nothing if self.shape.label is None else batch[self.shape.label].cast(pa.string())
        dropped = pc.is_in(label, value_set=strings(self.settings.drop_labels))
        texts = [batch[name] for name in self.shape.texts]
        for name, column in zip(self.shape.texts, texts, strict=True):
            check_texts(column, name, self.path, rows)
        if self.labelled:
            kept = pc.invert(dropped)
            self.dropped += len(rows) - kept.true_count
            rows = rows[kept.to_numpy(zero_copy_only=False)]
            index, label, *texts = (column.filter(kept) for column in (index, label, *texts))
        elif self.shape.label is not None:
            label = pc.if_else(dropped, pa.scalar(None, pa.string()), label)
        if self.shape.index is None:
            index = strings([str(number) for number in range(self.rows, self.rows + len(rows))])
        self.rows += len(rows)
        empty = reduce(pc.or_, [pc.is_in(text, value_set=strings([""])) for text in texts])
        if empty.true_count:
            self.first_empty = self.first_empty or int(rows[pc.index(empty, True).as_py()])
            self.empty += empty.true_count
        return pa.RecordBatch.from_arrays([index, *texts, self._labels(label, rows)], schema=self.schema)

    def _labels(self, label: pa.Array, rows: Numbers) -> pa.Array:
        if self.shape.label is None:
            return label
        label = without_hidden(label, self.task, labelled=self.labelled)
        if self.spelling is None and label.null_count < len(label):
            self.spelling = spelling_of(label, self.task)
            if self.spelling != self.task.labels:
                pairs = ", ".join(map(" = ".join, zip(self.spelling, self.task.labels, strict=True)))
                self.reporter.info(f"{self.path.name}: its labels are read as {pairs}")
        label = respell(label, self.spelling or self.task.labels, self.task)
        there = np.ones(len(label), bool) if self.labelled else label.is_valid().to_numpy(zero_copy_only=False)
        encode_labels(label.filter(pa.array(there)), self.task, file=self.path, rows=rows[there])
        return label


def _check_classes(labels: pa.ChunkedArray, task: Task, path: Path, reporter: Reporter) -> None:
    """Refuse training labels that are all the same, and tell of classes that have no row."""
    found: set[Any] = set(pc.unique(labels).to_pylist())
    if len(found) < 2:
        what = f"every row has the {'score' if task.is_score else 'label'} {found.pop()!r}: there is nothing to learn"
        raise DataError(what, file=path, hint="two classes at least are needed" if not task.is_score else None)
    missing = [label for label in task.labels if label not in found]
    if missing:
        reporter.warn(f"{path.name}: no row has the label {' or '.join(missing)}")
