"""Read the tables of a task in whatever layout they come: texts and labels, checked row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tables.read import ROW_NUMBER, Form, check_texts, read_table
from kdcli.tasks.detect import TableLayout, detect
from kdcli.tasks.glue import PARTS
from kdcli.tasks.labels import (
    Spelling,
    class_names,
    encode_labels,
    label_texts,
    respell,
    spelling_of,
    without_hidden,
)

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

SAMPLE = "kd:sample"
"""The data folder that comes with the package."""

_STEMS: dict[Split, str] = {"train": "train", "dev": "dev|validation", "test": "test|diagnostic"}
_UUID = r"^(.{8})(.{4})(.{4})(.{4})(.{12})$"


def load_split(settings: TaskSettings, task: Task, split: Split, reporter: Reporter) -> pl.DataFrame:
    """Read the train, dev or test rows of a task; MNLI's matched and mismatched ones together.

    Args:
        settings: Where the data lie, and how to read them.
        task: The task.
        split: Which rows; those of train and dev must have labels.
        reporter: Gets the layout, and warnings.

    Returns:
        The text columns ``index`` (as in the table, or counted from 0), ``task.columns`` and ``label`` (as the task
        writes it, null where there is none).

    Raises:
        DataError: The folder, the file or a column is missing, the file is empty, a row cannot be read, a label is
            not one of the task's, or all training rows have the same.
    """
    return pl.concat(load_tables(settings, task, split, reporter).values())


def load_tables(settings: TaskSettings, task: Task, split: Split, reporter: Reporter) -> dict[str, pl.DataFrame]:
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


def load_table(
    path: Path, settings: TaskSettings, task: Task, reporter: Reporter, *, labels: bool = True
) -> pl.DataFrame:
    """Read one table of a task, as ``load_split`` does; labels are not needed, and no row is dropped.

    Args:
        path: The table.
        settings: How to read it.
        task: The task.
        reporter: Gets the layout, and warnings.
        labels: Whether to read labels where there are any.

    Raises:
        DataError: As for ``load_split``.
    """
    return _load(path, settings, task, reporter, labelled=False, labels=labels)


def stream_table(path: Path, settings: TaskSettings, task: Task, reporter: Reporter) -> Iterator[pl.DataFrame]:
    """Read the ``index`` and ``task.columns`` of one table batch by batch, as ``load_table`` does, in bounded memory.

    Raises:
        DataError: As for ``load_split``.
    """
    layout = replace(detect(path, settings, task), label=None)
    reporter.info(f"{path.name}: {layout}")
    rows = 0
    for batch in _Reading(path, settings, task, layout, reporter, labelled=False).batches():
        rows += len(batch)
        yield batch.drop("label")
    if not rows:
        raise DataError("the table has no rows", file=path)


def needed_files(settings: TaskSettings, split: Split) -> tuple[Path, ...]:
    """Return the files that ``load_split`` reads.

    Raises:
        DataError: There is no such split.
    """
    if files := split_files(settings, split):
        return files
    raise missing_split(settings, split)


def missing_split(settings: TaskSettings, split: Split) -> DataError:
    """Return the error of a split that is not there."""
    folder = _folder(settings)
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
    hint = f"it is {split}.tsv, .csv, .jsonl or .parquet, or one of these with .gz; the folder holds {there}"
    return DataError(f"there is no {split} table", file=folder, hint=hint)


def split_files(settings: TaskSettings, split: Split) -> tuple[Path, ...]:
    """Return the files that ``load_split`` reads; none where there is no such split.

    A split is one table (``dev.tsv``; on the Hub ``validation.parquet`` or ``validation-00000-of-00001.parquet``), or
    a matched and a mismatched one. Of several files of one name the first form counts.
    """
    tables: dict[str, Path] = {}
    for path in _candidates(settings, split):
        tables.setdefault(table_name(path, split), path)
    return (tables[split],) if split in tables else tuple(tables.values())


def has_split(settings: TaskSettings, split: Split) -> bool:
    """Return whether there is a table for a split."""
    return bool(split_files(settings, split))


def table_name(path: Path, split: Split) -> str:
    """Return the name of a split's file in results: ``dev``, ``dev_matched`` or ``dev_mismatched``."""
    return next((split + part for part in reversed(PARTS) if part in path.name), split)


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
    """Return the files that may be a table of the split, ordered by part, then by form."""
    forms = [f".{form}{zipped}" for form in get_args(Form) for zipped in ("", ".gz")]
    files = sorted(path for path in _folder(settings).iterdir() if path.is_file())
    stems = [re.compile(rf"({_STEMS[split]}){part}(-00000-of-00001)?") for part in PARTS]
    return [
        path
        for stem in stems
        for form in forms
        for path in files
        if path.name.endswith(form) and stem.fullmatch(path.name.removesuffix(form))
    ]


def _load(
    path: Path, settings: TaskSettings, task: Task, reporter: Reporter, *, labelled: bool, labels: bool = True
) -> pl.DataFrame:
    layout = detect(path, settings, task)
    layout = layout if labels else replace(layout, label=None)
    reporter.info(f"{path.name}: {layout}")
    if labelled and layout.label is None:
        raise missing_label_column(path, settings)
    batches = list(_Reading(path, settings, task, layout, reporter, labelled=labelled).batches())
    if not any(map(len, batches)):
        raise DataError("the table has no rows", file=path)
    return pl.concat(batches)


def missing_label_column(path: Path, settings: TaskSettings) -> DataError:
    """Return the error of a table that needs labels and has none."""
    column = settings.label_column
    what = f"there is no column {column!r}" if column else "there is no label column"
    return DataError(what, file=path, hint="name it with --label-col, or task.label_column", key=column or None)


class _Reading:
    """One pass over a table, which counts what is odd and reports it at the end."""

    def __init__(
        self, path: Path, settings: TaskSettings, task: Task, layout: TableLayout, reporter: Reporter, *, labelled: bool
    ) -> None:
        self.path, self.settings, self.task, self.layout = path, settings, task, layout
        self.reporter, self.labelled = reporter, labelled
        self.spelling: Spelling | None = None
        self.names: tuple[str, ...] = ()
        self.rows = self.dropped = self.empty = self.first_empty = 0

    def batches(self) -> Iterator[pl.DataFrame]:
        """Read all rows under kd's column names, and check each label."""
        layout, bad_rows, name = self.layout, self.settings.bad_rows, self.path.name
        reader = read_table(
            self.path, header=layout.header, columns=layout.columns, bad_rows=bad_rows, form=layout.form
        )
        if layout.form == "parquet" and layout.label is not None and reader.schema[layout.label].is_integer():
            self.names = class_names(self.path, layout.label)
        for batch in reader.batches():
            yield self._batch(batch)
        if reader.skipped:
            self.reporter.warn(f"{name}: {reader.skipped} bad rows skipped, the first is {reader.first_skipped}")
        if self.dropped:
            labels = " or ".join(self.settings.drop_labels)
            self.reporter.info(f"{name}: {self.dropped:,} rows dropped whose label is {labels}")
        if self.empty:
            first = self.first_empty
            self.reporter.warn(f"{name}: {self.empty} rows with an empty text are kept, the first is row {first}")

    def _batch(self, batch: pl.DataFrame) -> pl.DataFrame:
        layout = self.layout
        check_texts(batch, layout.texts, self.path)
        label = pl.Series("label", [None], pl.String).new_from_index(0, len(batch))
        if layout.label is not None:
            label = label_texts(batch[layout.label], self.path).alias("label")
            dropped = label.is_in(self.settings.drop_labels).fill_null(False)
            if self.labelled:
                self.dropped += int(dropped.sum())
                batch, label = batch.filter(~dropped), label.filter(~dropped)
            else:
                label = label.set(dropped, None)
        columns = [batch[text].alias(name) for text, name in zip(layout.texts, self.task.columns, strict=True)]
        empty = pl.DataFrame(columns).select(pl.any_horizontal(pl.all().eq("")).alias("empty"))["empty"]
        if empty.any():
            self.first_empty = self.first_empty or int(batch[ROW_NUMBER].filter(empty)[0])
            self.empty += int(empty.sum())
        frame = pl.DataFrame([self._index(batch), *columns, self._labels(label, batch[ROW_NUMBER])])
        self.rows += len(batch)
        return frame

    def _index(self, batch: pl.DataFrame) -> pl.Series:
        """Return the index column as text, or the number of each row; training needs no index, whatever its type."""
        index = None if self.layout.index is None else _as_text(batch[self.layout.index])
        if index is not None:
            return index.alias("index")
        if self.layout.index is not None and not self.labelled:
            what = f"the column holds {batch[self.layout.index].dtype}, not an index"
            hint = "remove or rename the column; predictions then number the rows from 0"
            raise DataError(what, file=self.path, key=self.layout.index, hint=hint)
        return pl.int_range(self.rows, self.rows + len(batch), eager=True).cast(pl.String).alias("index")

    def _labels(self, label: pl.Series, rows: pl.Series) -> pl.Series:
        if self.layout.label is None:
            return label
        if set(self.names) in (set(self.task.labels), set(self.task.names)) and self.names:
            label = label.replace({str(number): name for number, name in enumerate(self.names)})
        label = without_hidden(label, self.task, labelled=self.labelled)
        if self.spelling is None and label.null_count() < len(label):
            self.spelling = spelling_of(label, self.task)
            self._report_spelling(self.spelling)
        label = respell(label, self.spelling or {}, self.task)
        there = label.is_not_null() | self.labelled
        encode_labels(label.filter(there), self.task, file=self.path, rows=rows.filter(there))
        return label

    def _report_spelling(self, spelling: Spelling) -> None:
        if self.names and set(spelling) == set(self.names):
            pairs = [f"{number} = {spelling[name]}" for number, name in enumerate(self.names)]
        elif tuple(spelling) != self.task.labels:
            pairs = [f"{written} = {label}" for written, label in spelling.items()]
        else:
            return
        self.reporter.info(f"{self.path.name}: its labels are read as {', '.join(pairs)}")


def _as_text(values: pl.Series) -> pl.Series | None:
    """Return an index as text, a UUID as its usual spelling; None for a type that has no text."""
    if values.dtype == pl.Binary and (values.bin.size() == 16).all():
        return values.bin.encode("hex").str.replace(_UUID, "${1}-${2}-${3}-${4}-${5}")
    if values.dtype == pl.Binary or values.dtype.is_nested() or values.dtype == pl.Object:
        return None
    return label_texts(values, "") if values.dtype.is_float() else values.cast(pl.String)


def _check_classes(labels: pl.Series, task: Task, path: Path, reporter: Reporter) -> None:
    """Refuse training labels that are all the same, and warn of classes without rows."""
    found: set[Any] = set(labels.unique())
    if len(found) < 2:
        what = f"every row has the {'score' if task.is_score else 'label'} {found.pop()!r}: there is nothing to learn"
        raise DataError(what, file=path, hint="two classes at least are needed" if not task.is_score else None)
    missing = [label for label in task.labels if label not in found]
    if missing:
        reporter.warn(f"{path.name}: no row has the label {' or '.join(missing)}")
