"""Tables on their way out: whole files or none, in the form that the suffix tells."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from kdcli.errors import DataError
from kdcli.files import atomic
from kdcli.tables.forms import BOM, Form, form_of, is_gzip, shown
from kdcli.tables.strings import scalar, strings

_ROWS = 65_536
_GROUP_BYTES = 1 << 26


class TableWriter:
    """Takes the rows of a table, in pieces of any size.

    Attributes:
        rows: How many have been written.
    """

    def __init__(self, sink: _Sink, schema: pa.Schema) -> None:
        self._sink = sink
        self._schema = schema
        self.rows = 0

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Write some rows; their columns are taken by name, in the order of the table's schema.

        Raises:
            DataError: A text holds a tab or a line end, and the form has no place for it.
        """
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        for batch in table.select(self._schema.names).cast(self._schema).to_batches(_ROWS):
            self._sink.write(batch)
            self.rows += batch.num_rows


@contextmanager
def write_table(path: str | Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """Write a table, which takes its place when the block ends well; the suffix of its name tells the form.

    In TSV and CSV a null is an empty field, and a float is the shortest number that reads back as the same one.
    The bytes depend on the rows alone, gzipped or not.

    Args:
        path: The file to write.
        schema: The names and types of its columns; ``.txt`` takes one.

    Raises:
        DataError: The suffix is unknown, or the form cannot hold such columns.
        KdError: The disk is full, or the folder cannot be written.
    """
    path = Path(path)
    form = form_of(path)
    if form == "txt" and len(schema) != 1:
        raise DataError(f"a .txt holds one column, and there are {len(schema)}", file=path, hint="name it .tsv")
    with atomic(path) as temporary, ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(temporary.open("wb"))
        if is_gzip(path):
            # Neither the time nor the temporary name goes into the file.
            zipped = gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0, compresslevel=6)
            stream = stack.enter_context(cast(IO[bytes], zipped))
        sink = stack.enter_context(closing(_sink(form, stream, schema, path)))
        yield TableWriter(sink, schema)


class _Sink(Protocol):
    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


def _sink(form: Form, stream: IO[bytes], schema: pa.Schema, path: Path) -> _Sink:
    match form:
        case "tsv" | "txt":
            return _LinesSink(stream, schema, path, header=form == "tsv")
        case "csv":
            return _CsvSink(stream, schema)
        case "jsonl":
            return _JsonlSink(stream)
        case "parquet":
            return _ParquetSink(stream, schema)


class _LinesSink:
    """Rows as lines, with tabs between the fields; without a header, one text a line in which a tab is text."""

    def __init__(self, stream: IO[bytes], schema: pa.Schema, path: Path, *, header: bool) -> None:
        self.stream = stream
        self.path = path
        self.header = header
        self.row = 1
        if header:
            self._put([_text(strings([name])) for name in schema.names])

    def write(self, batch: pa.RecordBatch) -> None:
        self._put([_text(column) for column in batch.columns])

    def close(self) -> None:
        """Have nothing left to write."""

    def _put(self, texts: list[pa.LargeStringArray]) -> None:
        lines = _join(_join(*texts, by="\t"), _large(""), by="\n")
        data = _bytes(lines)
        separators = data.count(b"\t") if self.header else 0
        # A text that ends in CR would lose it to the line end.
        if separators != len(lines) * (len(texts) - 1) or data.count(b"\n") != len(lines) or b"\r\n" in data:
            raise self._no_place(texts)
        if self.row == 1 and data.startswith(BOM):
            self.stream.write(BOM)
        self.stream.write(data)
        self.row += len(lines)

    def _no_place(self, texts: list[pa.LargeStringArray]) -> DataError:
        wrong = [pc.match_substring_regex(text, r"[\t\n]" if self.header else r"\n") for text in texts]
        wrong[-1] = pc.or_(wrong[-1], pc.ends_with(texts[-1], "\r"))
        places = [pc.index(where, True).as_py() for where in wrong]
        row, column = min((place, column) for column, place in enumerate(places) if place >= 0)
        what = f"a text with a tab or a line end has no place in this form: {shown(texts[column][row].as_py())}"
        return DataError(what, file=self.path, row=self.row + row, hint="write .parquet (or .jsonl) instead")


class _CsvSink:
    """Rows with commas between the fields, and all texts in quotes."""

    def __init__(self, stream: IO[bytes], schema: pa.Schema) -> None:
        self.writer = csv.CSVWriter(stream, schema)
        self.close = self.writer.close
        self.write = self.writer.write_batch


class _JsonlSink:
    """Rows as JSON objects, one a line."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def write(self, batch: pa.RecordBatch) -> None:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist()]
        self.stream.write("".join(lines).encode())

    def close(self) -> None:
        """Have nothing left to write."""


class _ParquetSink:
    """Rows in groups of a good size, however small the pieces are in which they come."""

    def __init__(self, stream: IO[bytes], schema: pa.Schema) -> None:
        self.writer = parquet.ParquetWriter(stream, schema)
        self.schema = schema
        self.waiting: list[pa.RecordBatch] = []
        self.rows = self.bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self.waiting.append(batch)
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        if self.rows >= _ROWS or self.bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self.waiting:
            self._flush()
        self.writer.close()

    def _flush(self) -> None:
        self.writer.write_table(pa.Table.from_batches(self.waiting, self.schema))
        self.waiting = []
        self.rows = self.bytes = 0


def _text(column: pa.Array) -> pa.LargeStringArray:
    """Write the values of a column as text; a null is empty."""
    return pc.fill_null(column.cast(pa.string()).cast(pa.large_string()), _large(""))


def _large(text: str) -> pa.LargeStringScalar:
    return scalar(text).cast(pa.large_string())


def _join(*texts: pa.LargeStringArray | pa.Scalar, by: str) -> pa.LargeStringArray:
    return pc.binary_join_element_wise(*texts, _large(by))


def _bytes(texts: pa.LargeStringArray) -> bytes:
    """Return texts that have just been made, one behind the other."""
    return bytes(texts.buffers()[2]) if len(texts) else b""
