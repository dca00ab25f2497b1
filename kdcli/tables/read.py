"""The one reader of tables: TSV, CSV, JSONL, Parquet and plain lines, each also as ``.gz``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from kdcli.errors import DataError
from kdcli.tables.text import (
    ROW_NUMBER,
    BadRows,
    BadRowsMode,
    Delimited,
    Form,
    TableSource,
    check_texts,
    form_of,
    shown,
)

__all__ = [
    "ROW_NUMBER",
    "BadRowsMode",
    "Form",
    "TableReader",
    "check_texts",
    "form_of",
    "read_table",
    "shown",
]


class TableReader:
    """A table on disk, which can be read as often as wanted."""

    def __init__(self, source: TableSource, path: Path, columns: Sequence[str], bad_rows: BadRowsMode) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.schema = pl.Schema({name: source.schema[name] for name in columns})
        self._source = source
        self._bad = BadRows(path, bad_rows)

    @property
    def skipped(self) -> int:
        """The number of bad rows that the latest reading has skipped so far."""
        return self._bad.count

    @property
    def first_skipped(self) -> str:
        """Where the first of them was, and what was wrong with it."""
        return self._bad.first

    @property
    def notes(self) -> list[str]:
        """Peculiarities of the file that the user should know, such as an unusual separator."""
        return self._source.notes

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in frames of the columns and ``ROW_NUMBER``, in memory bounded by a block of the file.

        Raises:
            DataError: A row is bad (and not skipped), bytes are not UTF-8, or a column mixes types.
        """
        self._bad = BadRows(self.path, self._bad.mode)
        for frame in self._source.batches(self.columns, self._bad):
            if len(frame):
                yield frame

    def frame(self) -> pl.DataFrame:
        """Read all rows."""
        empty = pl.DataFrame(schema={**self.schema, ROW_NUMBER: pl.Int64()})
        return pl.concat(list(self.batches()) or [empty])


def read_table(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    header: bool = True,
    names: Sequence[str] | None = None,
    bad_rows: BadRowsMode = "error",
    form: Form | None = None,
    quoted: bool = False,
) -> TableReader:
    """Open a table.

    A byte order mark is skipped, and ``NA`` is text. TSV has no quoting, CSV has. A blank line is an empty text where
    there is one column, and a bad row in a TSV or CSV of more columns; in JSONL it is skipped.

    Args:
        path: The file; its suffix decides the form.
        columns: The columns to read, in this order; all by default.
        header: Whether the first row of a TSV or CSV names the columns.
        names: The names of the columns where it does not, else ``c0``, ``c1``, ...; of a ``.txt`` else ``sentence``.
        bad_rows: Whether a row that cannot be read is an error, or is counted and skipped.
        form: The form, where the suffix does not tell.
        quoted: Whether a TSV has CSV's quoting, which ``has_csv_quoting`` finds out.

    Raises:
        DataError: The file is missing, empty or damaged, its suffix is unknown, or a column is missing.
    """
    path = Path(path)
    source = _open(path, form or form_of(path), header, names, bad_rows, quoted)
    for name in columns or ():
        if name not in source.schema:
            hint = f"the columns are {', '.join(source.schema)}"
            raise DataError(f"there is no column {name!r}", file=path, key=name, hint=hint)
    return TableReader(source, path, columns or tuple(source.schema), bad_rows)


def _open(
    path: Path, form: Form, header: bool, names: Sequence[str] | None, bad_rows: BadRowsMode, quoted: bool
) -> TableSource:
    if form == "txt":
        return Delimited(path, "", header=False, names=names or ("sentence",))
    if form == "tsv" and not quoted:
        return Delimited(path, "\t", header=header, names=names)
    if form == "jsonl":
        from kdcli.tables.jsonl import Jsonl

        return Jsonl(path, BadRows(path, bad_rows))
    if form == "parquet":
        from kdcli.tables.parquet import ParquetFile

        return ParquetFile(path)
    from kdcli.tables.csv_file import QuotedFile, open_csv

    if form == "tsv":
        return QuotedFile(path, "\t", header=header, names=names)
    return open_csv(path, header=header, names=names)
