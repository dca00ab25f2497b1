"""The one reader and writer of tables: TSV, CSV, JSONL, Parquet and plain lines, each also as ``.gz``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from kdcli.errors import DataError
from kdcli.tables.comma import Csv, tab_separated
from kdcli.tables.forms import BadRows, BadRowsMode, Form, Numbers, Source, check_texts, form_of
from kdcli.tables.jsonl import Jsonl
from kdcli.tables.parquet import Parquet
from kdcli.tables.spans import Spans
from kdcli.tables.tsv import Lines
from kdcli.tables.writing import TableWriter, write_table

__all__ = ["TableReader", "TableWriter", "read_table", "write_table"]

_SPAN_ROWS = 4096
"""Rows looked at together: what is found out about them takes several times their memory."""


class TableReader:
    """A table on disk: an iterable of record batches, as often as wanted, each time from the beginning.

    Attributes:
        path: The file.
        columns: The names of the columns that are read.
        schema: Their names and types; all are text in TSV, CSV and plain lines.
    """

    def __init__(
        self, source: Source, path: Path, columns: Sequence[str], bad_rows: BadRowsMode, batch_rows: int
    ) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.schema = pa.schema([source.schema.field(name) for name in columns])
        self._source = source
        self._batch_rows = batch_rows
        self._bad_rows: BadRowsMode = bad_rows
        self._bad = BadRows(path, bad_rows)

    @property
    def skipped(self) -> int:
        """The bad rows that the latest iteration has left out so far."""
        return self._bad.count

    @property
    def first_skipped(self) -> str:
        """Where the first of them was, and what was wrong with it."""
        return self._bad.first

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Give the rows, at most ``batch_rows`` at a time."""
        for _, batch in self.numbered():
            yield batch

    def numbered(self) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
        """Give the rows, each batch with the numbers of its rows in the file (a header is row 1), for messages."""
        self._bad = BadRows(self.path, self._bad_rows)
        for rows, batch in self._source.batches(self.columns, self._bad):
            for begin in range(0, batch.num_rows, self._batch_rows):
                yield rows[begin : begin + self._batch_rows], batch.slice(begin, self._batch_rows)

    def spans(self, texts: Sequence[str]) -> Iterator[tuple[Numbers, Spans, pa.RecordBatch]]:
        """Give the rows with the texts of some columns as spans: those of lines and TSV are not copied for it.

        Args:
            texts: The columns.

        Returns:
            The rows' numbers, the spans, which hold until the next are asked for, and the other columns.

        Raises:
            DataError: A column holds no texts, or a row has none.
        """
        others = [name for name in self.columns if name not in texts]
        if isinstance(self._source, Lines):
            self._bad = BadRows(self.path, self._bad_rows)
            for rows, spans in self._source.spans([*texts, *others], self._bad):
                columns = [spans.texts(len(texts) + place) for place in range(len(others))]
                rest = pa.RecordBatch.from_arrays(
                    columns, schema=pa.schema([self.schema.field(each) for each in others])
                )
                yield rows, spans.select(range(len(texts))), rest
            return
        for rows, batch in self.numbered():
            for begin in range(0, batch.num_rows, _SPAN_ROWS):
                part, numbers = batch.slice(begin, _SPAN_ROWS), rows[begin : begin + _SPAN_ROWS]
                for name in texts:
                    check_texts(part[name], name, self.path, numbers)
                yield numbers, Spans.of([part[name] for name in texts]), part.select(others)

    def table(self) -> pa.Table:
        """Read all rows."""
        return pa.Table.from_batches(self, self.schema)


def read_table(
    path: str | Path,
    *,
    header: bool = True,
    names: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    bad_rows: BadRowsMode = "error",
    batch_rows: int = 65_536,
    form: Form | None = None,
) -> TableReader:
    """Open a table; the rows are read when the reader is iterated, in memory bounded by a block of the file.

    Rows end at LF or CRLF and at nothing else, a byte order mark is skipped, and ``NA`` is text. TSV has no quoting.
    A blank line is an empty text where there is one column; in a TSV or CSV of more columns it is a bad row, and in
    JSONL always. Rows are numbered from 1, the header included.

    Args:
        path: The file; its suffix tells the form. A ``.csv`` whose first line has more tabs than commas is a TSV.
        header: Whether the first row of a TSV or CSV names the columns.
        names: The columns' names where it does not, else ``c0``, ``c1``, ...; of a ``.txt`` else ``sentence``.
        columns: The columns to read, in this order; by default all.
        bad_rows: What rows do that cannot be read: raise an error, or be counted and left out.
        batch_rows: The most rows in a batch.
        form: The form, where the suffix does not tell it.

    Raises:
        DataError: The file is missing, empty or damaged, its suffix is unknown, or a column is missing. While it is
            iterated: a bad row, or bytes that are not UTF-8.
    """
    path = Path(path)
    source = _open(path, form or form_of(path), header, names, bad_rows)
    for name in columns or ():
        if name not in source.columns:
            hint = f"the columns are {', '.join(source.columns)}"
            raise DataError(f"there is no column {name!r}", file=path, key=name, hint=hint)
    return TableReader(source, path, columns or source.columns, bad_rows, batch_rows)


def _open(path: Path, form: Form, header: bool, names: Sequence[str] | None, bad_rows: BadRowsMode) -> Source:
    if form == "jsonl":
        return Jsonl(path, BadRows(path, bad_rows))
    if form == "parquet":
        return Parquet(path)
    if form == "txt":
        return Lines(path, tabs=False, header=False, names=names or ("sentence",))
    if form == "tsv" or tab_separated(path):
        return Lines(path, tabs=True, header=header, names=names)
    return Csv(path, header=header, names=names)
