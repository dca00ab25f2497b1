"""Text files: opened and checked, and read as rows with a separator between the fields, or as plain lines.

Rows end at LF or CRLF and at nothing else: a lone CR, U+0085, U+2028 and NUL are text. There is no quoting (CSV's is in
``csv_file``). Polars parses blocks of whole lines; it fills rows that are too short in silence, and names neither row
nor content where it fails: separators are counted, and a second, slow look at the block finds what is wrong.
"""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

import numpy as np
import polars as pl

from kdcli.errors import DataError
from kdcli.tables import SEPARATOR, check_utf8, whole_lines

Form = Literal["tsv", "csv", "jsonl", "parquet", "txt"]
BadRowsMode = Literal["error", "skip"]

ROW_NUMBER = "__row__"
"""The column that holds each row's number in its file, ``Int64``, counted from 1 with a header as row 1."""

PIECE = 1 << 16  # bytes that are looked at together: so few need no memory that the system has to clear

LABEL = "__label__"  # what fastText puts before each label of a line
_BOM = b"\xef\xbb\xbf"
_SHOWN = 80


@dataclass
class BadRows:
    """What happens to rows that cannot be read: the first is an error, or all are counted; blank lines are no rows."""

    path: Path
    mode: BadRowsMode
    count: int = 0
    blank: int = 0
    first: str = ""

    def add(self, row: int, what: str, hint: str = "correct the row, or skip such rows: task.bad_rows=skip") -> None:
        """Count a bad row, or raise a ``DataError``."""
        if self.mode == "error":
            raise DataError(what, file=self.path, row=row, hint=hint)
        self.first = self.first or f"row {row}: {what}"
        self.count += 1


class TableSource(Protocol):
    """A table file of one form."""

    schema: pl.Schema
    notes: list[str]  # peculiarities of the file, for the user

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield frames of any size that hold the columns and ``ROW_NUMBER``."""


def form_of(path: Path) -> Form:
    """Return the form of a table by the suffix of its name, ``.gz`` aside; another suffix is a ``DataError``."""
    suffix = Path(path.stem if is_gzip(path) else path.name).suffix.lower().removeprefix(".")
    if suffix not in get_args(Form):
        known = ", ".join(f".{form}" for form in get_args(Form))
        raise DataError("the file name has no suffix of a table", file=path, hint=f"use {known}, also as .gz")
    if suffix == "parquet" and is_gzip(path):
        what = "Parquet is compressed by itself, and not by gzip"
        raise DataError(what, file=path, hint="decompress it: gunzip FILE")
    return cast(Form, suffix)


def is_gzip(path: Path) -> bool:
    """Return whether the name ends in ``.gz``."""
    return path.suffix.lower() == ".gz"


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """Open a file for reading, decompressed, after its byte order mark.

    One that is missing, empty, unreadable, a folder or (also while it is read) damaged is a ``DataError``.
    """
    try:
        with gzip.GzipFile(path) if is_gzip(path) else path.open("rb") as stream:
            if stream.read(len(_BOM)) != _BOM:
                stream.seek(0)
            if not stream.peek(1):
                raise DataError("the file is empty", file=path)
            yield stream
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"the file cannot be read: {str(error.strerror).lower()}", file=path) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"the compressed file is truncated or damaged: {error}", file=path) from error


def check_columns(wanted: Iterable[str], there: Iterable[str], path: Path) -> None:
    """Check that a table has some columns; a ``DataError`` names the first that it lacks."""
    columns = list(there)
    for name in wanted:
        if name not in columns:
            hint = f"the columns are {', '.join(one[:40] for one in columns)}"
            raise DataError(f"there is no column {name!r}", file=path, key=name, hint=hint)


def as_texts(frame: pl.DataFrame, columns: Sequence[str], path: Path) -> pl.DataFrame:
    """Return a frame whose columns of texts are strings; bytes are UTF-8, as in Parquet's JSON.

    A column of another type is a ``DataError``, and so is a null, whose row it names.
    """
    for name in columns:
        texts = frame[name]
        if texts.dtype == pl.Binary:
            try:
                texts = texts.cast(pl.String)
            except pl.exceptions.ComputeError:
                for row, data in zip(frame[ROW_NUMBER], texts, strict=True):
                    check_utf8(data or b"", path, row)
                raise
            frame = frame.with_columns(texts)
        elif texts.dtype != pl.String:
            raise DataError(f"the column holds {texts.dtype}, not text", file=path, key=name)
        if texts.null_count():
            row = int(frame[ROW_NUMBER].filter(texts.is_null())[0])
            raise DataError("the row has no text (an empty one would be a text)", file=path, row=row, key=name)
    return frame


def shown(content: bytes | str) -> str:
    """Quote the content of a row for a message, cut to its first characters."""
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def with_row_numbers(frame: pl.DataFrame, rows: Sequence[int] | pl.Series) -> pl.DataFrame:
    """Add the numbers of the rows as the last column."""
    return frame.insert_column(frame.width, pl.Series(ROW_NUMBER, rows, dtype=pl.Int64))


class Delimited:
    """A file of rows, or of one text a line, ``sentence``, without a separator; lines ``before`` are no rows."""

    def __init__(self, path: Path, separator: str, *, header: bool = True, before: int = 0) -> None:
        self.path = path
        self.notes: list[str] = []
        self._separator = separator
        self._header = header
        self._before = before
        with open_bytes(path) as stream:
            self.first = first = self._first_row(islice(stream, before, None))
        self.columns = tuple(first) if header else tuple(f"c{index}" for index in range(len(first)))
        if not separator:
            self.columns = ("sentence",)
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise DataError(f"two columns have the name {name!r}", file=path, row=1, key=name)
        self.schema = pl.Schema(dict.fromkeys(self.columns, pl.String()))
        # Before each block: Polars takes some first bytes for a byte order mark or for compressed data.
        self._empty = separator.encode() * (len(self.columns) - 1) + b"\n"

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns, a block of the file at a time."""
        with open_bytes(self.path) as stream:
            for _ in range(self._before):
                stream.readline()
            if self._header:
                self._first_row(stream)
            blocks = whole_lines(stream.read, self._empty)
            for frame in self._frames(blocks, bad, 1 + self._before + self._header):
                yield frame[[*columns, ROW_NUMBER]]

    def _first_row(self, lines: Iterable[bytes]) -> list[str]:
        line = next(iter(lines), b"")
        check_utf8(line, self.path, 1 + self._before)
        text = line.decode().removesuffix("\n").removesuffix("\r")
        return text.split(self._separator) if self._separator else [text]

    def _frames(self, blocks: Iterable[bytes], bad: BadRows, row: int) -> Iterator[pl.DataFrame]:
        """Read blocks whose first row has the number ``row``."""
        for block in blocks:
            frame = self._parse(block)
            if frame is None:
                yield self._read_slowly(block, bad, row)
                row += block.count(b"\n") - 1
            else:
                yield with_row_numbers(frame, pl.int_range(row, row + len(frame), eager=True))
                row += len(frame)

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
            ).rechunk()
        except pl.exceptions.PolarsError:
            return None
        # No row is too long, so that none is too short if the sum is right.
        found = _count(block, ord(separator))
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
            elif line in (b"", b"\r"):
                bad.blank += 1
            else:
                bad.add(number, ragged(fields, len(self.columns), line.removesuffix(b"\r")))
        frame = self._parse(b"".join(lines))
        if frame is None or len(frame) != len(rows):
            raise DataError("Polars cannot read these rows", file=self.path, row=row)
        return with_row_numbers(frame, rows)


class LabelledLines:
    """Lines of fastText, ``__label__a __label__b text``: the columns ``sentence`` and ``label``, of several ``a|b``."""

    def __init__(self, lines: Delimited) -> None:
        self._lines, self._text = lines, lines.columns[0]
        self.schema = pl.Schema({self._text: pl.String(), "label": pl.String()})
        self.notes = ["the lines begin with labels, as fastText has them"]

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns; the label of a line without one is empty, and a label without a name is a bad row."""
        for frame in self._lines.batches([self._text], bad):
            parts = pl.col(self._text).str.extract_groups(r"^((?:__label__\S+(?:\s+|$))*)(.*)$").struct
            labels = parts.field("1").str.strip_chars_end().str.strip_prefix(LABEL)
            labels = labels.str.replace_all(r"\s+__label__", SEPARATOR)
            found = frame.select(parts.field("2").alias(self._text), labels.alias("label"), ROW_NUMBER)
            wrong = found[self._text].str.starts_with(LABEL)
            for row in found.filter(wrong)[ROW_NUMBER]:
                bad.add(int(row), "a label without a name")
            yield found.filter(~wrong).select(*columns, ROW_NUMBER)


def _count(data: bytes, byte: int) -> int:
    pieces = np.frombuffer(data, np.uint8)
    return sum(int(np.count_nonzero(pieces[begin : begin + PIECE] == byte)) for begin in range(0, len(data), PIECE))


def ragged(fields: int, expected: int, content: bytes) -> str:
    """Say what is wrong with a row of another number of fields."""
    return f"{fields} field{'s' * (fields != 1)} instead of {expected}: {shown(content)}"
