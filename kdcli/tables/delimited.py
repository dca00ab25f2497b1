"""TSV, CSV and plain lines: Polars parses blocks of whole lines.

Rows of TSV and of plain lines end at LF or CRLF and at nothing else: a lone CR, U+0085, U+2028 and NUL are text.
There is no quoting. Polars fills rows that are too short in silence, and names neither row nor content where it fails:
separators are counted, and a second, slow look at the block finds what is wrong.

CSV has RFC 4180's quoting. Blocks without a quote are parsed in the same way; from the first quote on, rows are read by
Python's ``csv``, because Polars reads short rows and quotes escaped by a backslash wrong without an error.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from kdcli.errors import DataError
from kdcli.tables import forms
from kdcli.tables.forms import BadRows, check_columns, check_utf8, numbered, open_bytes, shown, with_row_numbers

_RECORDS = 16_384
_FIELD_LIMIT = 1 << 26
_BROKEN = "\0broken"


class Delimited:
    """A file of rows with a separator between the fields, or of one text a line (``txt``).

    A ``.csv`` whose first line has more tabs than commas is a TSV. ``names`` are the columns where there is no header.
    """

    def __init__(
        self, path: Path, form: str, *, header: bool = True, names: Sequence[str] | None = None, quoted: bool = False
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        self._header = header
        with open_bytes(path) as stream:
            line = stream.readline()
            check_utf8(line, path, 1)
            commas = form == "csv" and line.count(b"\t") <= line.count(b",") + line.count(b";")
            self._quoted = commas or quoted
            self._separator = "," if commas else "" if form == "txt" else "\t"
            self._excel = commas and line.strip().lower() in (b"sep=;", b"sep=,")
            if self._excel:
                self.notes.append(f"the first line, {line.strip().decode()}, is Excel's and no row")
                line = stream.readline()
            if commas and line.count(b";") > line.count(b","):
                self.notes.append("the fields are separated by ;")
                self._separator = ";"
            first = self._first_row(chain([line], stream))
        self.columns = tuple(first) if header else tuple(names or numbered(len(first)))
        if len(self.columns) != len(first):
            raise DataError(f"{_fields(len(first))} instead of {len(self.columns)}", file=path, row=1)
        check_columns(self.columns, path)
        self.schema = pl.Schema(dict.fromkeys(self.columns, pl.String()))

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns, a block of the file at a time."""
        row = 1 + self._excel + self._header
        with open_bytes(self.path) as stream:
            if self._excel:
                stream.readline()
            if self._header:
                self._first_row(stream)
            blocks = _blocks(stream, self._empty)
            for block in blocks:
                if self._quoted and (b'"' in block or block.count(b"\r") != block.count(b"\r\n")):
                    for frame in self._read_records(chain([block], blocks), bad, row):
                        yield frame.select(*columns, forms.ROW_NUMBER)
                    return
                parsed = self._parse(block)
                if parsed is None:
                    yield self._read_slowly(block, bad, row).select(*columns, forms.ROW_NUMBER)
                    row += block.count(b"\n") - 1
                else:
                    numbers = pl.int_range(row, row + len(parsed), eager=True)
                    yield with_row_numbers(parsed.select(columns), numbers)
                    row += len(parsed)

    def _first_row(self, lines: Iterable[bytes]) -> list[str]:
        if self._quoted:
            try:
                return next(csv.reader(map(bytes.decode, lines), delimiter=self._separator, strict=True))
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(f"the first row is not CSV: {error}", file=self.path, row=1) from None
        text = next(iter(lines)).decode().removesuffix("\n").removesuffix("\r")
        return text.split(self._separator) if self._separator else [text]

    @property
    def _empty(self) -> bytes:
        """The row before each block: Polars takes some first bytes for a byte order mark or for compressed data."""
        return self._separator.encode() * (len(self.columns) - 1) + b"\n"

    def _parse(self, block: bytes) -> pl.DataFrame | None:
        """Parse whole lines after an empty row; None if Polars fails or any row is ragged."""
        separator = self._separator.encode()
        try:
            if not separator:
                return pl.read_lines(block, name=self.columns[0])[1:]
            if b"\r" in block:  # Polars strips a CR from the end of any field
                block = block.replace(b"\r" + separator, b"\r\r" + separator)
            frame = pl.read_csv(
                block,
                has_header=False,
                new_columns=self.columns,
                separator=self._separator,
                quote_char=None,
                infer_schema=False,
                empty_string_is_null=False,
            )
        except pl.exceptions.PolarsError:
            return None
        # No row is too long, so that none is too short if the sum is right.
        found = np.count_nonzero(np.frombuffer(block, np.uint8) == ord(separator))
        return frame[1:] if found == len(frame) * (len(self.columns) - 1) else None

    def _read_slowly(self, block: bytes, bad: BadRows, row: int) -> pl.DataFrame:
        """Find what is wrong with a block; return its good rows."""
        block = block[len(self._empty) :]
        check_utf8(block, self.path, row)
        rows, lines = [], [self._empty]
        for number, line in enumerate(block.split(b"\n")[:-1], row):
            fields = line.count(self._separator.encode()) + 1 if self._separator else 1
            if fields == len(self.columns):
                rows.append(number)
                lines.append(line + b"\n")
            else:
                bad.add(number, _ragged(fields, len(self.columns), line.removesuffix(b"\r")))
        frame = self._parse(b"".join(lines))
        if frame is None or len(frame) != len(rows):
            raise DataError("Polars cannot read these rows", file=self.path, row=row)
        return with_row_numbers(frame, rows)

    def _read_records(self, blocks: Iterable[bytes], bad: BadRows, row: int) -> Iterator[pl.DataFrame]:
        """Read rows that may be quoted."""
        csv.field_size_limit(_FIELD_LIMIT)
        records = _Records((block[len(self._empty) :] for block in blocks), self._separator)
        rows: list[int] = []
        found: list[list[str]] = []
        while (record := self._next_record(records, bad, row)) is not None:
            record = record or [""]  # a blank line
            if len(record) == len(self.columns):
                rows.append(row)
                found.append(record)
            elif record[0] is not _BROKEN:
                bad.add(row, _ragged(len(record), len(self.columns), records.content()))
            if len(rows) == _RECORDS:
                yield self._frame(rows, found)
                rows, found = [], []
            row += 1
        if rows:
            yield self._frame(rows, found)

    def _frame(self, rows: list[int], records: list[list[str]]) -> pl.DataFrame:
        columns = zip(self.columns, zip(*records, strict=True), strict=True)
        return with_row_numbers(pl.DataFrame([pl.Series(name, texts, pl.String) for name, texts in columns]), rows)

    def _next_record(self, records: _Records, bad: BadRows, row: int) -> list[str] | None:
        """Return the next row, None at the end, or a row of ``_BROKEN`` that has been counted."""
        try:
            return records.next()
        except UnicodeDecodeError:
            check_utf8(records.content(), self.path, row)
            raise
        except csv.Error as error:
            content, message = records.content(), str(error)
            if "unexpected end" in message or "field larger" in message:
                what = f"a quote is never closed: {shown(content)}"
                raise DataError(what, file=self.path, row=row, hint="close the quote, or double it") from None
            if rb"\"" in content and not records.backslash:
                records.escape_by_backslash()
                note = f"quotes are escaped by a backslash from row {row} on"
                self.notes = [*filter(note.__ne__, self.notes), note]
                return self._next_record(records, bad, row)
            if "new-line" in message:
                what = "a lone carriage return outside quotes"
                bad.add(row, what, "quote the text, or keep the table as .tsv or .parquet")
            else:
                bad.add(row, f"text after a closing quote: {shown(content.rstrip())}")
            return [_BROKEN] * (len(self.columns) + 1)


def has_csv_quoting(path: Path) -> bool:
    """Return whether a TSV has CSV's quoting, as pandas writes it: some fields are quoted, and none wrongly."""
    if not _quotes_begin_fields(path):
        return False
    try:
        for _ in Delimited(path, "tsv", quoted=True).batches([], BadRows(path, "error")):
            pass
    except DataError:
        return False
    return True


def _quotes_begin_fields(path: Path) -> bool:
    buffer = bytearray(b"\n") + bytes(forms.BLOCK)  # the byte before, and a block
    with open_bytes(path) as stream:
        while got := stream.readinto(memoryview(buffer)[1:]):
            if buffer.find(b'"', 1, got + 1) > 0:
                data = np.frombuffer(buffer, np.uint8, got + 1)
                if np.isin(data[np.flatnonzero(data[1:] == ord('"'))], list(b"\t\n")).any():
                    return True
            buffer[0] = buffer[got]
    return False


class _Records:
    """The rows of a CSV, and the bytes of the latest one."""

    def __init__(self, blocks: Iterable[bytes], separator: str) -> None:
        self._lines = (line for block in blocks for line in io.BytesIO(block))
        self._separator = separator
        self._taken: list[bytes] = []
        self._again: list[bytes] = []
        self.backslash = False
        self._reader = self._new_reader()

    def next(self) -> list[str] | None:
        self._taken = []
        return next(self._reader, None)

    def content(self) -> bytes:
        return b"".join(self._taken)

    def escape_by_backslash(self) -> None:
        r"""Read the latest row again, and all that follow, with ``\"`` for a quote inside quotes."""
        self.backslash = True
        self._again = self._taken
        self._reader = self._new_reader()

    def _new_reader(self) -> Iterator[list[str]]:
        return csv.reader(self._decoded(), delimiter=self._separator, strict=True)

    def _decoded(self) -> Iterator[str]:
        for line in chain(self._again, self._lines):
            self._taken.append(line)
            yield (line.replace(rb"\"", b'""') if self.backslash else line).decode()


def _blocks(stream: io.BufferedReader | gzip.GzipFile, before: bytes) -> Iterator[bytes]:
    """Cut a stream into blocks of whole lines, each after ``before``; the last line gets a line end."""
    buffer, kept = bytearray(2 * forms.BLOCK), 0
    while got := stream.readinto(memoryview(buffer)[kept : kept + forms.BLOCK]):
        end = kept + got
        cut = buffer.rfind(b"\n", kept, end) + 1
        if cut:
            yield b"".join([before, memoryview(buffer)[:cut]])
        kept = end - cut
        buffer[:kept] = buffer[cut:end]
        if kept + forms.BLOCK > len(buffer):
            buffer += bytes(len(buffer))
    if kept:
        # A lone CR at the end of the file is text.
        yield before + buffer[:kept] + (b"\r\n" if buffer[kept - 1] == ord("\r") else b"\n")


def _ragged(fields: int, expected: int, content: bytes) -> str:
    return f"{_fields(fields)} instead of {expected}: {shown(content)}" if content.strip(b"\r\n") else "a blank line"


def _fields(count: int) -> str:
    return f"{count} field{'s' * (count != 1)}"
