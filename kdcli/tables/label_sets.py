"""Sets of labels in a table: lists in one column, or one column a label, with 0 or 1. All become texts ``a|b``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from kdcli.errors import DataError
from kdcli.tables import SEPARATOR
from kdcli.tables.text import ROW_NUMBER, BadRows, TableSource

_VALUES = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1, "-1": -1, "-1.0": -1}
"""What a column of one label holds; -1 hides the labels of a test row."""


class LabelSets:
    """A table with the labels of each row in one column of texts, where its file has lists or several columns."""

    def __init__(self, source: TableSource, path: Path, column: str, labels: Mapping[str, str]) -> None:
        """Give a source the column; ``labels`` are those of the columns with 0 or 1, none where it is there already."""
        self._source, self._path, self._column, self._labels = source, path, column, labels
        self._lists = not labels and source.schema.get(column, pl.String()).is_nested()
        new = {column: pl.String()} if labels or self._lists else {}
        self.schema, self.notes = pl.Schema({**source.schema, **new}), source.notes

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns; a list with another value than labels, or a value but 0 and 1, is a ``DataError``."""
        there = [name for name in columns if name != self._column or not self._labels]
        more = [name for name in self._labels if self._column in columns and name not in there]
        for frame in self._source.batches([*there, *more], bad):
            if self._column in columns and self._labels:
                frame = frame.with_columns(self._from_columns(frame))
            elif self._column in columns and self._lists:
                frame = frame.with_columns(self._from_lists(frame[self._column], frame[ROW_NUMBER]))
            yield frame.select(*columns, ROW_NUMBER)

    def _from_lists(self, sets: pl.Series, rows: pl.Series) -> pl.Series:
        try:
            texts = sets.cast(pl.List(pl.String))
        except pl.exceptions.PolarsError as error:
            what = f"the label column holds {sets.dtype}, not lists of labels"
            raise DataError(what, file=self._path, key=self._column) from error
        wrong = texts.list.eval(pl.element().str.contains(SEPARATOR, literal=True).fill_null(True)).list.any()
        if wrong.any():
            row = int(wrong.fill_null(False).arg_max() or 0)
            what = f"a label is missing or has a {SEPARATOR}: {sets[row].to_list()}"
            raise DataError(what, file=self._path, row=rows[row], key=self._column)
        return texts.list.join(SEPARATOR)

    def _from_columns(self, frame: pl.DataFrame) -> pl.Series:
        texts = pl.col(*self._labels).cast(pl.String).str.strip_chars(" ").str.to_lowercase()
        values = frame.select(texts.replace_strict(_VALUES, default=None, return_dtype=pl.Int8))
        for column in values:
            if column.null_count():
                row = int(column.is_null().arg_max() or 0)
                what = f"a column of one label holds 0 or 1, not {frame[column.name][row]!r}"
                raise DataError(what, file=self._path, row=frame[ROW_NUMBER][row], key=column.name)
        chosen = [pl.when(pl.col(name) == 1).then(pl.lit(label)) for name, label in self._labels.items()]
        sets = pl.concat_list(chosen).list.drop_nulls().list.join(SEPARATOR)
        hidden = pl.any_horizontal(pl.all() < 0)
        return values.select(pl.when(~hidden).then(sets).alias(self._column)).to_series()
