"""Labels and scores as tables write them, checked row by row."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.errors import DataError
from kdcli.tables import SEPARATOR
from kdcli.tables.parquet import stored_class_names
from kdcli.tables.read import ROW_NUMBER, files_of, form_of
from kdcli.tasks.glue import HIDDEN_NUMBER

Spelling = Mapping[str, str]  # how a table writes the labels of a task: the task's label for each of the table's


def spellings(task: Task) -> list[Spelling]:
    """Return how a table may write the labels of a task: as they are, by readable name, by number, or as booleans.

    The Hugging Face Hub numbers the classes that GLUE's own tables name. Numbers do not stand for labels that are
    themselves numbers: 1 and 2 must not become 0 and 1. Any number may be written as a float (``1.0``).
    """
    numbers = [str(number) for number in range(len(task.labels))]
    known: list[Sequence[str]] = [task.labels, task.names]
    if not any(label.isdigit() for label in task.labels):
        known.append(numbers)
    known += [[f"{name}.0" for name in names] for names in known if names and all(name.isdigit() for name in names)]
    spelled: list[Spelling] = [dict(zip(names, task.labels, strict=True)) for names in known if names]
    pair = sorted(task.labels, key=str.lower)
    if [label.lower() for label in pair] in (["0", "1"], ["false", "true"]):
        for case in (str.lower, str.title, str.upper):
            spelled.append({case("false"): pair[0], case("true"): pair[1]})
    return spelled


def spelling_of(labels: pl.Series, task: Task) -> Spelling:
    """Return the first spelling that has all the labels; the task's own where none has."""
    found = set((split_sets(labels).explode() if task.multi_label else labels).drop_nulls().unique())
    own = dict(zip(task.labels, task.labels, strict=True))
    return next((spelling for spelling in spellings(task) if found <= spelling.keys()), own)


def respell(labels: pl.Series, spelling: Spelling, task: Task) -> pl.Series:
    """Write labels as the task does; a label outside the spelling stays as it is."""
    if task.multi_label:
        return split_sets(labels).list.eval(pl.element().replace(dict(spelling))).list.join(SEPARATOR)
    return labels if tuple(spelling) == task.labels else labels.replace(dict(spelling))


def split_sets(labels: pl.Series) -> pl.Series:
    """Return the labels of each row as a list; that of an empty text is empty, and spaces around a label do not count.

    A missing text stays missing.
    """
    label = pl.element().str.strip_chars(" ")
    return labels.str.split(SEPARATOR).list.eval(label.filter(label != ""))


def in_order(labels: pl.Series) -> pl.Series:
    """Return sets of labels as texts that are equal where the sets are, in whatever order they are written."""
    return split_sets(labels).list.unique().list.sort().list.join(SEPARATOR)


def label_texts(
    labels: pl.Series, file: str | Path, names: Mapping[str, str] | None = None, row: int | None = None
) -> pl.Series:
    """Return a label column of any type as text: integers, whole floats as integers, booleans as false and true.

    Spaces around a label do not count. ``names`` are the classes by number, from ``class_names``. A column of lists,
    times or another type that is no label is a ``DataError``; ``row`` is the number of its first row.
    """
    kind = labels.dtype
    if kind == pl.String:
        return labels.str.strip_chars(" ")
    if kind.is_float() or kind.is_decimal():
        labels = labels.cast(pl.Float32 if kind == pl.Float32 else pl.Float64).fill_nan(None)
        return labels.cast(pl.String).str.strip_suffix(".0")
    if kind == pl.Null or kind.is_integer() or kind in (pl.Boolean, pl.Categorical, pl.Enum):
        return labels.cast(pl.String).replace(names or {})
    hint = "name a column of one label a row with --label-col (task.label_column)"
    raise DataError(f"the label column holds {kind}, not a label", file=file, row=row, key=labels.name, hint=hint)


def class_names(path: Path, column: str | None, task: Task, reporter: Reporter) -> dict[str, str]:
    """Return the names of the classes by number that the `datasets` library keeps in a Parquet file.

    They count where the task knows one of them, in whatever case; otherwise the numbers are the labels.
    """
    stored = stored_class_names(files_of(path)[0], column) if column and form_of(path) == "parquet" else ()
    spelled = [{_folded(name): name for name in names} for names in (task.labels, task.names)]
    known = max(spelled, key=lambda names: sum(_folded(name) in names for name in stored))
    if not any(_folded(name) in known for name in stored):
        if stored and not task.is_score:
            pairs = _pairs({str(number): name for number, name in enumerate(stored)})
            reporter.info(f"{path.name}: its class names ({pairs}) are none of the task's: the numbers are the labels")
        return {}
    names = {str(number): known.get(_folded(name), name) for number, name in enumerate(stored)}
    reporter.info(f"{path.name}: its labels are read as {_pairs(names)}")
    return names


def _pairs(names: Mapping[str, str]) -> str:
    return ", ".join(f"{one} = {name}" for one, name in names.items())


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold() or name


def encode_labels(
    labels: pl.Series, task: Task, *, file: str | Path, rows: pl.Series | NDArray[np.int64] | None = None
) -> NDArray[Any]:
    """Turn labels into class ids ``int64 [rows]`` (in the order of ``task.labels``), or into scores ``float32 [rows]``.

    Those of a multi-label task become ``bool [rows, labels]``. A label that is missing or none of the task's, or a
    score that is no number in its range, is a ``DataError`` with the row; without the numbers of the ``rows`` they are
    counted from 2, below a header.
    """
    texts = label_texts(labels, file)
    values: NDArray[Any]
    if task.is_score:
        values, wrong = parse_scores(texts, task)
    elif task.multi_label:
        values, wrong = _encode_sets(texts, task)
    else:
        ids = texts.replace_strict(task.labels, range(len(task.labels)), default=-1, return_dtype=pl.Int64)
        values = ids.fill_null(-1).to_numpy()
        wrong = values < 0
    if wrong.any():
        place = int(wrong.argmax())
        raise _wrong_label(texts[place], task, file, place + 2 if rows is None else int(rows[place]))
    return values


def _encode_sets(texts: pl.Series, task: Task) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which labels each row has, and which rows have none of the task's, or a missing text."""
    sets = split_sets(texts)
    counts = sets.list.len().fill_null(0).to_numpy()
    rows, parts = np.repeat(np.arange(len(texts)), counts), sets.filter(counts > 0).explode()
    ids = parts.replace_strict(task.labels, range(task.outputs), default=-1, return_dtype=pl.Int64).to_numpy()
    values, wrong = np.zeros((len(texts), task.outputs), bool), texts.is_null().to_numpy().copy()
    values[rows[ids >= 0], ids[ids >= 0]] = True
    wrong[rows[ids < 0]] = True
    return values, wrong


def parse_scores(texts: pl.Series, task: Task) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return scores as numbers, and which of them are missing or no number in the task's range."""
    numbers = texts.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    low, high = task.score_range or (-np.inf, np.inf)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.isfinite(numbers) & (numbers >= low) & (numbers <= high))
    return numbers.astype(np.float32), wrong


@dataclass
class LabelColumn:
    """The label column of a table: the rows that count for it, and their labels in the task's spelling."""

    path: Path
    column: str | None
    task: Task
    reporter: Reporter
    labelled: bool  # whether every row should have a label
    drop: Sequence[str]  # labels whose rows are left out
    spelling: Spelling | None = None
    dropped: Counter[str] = field(default_factory=Counter)  # the labels of rows that are left out
    spaces: int = 0  # labels with spaces around them

    def __post_init__(self) -> None:
        self.names = class_names(self.path, self.column, self.task, self.reporter)

    def read(self, batch: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """Return the rows that are not dropped, and their labels as the table writes them, null where there is none.

        Where labels are not needed, no row is dropped; and -1, by which GLUE hides labels of test rows, is no label.
        """
        if self.column is None:
            return batch, pl.repeat(None, len(batch), dtype=pl.String, eager=True).alias("label")
        task, found = self.task, batch[self.column]
        label = label_texts(found, self.path, self.names, int(batch[0, ROW_NUMBER])).alias("label")
        if task.multi_label and self.names:
            label = respell(label, self.names, task)
        if found.dtype == pl.String:
            self.spaces += int((label != found).sum())
        if self.drop:
            dropped = label.is_in(self.drop).fill_null(False)
            if self.labelled:
                self.dropped.update(label.filter(dropped))
                batch, label = batch.filter(~dropped), label.filter(~dropped)
            else:
                label = label.set(dropped, None)
        hidden = label.is_null() if task.multi_label else label == ""  # no label at all is one of these sets
        range_has_it = task.is_score and (task.score_range is None or task.score_range[0] <= -1)
        if not self.labelled and HIDDEN_NUMBER not in task.labels and not range_has_it:
            hidden |= label == HIDDEN_NUMBER
        return batch, label.set(hidden, None) if hidden.any() else label

    def checked(self, label: pl.Series, rows: pl.Series) -> pl.Series:
        """Return labels as the task writes them; one that is none of the task's is a ``DataError``."""
        if self.column is None:
            return label
        if self.spelling is None and label.null_count() < len(label):
            self.spelling = spelling_of(label, self.task)
            if not self.names and tuple(self.spelling) != self.task.labels:
                self.reporter.info(f"{self.path.name}: its labels are read as {_pairs(self.spelling)}")
        label = respell(label, self.spelling or {}, self.task)
        there = label.is_not_null()
        try:
            encode_labels(label.filter(there), self.task, file=self.path, rows=rows.filter(there))
        except DataError as error:
            error.key = self.column
            raise
        return label


def _wrong_label(label: str | None, task: Task, file: str | Path, row: int) -> DataError:
    if label is None:
        return DataError("a row has no label", file=file, row=row)
    if task.is_score:
        within = f" from {task.score_range[0]:g} to {task.score_range[1]:g}" if task.score_range else ""
        return DataError(f"the score {label!r} is no number{within}", file=file, row=row, hint="see task.score_range")
    if task.multi_label:
        label = next(part for part in split_sets(pl.Series([label])).explode() if part not in task.labels)
    what = f"the label {label!r} is none of the task's: {', '.join(task.labels)}"
    hint = "set task.labels (`kd data check` lists the labels), correct the row, set task.drop_labels, or let "
    hint += "`kd distil` read no labels: --label-col none"
    return DataError(what, file=file, row=row, hint=hint)
