"""The one reader of tables: TSV, CSV, JSONL, Parquet and plain lines, each also as ``.gz``."""

from __future__ import annotations

import re
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
    LabelledLines,
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
    "files_of",
    "form_of",
    "read_table",
    "shown",
]


_SHARD = re.compile(r"-(\d+)-of-(\d+)(?=\.)")


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


def files_of(path: Path) -> list[Path]:
    """Return the files of a table: itself, the sisters of a shard of the Hub's, or the part files in Spark's folder.

    Raises:
        DataError: A shard is missing, or the folder holds no part files.
    """
    if path.is_dir():
        if files := sorted(file for file in path.glob("part-*") if file.is_file()):
            return files
        raise DataError("this is a folder without part files (part-*), not a table", file=path)
    shard = _SHARD.search(path.name)
    if not shard:
        return [path]
    count, digits = int(shard[2]), len(shard[1])
    begin, end = path.name[: shard.start(1)], path.name[shard.end(1) :]
    files = [path.with_name(f"{begin}{number:0{digits}d}{end}") for number in range(count)]
    for file in files:
        if not file.exists():
            hint = f"the table has {count} shards: copy them all"
            raise DataError("a shard of this table is missing", file=file, hint=hint)
    return files


class Chain:
    """Files of the same columns that are one table."""

    def __init__(self, path: Path, sources: Sequence[TableSource], files: Sequence[Path]) -> None:
        self.schema = sources[0].schema
        self.notes = [f"{len(files)} files are one table", *sources[0].notes]
        self._sources = sources
        for source, file in zip(sources, files, strict=True):
            if source.schema != self.schema:
                what = (
                    f"its columns are {_columns(source.schema)}, and those of {files[0].name} {_columns(self.schema)}"
                )
                raise DataError(what, file=file, hint="the files of one table have the same columns")

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns of one file after the other; rows are counted over all of them."""
        last = 0
        for number, source in enumerate(self._sources):
            before = last
            for frame in source.batches(columns, bad):
                found = frame.with_columns(pl.col(ROW_NUMBER) + before) if number else frame
                last = int(found[-1, ROW_NUMBER]) if len(found) else last
                yield found


def _columns(schema: pl.Schema) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in schema.items())


def _open(
    path: Path, form: Form, header: bool, names: Sequence[str] | None, bad_rows: BadRowsMode, quoted: bool
) -> TableSource:
    files = files_of(path)
    sources = [_open_file(file, form, header, names, bad_rows, quoted) for file in files]
    return sources[0] if files == [path] else Chain(path, sources, files)


def _open_file(
    path: Path, form: Form, header: bool, names: Sequence[str] | None, bad_rows: BadRowsMode, quoted: bool
) -> TableSource:
    if form == "txt":
        lines = Delimited(path, "", header=False, names=names or ("sentence",))
        return LabelledLines(lines) if LabelledLines.fits(path) else lines
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
