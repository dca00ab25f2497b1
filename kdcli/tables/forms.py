"""The forms of a table file, told by its suffix, and what all their readers share."""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdcli.errors import DataError

Form = Literal["tsv", "csv", "jsonl", "parquet", "txt"]
BadRowsMode = Literal["error", "skip"]
Numbers = NDArray[np.int64]
"""The numbers of some rows in their file, ``int64 [rows]``."""

BLOCK = 1 << 20
"""Bytes read at once: larger blocks fall out of the processor's cache and are slower."""

BOM = b"\xef\xbb\xbf"
_SHOWN = 80


class Source(Protocol):
    """A table file of one form.

    Attributes:
        columns: The names of its columns, in order.
        schema: Their names and types.
    """

    columns: tuple[str, ...]
    schema: pa.Schema

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
        """Give the named columns in batches of any size, each with the numbers of its rows."""


class BadRows:
    """What becomes of rows that cannot be read: an error at the first, or a count.

    Attributes:
        count: How many there were.
        first: Where the first was, and what was wrong with it.
    """

    def __init__(self, path: Path, mode: BadRowsMode) -> None:
        self.path = path
        self.mode = mode
        self.count = 0
        self.first = ""

    def add(self, row: int, what: str, count: int = 1) -> None:
        """Count bad rows.

        Args:
            row: The number of the first of them.
            what: What is wrong with it.
            count: How many there are.

        Raises:
            DataError: Bad rows are not to be skipped.
        """
        if self.mode == "error":
            raise DataError(what, file=self.path, row=row, hint="mend the row, or skip such rows: task.bad_rows=skip")
        self.first = self.first or f"row {row}: {what}"
        self.count += count


def form_of(path: Path) -> Form:
    """Tell the form of a table from the suffix of its name, a further ``.gz`` aside.

    Raises:
        DataError: The suffix is none of a table.
    """
    suffix = Path(path.stem if is_gzip(path) else path.name).suffix.lower().removeprefix(".")
    if suffix not in get_args(Form):
        known = ", ".join(f".{form}" for form in get_args(Form))
        raise DataError("the file name tells no form of a table", file=path, hint=f"known: {known}, each also as .gz")
    return cast(Form, suffix)


def is_gzip(path: Path) -> bool:
    """Tell whether the name ends in ``.gz``."""
    return path.suffix.lower() == ".gz"


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """Open a file for reading, unzipped, behind its byte order mark.

    Raises:
        DataError: It is missing, empty, a folder, or its compressed data are damaged; also while it is read.
    """
    try:
        with gzip.GzipFile(path) if is_gzip(path) else path.open("rb") as stream:
            if stream.read(len(BOM)) != BOM:
                stream.seek(0)
            if not stream.peek(1):
                raise DataError("the file is empty", file=path)
            yield stream
    except FileNotFoundError as error:
        raise DataError("there is no such file", file=path) from error
    except IsADirectoryError as error:
        raise DataError("this is a folder, not a table", file=path) from error
    except PermissionError as error:
        raise DataError("the file may not be read", file=path) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"the compressed file is cut short or damaged: {error}", file=path) from error


@contextmanager
def unzipped(path: Path) -> Iterator[Path]:
    """Give a file that can be read at any place: the file itself, or a temporary one that it is unzipped into.

    Raises:
        DataError: As ``open_bytes``.
    """
    with open_bytes(path) as stream:
        if not isinstance(stream, gzip.GzipFile):
            yield path
            return
        with tempfile.NamedTemporaryFile() as plain:
            shutil.copyfileobj(stream, plain, BLOCK)
            plain.flush()
            yield Path(plain.name)


def check_utf8(data: bytes | NDArray[np.uint8], path: Path, row: int) -> None:
    """Make sure that some whole lines are UTF-8; ``row`` is the number of the first.

    Raises:
        DataError: Names the row and the byte that are not.
    """
    ends = np.array([0, len(data)], np.int32)
    try:
        pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        data = bytes(data)
        begin = _first_wrong_byte(data)
        line = data.rfind(b"\n", 0, begin) + 1
        raise _not_utf8(data[line:], begin - line, path, row + data.count(b"\n", 0, begin)) from None


def check_columns_utf8(batch: pa.RecordBatch, path: Path, rows: Numbers) -> None:
    """Make sure that the texts of a batch are UTF-8; ``rows`` holds its row numbers.

    Raises:
        DataError: Names the row and the byte of the text that are not.
    """
    for column in batch.columns:
        if not pa.types.is_string(column.type):
            continue
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            for row, value in zip(rows.tolist(), column.cast(pa.binary()).to_pylist(), strict=True):
                if value is not None and (begin := _first_wrong_byte(value)) < len(value):
                    raise _not_utf8(value, begin, path, row) from None
            raise


def check_texts(texts: pa.Array, column: str, path: Path, rows: Numbers) -> None:
    """Make sure that a column holds a text in each of its rows, whose numbers are ``rows``.

    Raises:
        DataError: It holds something else, or a row holds nothing.
    """
    if not pa.types.is_string(texts.type):
        raise DataError(f"the column holds {texts.type}, not text", file=path, key=column)
    if texts.null_count:
        row = int(rows[texts.is_null().to_numpy(zero_copy_only=False).argmax()])
        raise DataError("a row has no text (an empty one is a text)", file=path, row=row, key=column)


def check_columns(columns: Sequence[str], path: Path) -> None:
    """Make sure that no two columns have the same name.

    Raises:
        DataError: Names the column.
    """
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


def _first_wrong_byte(data: bytes) -> int:
    """Return where the first byte is that is not UTF-8; the length if all are."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return len(data)


def _not_utf8(line: bytes, begin: int, path: Path, row: int) -> DataError:
    what = f"not UTF-8: byte {begin + 1} of the row is 0x{line[begin]:02x}"
    return DataError(what, file=path, row=row, hint="convert the file: iconv -f ENCODING -t UTF-8 FILE > NEW")
