"""The forms of a table file, and what all their readers share."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

import polars as pl

from kdcli.errors import DataError

Form = Literal["tsv", "csv", "jsonl", "parquet", "txt"]
BadRowsMode = Literal["error", "skip"]

ROW_NUMBER = "__row__"
"""The column that holds each row's number in its file, ``Int64``, counted from 1 with a header as row 1."""

BLOCK = 1 << 22
"""Bytes of text that are read and parsed at once."""

_BOM = b"\xef\xbb\xbf"
_SHOWN = 80


class Source(Protocol):
    """A table file of one form; ``notes`` are its peculiarities, for the user."""

    schema: pl.Schema
    notes: list[str]

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield frames of any size that hold the columns and ``ROW_NUMBER``."""


class BadRows:
    """What happens to rows that cannot be read: the first is an error, or all are counted."""

    def __init__(self, path: Path, mode: BadRowsMode) -> None:
        self.path = path
        self.mode = mode
        self.count = 0
        self.first = ""

    def add(self, row: int, what: str, hint: str = "correct the row, or skip such rows: task.bad_rows=skip") -> None:
        """Count a bad row, or raise a ``DataError``."""
        if self.mode == "error":
            raise DataError(what, file=self.path, row=row, hint=hint)
        self.first = self.first or f"row {row}: {what}"
        self.count += 1


def form_of(path: Path) -> Form:
    """Return the form of a table by the suffix of its name, ``.gz`` aside.

    Raises:
        DataError: No form has this suffix.
    """
    suffix = Path(path.stem if is_gzip(path) else path.name).suffix.lower().removeprefix(".")
    if suffix not in get_args(Form):
        known = ", ".join(f".{form}" for form in get_args(Form))
        raise DataError("the file name has no suffix of a table", file=path, hint=f"use {known}, each also as .gz")
    return cast(Form, suffix)


def is_gzip(path: Path) -> bool:
    """Return whether the name ends in ``.gz``."""
    return path.suffix.lower() == ".gz"


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """Open a file for reading, decompressed, after its byte order mark.

    Raises:
        DataError: The file is missing, empty, unreadable, a folder, or damaged; also while it is read.
    """
    try:
        with gzip.GzipFile(path) if is_gzip(path) else path.open("rb") as stream:
            if stream.read(len(_BOM)) != _BOM:
                stream.seek(0)
            if not stream.peek(1):
                raise DataError("the file is empty", file=path)
            yield stream
    except FileNotFoundError as error:
        raise DataError("the file does not exist", file=path) from error
    except IsADirectoryError as error:
        raise DataError("this is a folder, not a table", file=path) from error
    except PermissionError as error:
        raise DataError("no permission to read the file", file=path) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"the compressed file is truncated or damaged: {error}", file=path) from error


def check_utf8(data: bytes, path: Path, row: int) -> None:
    """Check that whole lines are UTF-8; ``row`` is the number of the first."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.start - data.rfind(b"\n", 0, error.start)
        row += data.count(b"\n", 0, error.start)
        what = f"not UTF-8: byte {byte} of the row is 0x{data[error.start]:02x}"
        hint = "convert the file: iconv -f ENCODING -t UTF-8 FILE > NEW"
        raise DataError(what, file=path, row=row, hint=hint) from None


def check_texts(frame: pl.DataFrame, columns: Sequence[str], path: Path) -> None:
    """Check that each of the columns holds a text in every row.

    Raises:
        DataError: A column holds another type, or a null; names the row.
    """
    for name in columns:
        texts = frame[name]
        if texts.dtype != pl.String:
            raise DataError(f"the column holds {texts.dtype}, not text", file=path, key=name)
        if texts.null_count():
            row = int(frame[ROW_NUMBER].filter(texts.is_null())[0])
            raise DataError("the row has no text (an empty one would be a text)", file=path, row=row, key=name)


def check_columns(columns: Sequence[str], path: Path) -> None:
    """Check that no two columns have the same name."""
    for name in columns:
        if columns.count(name) > 1:
            raise DataError(f"two columns have the name {name!r}", file=path, row=1, key=name)


def numbered(count: int) -> tuple[str, ...]:
    """Name the columns of a table that has no header."""
    return tuple(f"c{index}" for index in range(count))


def shown(content: bytes | str) -> str:
    """Quote the content of a row for a message, cut to its first characters."""
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def with_row_numbers(frame: pl.DataFrame, rows: Sequence[int] | pl.Series) -> pl.DataFrame:
    """Add the numbers of the rows as the last column."""
    return frame.with_columns(pl.Series(ROW_NUMBER, rows, dtype=pl.Int64))
