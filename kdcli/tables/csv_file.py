"""CSV with RFC 4180's quoting.

Blocks without a quote are parsed like other rows; from the first quote on, Python's ``csv`` reads them, because Polars
reads short rows and quotes escaped by a backslash wrong without an error; here both are errors, or ``escaped`` is said.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias

import polars as pl

from kdcli import tables
from kdcli.errors import DataError
from kdcli.tables import text

Quoted: TypeAlias = bool | Literal["escaped"]
_RECORDS = 16_384
_FIELD_LIMIT = 1 << 26
_ESCAPED = re.compile(r'(?<!\\)((?:\\\\)*)\\"')  # a quote behind an odd number of backslashes
_EXCEL = re.compile(rb"sep=([\x01-\x7f])\r?\n")


def open_csv(path: Path, *, header: bool, quoted: Quoted | None, separator: str | None) -> text.Delimited:
    """Open a CSV by its first line: the separator is what it has most of, or what Excel's ``sep=;`` says.

    One with tabs is a TSV, whose quotes count only where all of them fit.
    """
    with text.open_bytes(path) as stream:
        line = stream.readline()
    excel = _EXCEL.fullmatch(line)
    if not separator:
        tabs = line.count(b"\t") > line.count(b",") + line.count(b";")
        by_count = "\t" if tabs else ";" if line.count(b";") > line.count(b",") else ","
        separator = excel[1].decode() if excel else by_count
    if quoted is None:
        quoted = separator != "\t" or has_csv_quoting(path)
    table = KINDS[quoted](path, separator, header=header, before=int(bool(excel)))
    if separator != ",":
        table.notes.append(f"the fields are separated by {separator!r}")
    return table


class QuotedFile(text.Delimited):
    """A file of rows whose fields may be quoted, and the quotes in them doubled."""

    def _first_row(self, lines: Iterable[bytes]) -> list[str]:
        rows = iter(lines)
        line = next(rows, b"")
        tables.check_utf8(line, self.path, 1 + self._before)
        try:
            texts = map(bytes.decode, chain([line], rows))
            return next(csv.reader(texts, delimiter=self._separator, strict=True), None) or [""]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"the first row is not CSV: {error}", file=self.path, row=1 + self._before) from None

    def _frames(self, blocks: Iterable[bytes], bad: text.BadRows, row: int) -> Iterator[pl.DataFrame]:
        rest = iter(blocks)
        for block in rest:
            if b'"' in block or block.count(b"\r") != block.count(b"\r\n"):
                yield from self._read_records(chain([block], rest), bad, row)
                return
            yield from super()._frames([block], bad, row)
            row += block.count(b"\n") - 1

    def _read_records(self, blocks: Iterable[bytes], bad: text.BadRows, row: int) -> Iterator[pl.DataFrame]:
        """Read rows that may be quoted."""
        csv.field_size_limit(_FIELD_LIMIT)
        content: list[bytes] = []  # the lines of the latest row
        reader = csv.reader(self._lines(blocks, content), delimiter=self._separator, strict=True)
        rows: list[int] = []
        found: list[list[str]] = []
        while True:
            content.clear()
            try:
                record = next(reader, None)
            except UnicodeDecodeError:
                tables.check_utf8(b"".join(content), self.path, row)
                raise
            except csv.Error as error:
                self._refuse(str(error), b"".join(content), bad, row)
            else:
                if record is not None and len(record or [""]) == len(self.columns):
                    rows.append(row)
                    found.append(record or [""])
                elif record == []:
                    bad.blank += 1
                elif record is not None:
                    bad.add(row, text.ragged(len(record), len(self.columns), b"".join(content)))
                if rows and (record is None or len(rows) == _RECORDS):
                    columns = zip(self.columns, zip(*found, strict=True), strict=True)
                    frame = pl.DataFrame([pl.Series(name, texts, pl.String) for name, texts in columns])
                    yield text.with_row_numbers(frame, rows)
                    rows, found = [], []
                if record is None:
                    return
            row += 1

    def _lines(self, blocks: Iterable[bytes], content: list[bytes]) -> Iterator[str]:
        """Yield lines; note each in ``content`` as it is in the file."""
        for line in (line for block in blocks for line in io.BytesIO(block[len(self._empty) :])):
            content.append(line)
            yield line.decode()

    def _refuse(self, message: str, content: bytes, bad: text.BadRows, row: int) -> None:
        if "unexpected end" in message or "field larger" in message:
            what = f"a quote is never closed: {text.shown(content)}"
            raise DataError(what, file=self.path, row=row, hint="close the quote, or double it")
        if "new-line" in message:
            what = "a lone carriage return outside quotes"
            bad.add(row, what, "quote the text, or keep the table as .tsv or .parquet")
        else:
            hint = 'write a quote inside a field twice; task.quoting=escaped reads \\", task.bad_rows=skip skips it'
            bad.add(row, f"text after a closing quote: {text.shown(content.rstrip())}", hint)


class EscapedFile(QuotedFile):
    """One whose quotes inside a field are escaped by a backslash, as Spark writes them."""

    def _lines(self, blocks: Iterable[bytes], content: list[bytes]) -> Iterator[str]:
        for line in super()._lines(blocks, content):
            yield _ESCAPED.sub(r'\1""', line)


KINDS: dict[Quoted, type[text.Delimited]] = {False: text.Delimited, True: QuotedFile, "escaped": EscapedFile}


def has_csv_quoting(path: Path) -> bool:
    """Return whether a TSV has CSV's quoting, as pandas writes it: some fields are quoted, and none wrongly."""
    state = path.stat() if path.exists() else None
    return _has_csv_quoting(path, state and (state.st_mtime_ns, state.st_size))


@lru_cache
def _has_csv_quoting(path: Path, state: object) -> bool:
    """Look into a file; ``state`` is what changes when it is replaced by another one of its name."""
    if not _begins_quoted(path):
        return False
    try:
        for _ in QuotedFile(path, "\t", header=False).batches([], text.BadRows(path, "error")):
            pass
    except DataError:
        return False
    return True


def _begins_quoted(path: Path) -> bool:
    """Return whether some field of a TSV begins with a quote."""
    last = b"\n"
    with text.open_bytes(path) as stream:
        while data := stream.read(min(tables.BLOCK, text.PIECE)):
            if b'"' in data and any(one in last + data for one in (b'\t"', b'\n"')):
                return True
            last = data[-1:]
    return False
