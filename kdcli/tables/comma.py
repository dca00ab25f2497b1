"""Comma-separated tables: ``pyarrow.csv``, watched where it would change what a table says.

``pyarrow.csv`` takes a lone CR outside quotes for the end of a row, and a blank line for a row of empty fields. The
bytes are searched for either first; only a file that may hold one is looked through field by field.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from kdcli.errors import DataError
from kdcli.tables.forms import (
    BLOCK,
    BOM,
    BadRows,
    Numbers,
    check_columns,
    check_columns_utf8,
    is_gzip,
    numbered,
    open_bytes,
    shown,
    unzipped,
)

_BLOCK = 1 << 22
"""Bytes parsed at once; a row must fit."""

_FIELD = re.compile(rb'("(?:[^"]|"")*+"?)?[^,\r\n]*+(,|\r\n|\n|\r|\Z)')
"""A field and what ends it; a quote counts at the beginning of a field only, as for ``pyarrow.csv``."""


class Csv:
    """A comma-separated file, quoted where needed.

    Args:
        path: The file.
        header: Whether the first row names the columns.
        names: The columns' names where there is no header.

    Raises:
        DataError: The file is missing or empty, or the names do not fit it.
    """

    def __init__(self, path: Path, *, header: bool, names: Sequence[str] | None) -> None:
        self.path = path
        self.header = header
        with self._open({}, lambda _: "skip") as reader:
            self._found = tuple(reader.schema.names)
        self.columns = self._found if header else tuple(names or numbered(len(self._found)))
        if len(self.columns) != len(self._found):
            raise DataError(f"{len(self._found)} fields where {len(self.columns)} are expected", file=path, row=1)
        check_columns(self.columns, path)
        self.schema = pa.schema([(name, pa.string()) for name in self.columns])

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
        """Give the named columns, a block of the file at a time.

        Raises:
            DataError: A row is ragged (and not to be skipped), not UTF-8, or holds a lone CR outside quotes.
        """
        ragged: list[Any] = []
        refused: list[int] = []
        blank = self._blank_rows() if _suspect(self.path) else np.array([], np.int64)
        row = 2 if self.header else 1
        with self._open(dict.fromkeys(self._found, pa.string()), _keep(ragged)) as reader:
            for batch in reader:
                while ragged:
                    refused.append(ragged[0].number)
                    bad.add(ragged[0].number, _ragged(ragged.pop(0)))
                rows = _rest(row, batch.num_rows, refused)
                row = int(rows[-1]) + 1 if len(rows) else row
                refused = [number for number in refused if number >= row]
                check_columns_utf8(batch, self.path, rows)
                if (here := np.isin(rows, blank)).any():
                    bad.add(int(rows[here][0]), "a blank line", int(here.sum()))
                    rows, batch = rows[~here], batch.filter(pa.array(~here))
                yield rows, batch.rename_columns(self.columns).select(list(columns))

    @contextmanager
    def _open(self, types: dict[str, pa.DataType], on_ragged: Callable[[Any], str]) -> Iterator[csv.CSVStreamingReader]:
        read = csv.ReadOptions(use_threads=False, block_size=_BLOCK, autogenerate_column_names=not self.header)
        parse = csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=on_ragged)
        convert = csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False, check_utf8=False)
        try:
            # Arrow opens the file itself: its reading thread would wait for ever for a Python stream when it closes.
            with (
                pa.input_stream(str(self.path), compression="gzip" if is_gzip(self.path) else None) as stream,
                csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert) as reader,
            ):
                yield reader
        except UnicodeDecodeError as error:
            what = f"not UTF-8: 0x{error.object[error.start]:02x} in the name of a column"
            raise DataError(what, file=self.path, row=1) from None
        except pa.ArrowInvalid as error:
            hint = f"a row of more than {_BLOCK >> 20} MB, or a quote that is never closed, reads like this"
            raise DataError(f"not a CSV table: {error}", file=self.path, hint=hint) from error
        except OSError as error:
            raise DataError(f"the file is cut short or damaged: {error}", file=self.path) from error

    def _blank_rows(self) -> Numbers:
        """Return the numbers of the blank lines; none where there is one column, whose empty texts they are.

        Raises:
            DataError: There is a lone CR outside quotes.
        """
        blank, row, fields = [], 1, 0
        with unzipped(self.path) as plain, plain.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            for match in _FIELD.finditer(data, len(BOM) if data[: len(BOM)] == BOM else 0):
                fields += 1
                if match[2] == b"\r":
                    hint = "put the text in quotes, or keep the table as .tsv or .parquet"
                    raise DataError("a carriage return alone, outside quotes", file=self.path, row=row, hint=hint)
                if match[2] == b",":
                    continue
                if fields == 1 and match[0] == match[2] and match[2] and len(self.columns) > 1:
                    blank.append(row)
                row, fields = row + 1, 0
        return np.array(blank, np.int64)


def tab_separated(path: Path) -> bool:
    """Tell whether a ``.csv`` has tabs between its fields, as the original STS benchmark has."""
    with open_bytes(path) as stream:
        line = stream.readline()
    return line.count(b"\t") > line.count(b",")


def _suspect(path: Path) -> bool:
    """Tell whether there may be a lone CR or a blank line in a file."""
    with open_bytes(path) as stream:
        after = b"\n"
        while chunk := stream.read(BLOCK):
            if b"\n\n" in chunk or (after == b"\n" and chunk[:1] in (b"\r", b"\n")):
                return True
            if b"\r" in chunk and (chunk.count(b"\r") != chunk.count(b"\r\n") or b"\n\r\n" in chunk):
                return True
            after = chunk[-1:]
    return False


def _keep(rows: list[Any]) -> Callable[[Any], str]:
    def handler(row: Any) -> str:
        rows.append(row)
        return "skip"

    return handler


def _ragged(row: Any) -> str:
    fields = row.actual_columns
    return f"{fields} field{'s' * (fields > 1)} where {row.expected_columns} are expected: {shown(row.text)}"


def _rest(row: int, count: int, refused: Sequence[int]) -> Numbers:
    """Return the next ``count`` row numbers, from ``row`` on, that are not refused."""
    return np.setdiff1d(np.arange(row, row + count + len(refused)), np.array(refused, np.int64))[:count]
