"""CSV with RFC 4180's quoting.

Blocks without a quote are parsed like other rows; from the first quote on, Python's ``csv`` reads them, because Polars
reads short rows and quotes escaped by a backslash wrong without an error.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

import polars as pl

from kdcli.errors import DataError
from kdcli.tables import text
from kdcli.tables.text import BadRows, Delimited, blank_lines, check_utf8, open_bytes, ragged, shown, with_row_numbers

_RECORDS = 16_384
_FIELD_LIMIT = 1 << 26
_BROKEN: list[str] = []
_EXCEL = re.compile(rb'"?sep=([\x01-\x7f])"?\r?\n?', re.I)
_ESCAPED = re.compile(rb"\\\\|\\\"")


def open_csv(
    path: Path,
    *,
    header: bool = True,
    names: Sequence[str] | None = None,
    quoted: bool | None = None,
    separator: str | None = None,
) -> Delimited:
    """Open a CSV by its first line that is not blank: the separator is what it has most of; Excel's may be ``sep=;``.

    One with tabs is a TSV, whose quotes count only where all of them fit.
    """
    blank = blank_lines(path)
    with open_bytes(path) as stream:
        line = next(islice(stream, blank, None), b"")
    excel = _EXCEL.fullmatch(line)
    if not separator:
        tabs = line.count(b"\t") > line.count(b",") + line.count(b";")
        by_count = "\t" if tabs else ";" if line.count(b";") > line.count(b",") else ","
        separator = excel[1].decode() if excel else by_count
    if quoted is None:
        quoted = separator != "\t" or has_csv_quoting(path)
    kind = QuotedFile if quoted else Delimited
    table = kind(path, separator, header=header, names=names, before=blank + 1 if excel else 0)
    if excel:
        table.notes.append(f"the first line, {line.strip().decode()}, is Excel's and no row")
    if separator != ",":
        table.notes.append(f"the fields are separated by {separator!r}")
    return table


class QuotedFile(Delimited):
    """A file of rows whose fields may be quoted."""

    def _first_row(self, lines: Iterable[bytes]) -> list[str]:
        rows = iter(lines)
        line = next(rows, b"")
        check_utf8(line, self.path, 1 + self._before)
        try:
            texts = map(bytes.decode, chain([line], rows))
            return next(csv.reader(texts, delimiter=self._separator, strict=True), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"the first row is not CSV: {error}", file=self.path, row=1 + self._before) from None

    def _frames(self, blocks: Iterable[bytes], bad: BadRows, row: int) -> Iterator[pl.DataFrame]:
        rest = iter(blocks)
        for block in rest:
            if b'"' in block or block.count(b"\r") != block.count(b"\r\n"):
                yield from self._read_records(chain([block], rest), bad, row)
                return
            yield from super()._frames([block], bad, row)
            row += block.count(b"\n") - 1

    def _read_records(self, blocks: Iterable[bytes], bad: BadRows, row: int) -> Iterator[pl.DataFrame]:
        """Read rows that may be quoted."""
        csv.field_size_limit(_FIELD_LIMIT)
        records = _Records((block[len(self._empty) :] for block in blocks), self._separator)
        rows: list[int] = []
        found: list[list[str]] = []
        while (record := self._next_record(records, bad, row)) is not None:
            if record is not _BROKEN:
                rows.append(row)
                found.append(record or [""])
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
        """Return the next row, None at the end, or ``_BROKEN`` for one that has been counted as bad."""
        message = ""
        try:
            record = records.next()
            if record == [] and len(self.columns) > 1:
                bad.blank += 1
                return _BROKEN
            if record is None or len(record or [""]) == len(self.columns):
                return record
        except UnicodeDecodeError:
            check_utf8(records.content(), self.path, row)
            raise
        except csv.Error as error:
            record, message = [], str(error)
        content = records.content()
        if rb"\"" in content and (escaped := records.read_escaped(len(self.columns))):
            note = f"quotes are escaped by a backslash from row {row} on"
            self.notes = [*filter(note.__ne__, self.notes), note]
            return escaped
        if "unexpected end" in message or "field larger" in message:
            what = f"a quote is never closed: {shown(content)}"
            raise DataError(what, file=self.path, row=row, hint="close the quote, or double it")
        if "new-line" in message:
            what = "a lone carriage return outside quotes"
            bad.add(row, what, "quote the text, or keep the table as .tsv or .parquet")
        elif message:
            bad.add(row, f"text after a closing quote: {shown(content.rstrip())}")
        else:
            bad.add(row, ragged(len(record), len(self.columns), content))
        return _BROKEN


def has_csv_quoting(path: Path) -> bool:
    """Return whether a TSV has CSV's quoting, as pandas writes it: some fields are quoted, and none wrongly."""
    state = path.stat() if path.exists() else None
    return _has_csv_quoting(path, state and (state.st_mtime_ns, state.st_size))


@lru_cache
def _has_csv_quoting(path: Path, state: object) -> bool:
    if not _quotes_begin_fields(path):
        return False
    try:
        for _ in QuotedFile(path, "\t").batches([], BadRows(path, "error")):
            pass
    except DataError:
        return False
    return True


def _quotes_begin_fields(path: Path) -> bool:
    last = b"\n"
    with open_bytes(path) as stream:
        while data := stream.read(min(text.BLOCK, text.PIECE)):
            if b'"' in data and any(begin in last + data for begin in (b'\t"', b'\n"')):
                return True
            last = data[-1:]
    return False


class _Records:
    """The rows of a CSV, and the bytes of the latest one."""

    def __init__(self, blocks: Iterable[bytes], separator: str) -> None:
        self._lines = (line for block in blocks for line in io.BytesIO(block))
        self._separator = separator
        self._again: deque[bytes] = deque()
        self._start(escaped=False)

    def _start(self, *, escaped: bool) -> None:
        self._taken: list[bytes] = []
        self._escaped = escaped
        self._reader = csv.reader(self._decoded(), delimiter=self._separator, strict=True)

    def next(self) -> list[str] | None:
        self._taken = []
        return next(self._reader, None)

    def content(self) -> bytes:
        return b"".join(self._taken)

    def read_escaped(self, fields: int) -> list[str] | None:
        r"""Read the latest row again, and then all that follow, with ``\"`` for a quote; None where that fails too."""
        if self._escaped:
            return None
        taken = self._taken
        self._again.extendleft(reversed(taken))
        self._start(escaped=True)
        try:
            record = self.next()
            if record and len(record) == fields:
                return record
        except csv.Error:
            pass
        self._again.extendleft(reversed(self._taken[len(taken) :]))
        self._start(escaped=False)
        self._taken = taken
        return None

    def _decoded(self) -> Iterator[str]:
        while line := self._again.popleft() if self._again else next(self._lines, b""):
            self._taken.append(line)
            yield (_ESCAPED.sub(_doubled, line) if self._escaped else line).decode()


def _doubled(escaped: re.Match[bytes]) -> bytes:
    return b'""' if escaped[0] == rb"\"" else escaped[0]
