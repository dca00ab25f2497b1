"""The one reader of tables: TSV, CSV, JSONL, Parquet and plain lines, each also as ``.gz``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kdcli.errors import DataError
from kdcli.tables.text import (
    ROW_NUMBER,
    BadRows,
    BadRowsMode,
    Delimited,
    Form,
    LabelledLines,
    TableSource,
    as_texts,
    form_of,
    shown,
)

__all__ = [
    "ROW_NUMBER",
    "BadRowsMode",
    "Form",
    "TableReader",
    "as_texts",
    "files_of",
    "form_of",
    "read_table",
    "shown",
]


_SHARDS = re.compile(r"-\*-of-(\d+)\.")


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
        blank = [f"{self._bad.blank:,} blank lines are no rows"] if self._bad.blank else []
        return [*self._source.notes, *blank]

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
    quoted: bool | None = None,
    separator: str | None = None,
    labels: bool | None = None,
) -> TableReader:
    """Open a table.

    A byte order mark is skipped, and ``NA`` is text. A blank line is an empty text where a TSV or CSV has one column;
    elsewhere it is no row.

    Args:
        path: The file; its suffix decides the form.
        columns: The columns to read, in this order; all by default.
        header: Whether the first row of a TSV or CSV names the columns.
        names: The names of the columns where it does not, else ``c0``, ``c1``, ...; of a ``.txt`` else ``sentence``.
        bad_rows: Whether a row that cannot be read is an error, or is counted and skipped.
        form: The form, where the suffix does not tell.
        quoted: Whether a TSV or CSV has CSV's quoting; by default a CSV has it, and a TSV has not.
        separator: What separates the fields of a CSV; by default what its first line shows.
        labels: Whether the lines of a ``.txt`` begin with labels, as fastText has them; by default as its first does.

    Raises:
        DataError: The file is missing, empty or damaged, its suffix is unknown, or a column is missing.
    """
    path = Path(path)
    source = _open(path, form or form_of(path), header, names, bad_rows, quoted, separator, labels)
    for name in columns or ():
        if name not in source.schema:
            hint = f"the columns are {', '.join(source.schema)}"
            raise DataError(f"there is no column {name!r}", file=path, key=name, hint=hint)
    return TableReader(source, path, columns or tuple(source.schema), bad_rows)


def files_of(path: Path) -> list[Path]:
    """Return the files of a table: itself, the shards of ``train-*-of-00002.parquet``, or a folder's part files.

    Raises:
        DataError: A shard is missing, or the folder holds no part files, as Spark writes them.
    """
    if path.is_dir():
        if files := sorted(file for file in path.glob("part-*") if file.is_file() and file.stat().st_size):
            return files
        raise DataError("this is a folder without part files (part-*), not a table", file=path)
    shards = _SHARDS.search(path.name)
    if not shards:
        return [path]
    count = shards[1]
    files = [path.with_name(path.name.replace("*", f"{number:0{len(count)}d}")) for number in range(int(count))]
    if missing := [file for file in files if not file.exists()]:
        hint = f"the table has {int(count)} shards: copy them all"
        raise DataError("a shard of this table is missing", file=missing[0], hint=hint)
    return files


class Chain:
    """Files of the same columns that are one table."""

    def __init__(self, path: Path, sources: Sequence[TableSource], files: Sequence[Path]) -> None:
        self.schema = sources[0].schema
        self._sources = dict(zip(files, sources, strict=True))
        for file, source in self._sources.items():
            if source.schema != self.schema:
                there, here = (
                    ", ".join(f"{name} ({kind})" for name, kind in each.items())
                    for each in (self.schema, source.schema)
                )
                what = f"its columns are {here}, and those of {files[0].name} {there}"
                raise DataError(what, file=file, hint="the files of one table have the same columns")

    @property
    def notes(self) -> list[str]:
        """Peculiarities of the first file that has some."""
        own = next((source.notes for source in self._sources.values() if source.notes), [])
        return [f"{len(self._sources)} files are one table", *own]

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns of one file after the other; rows are counted over all of them."""
        last = 0
        for file, source in self._sources.items():
            bad.path, before = file, last
            for frame in source.batches(columns, bad):
                found = frame.with_columns(pl.col(ROW_NUMBER) + before) if before else frame
                last = int(found[-1, ROW_NUMBER]) if len(found) else last
                yield found


def _open(path: Path, form: Form, *how: Any) -> TableSource:
    files = files_of(path)
    sources = [_open_file(file, form, *how) for file in files]
    return sources[0] if files == [path] else Chain(path, sources, files)


def _open_file(
    path: Path,
    form: Form,
    header: bool,
    names: Sequence[str] | None,
    bad_rows: BadRowsMode,
    quoted: bool | None,
    separator: str | None,
    labels: bool | None,
) -> TableSource:
    if form == "txt":
        lines = Delimited(path, "", header=False, names=names or ("sentence",))
        return LabelledLines(lines) if labels or (labels is None and LabelledLines.fits(path)) else lines
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
    return open_csv(path, header=header, names=names, quoted=quoted, separator=separator)
