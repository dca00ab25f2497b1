"""Tab-separated tables and plain lines of text, split at the bytes LF and TAB with NumPy.

Rows end at LF or CRLF and at nothing else: a lone CR, U+0085 and U+2028 are text. There is no quoting. A blank line
is an empty text where the table has one column, and a ragged row where it has more.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdcli.errors import DataError
from kdcli.tables.forms import BadRows, Numbers, check_columns, check_utf8, numbered, open_bytes, shown
from kdcli.tables.spans import BEYOND, Spans, keep_memory

BLOCK = 1 << 19
"""Bytes read at once: with what is found out about them, they stay in the processor's cache."""

_TAB, _LF, _CR = b"\t\n\r"
_LONGEST = 2**31 - 2


class Lines:
    """A file of lines: one text each, or fields with tabs between them.

    Args:
        path: The file.
        tabs: Whether a tab ends a field, or is text.
        header: Whether the first line names the columns.
        names: The columns' names where there is no header.

    Raises:
        DataError: The file is missing, empty or not UTF-8, or the names do not fit it.
    """

    def __init__(self, path: Path, *, tabs: bool, header: bool, names: Sequence[str] | None) -> None:
        self.path = path
        self.tabs = tabs
        self.header = header
        with open_bytes(path) as stream:
            line = stream.readline()
        check_utf8(line, path, 1)
        text = line.decode().removesuffix("\r\n").removesuffix("\n")
        first = tuple(text.split("\t")) if tabs else (text,)
        self.columns = first if header else tuple(names or numbered(len(first)))
        if len(self.columns) != len(first):
            raise DataError(f"{len(first)} fields where {len(self.columns)} are expected", file=path, row=1)
        check_columns(self.columns, path)
        self.schema = pa.schema([(name, pa.string()) for name in self.columns])

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
        """Give the named columns, a block of the file at a time.

        Raises:
            DataError: A row is ragged (and not to be skipped) or not UTF-8.
        """
        for rows, spans in self.spans(columns, bad):
            yield (
                rows,
                pa.RecordBatch.from_arrays([spans.texts(column) for column in range(len(columns))], list(columns)),
            )

    def spans(self, columns: Sequence[str], bad: BadRows) -> Iterator[tuple[Numbers, Spans]]:
        """Give the named columns where they lie in a block of the file, which the next block overwrites.

        Raises:
            DataError: As ``batches``.
        """
        wanted = np.array([self.columns.index(name) for name in columns], np.int64)
        keep_memory()
        row = 1
        with open_bytes(self.path) as stream:
            if self.header:
                stream.readline()
                row = 2
            for block, ended in _blocks(stream, self.path):
                data = block[:-BEYOND]
                check_utf8(data, self.path, row)
                cells = _split(data, ended, self.tabs)
                good = cells.per_row == len(self.columns)
                if not good.all():
                    self._refuse(data, cells, row, bad)
                places = cells.firsts[good] + wanted[:, None]
                yield row + np.flatnonzero(good), Spans(block, cells.begins[places], cells.ends[places])
                row += len(good)

    def _refuse(self, data: NDArray[np.uint8], cells: _Cells, row: int, bad: BadRows) -> None:
        ragged = np.flatnonzero(cells.per_row != len(self.columns))
        first = int(cells.firsts[ragged[0]])
        fields = int(cells.per_row[ragged[0]])
        content = bytes(data[cells.begins[first] : cells.ends[first + fields - 1]])
        what = f"{fields} field{'s' * (fields > 1)} where {len(self.columns)} are expected: {shown(content)}"
        bad.add(row + int(ragged[0]), what if content else "a blank line", len(ragged))


@dataclass(frozen=True)
class _Cells:
    """The cells of a block, row by row.

    Attributes:
        begins: Where each begins, ``int64 [cells]``.
        ends: Where it ends, ``int64 [cells]``.
        firsts: Which cell is the first of each row, ``int64 [rows]``.
        per_row: The number of cells in each row, ``int64 [rows]``.
    """

    begins: Numbers
    ends: Numbers
    firsts: Numbers
    per_row: Numbers


def _blocks(stream: io.BufferedReader | gzip.GzipFile, path: Path) -> Iterator[tuple[NDArray[np.uint8], bool]]:
    """Cut a stream into blocks of whole lines, with ``BEYOND`` bytes more; one overwrites the other.

    The flag tells whether the last line had its line end in the file.
    """
    store = bytearray(BLOCK + BEYOND)
    kept = 0
    while got := stream.readinto(memoryview(store)[kept:-BEYOND]):
        end = kept + got
        cut = store.rfind(b"\n", kept, end) + 1
        if cut:
            yield np.frombuffer(store, np.uint8, cut + BEYOND), True
        kept = end - cut
        store[:kept] = store[cut:end]
        if kept + BEYOND >= len(store):
            if kept > _LONGEST // 2:
                raise DataError("a row of more than 1 GB", file=path)
            store = store[:kept] + bytes(kept + BEYOND)
    if kept:
        store[kept : kept + 1] = b"\n"
        yield np.frombuffer(store, np.uint8, kept + 1 + BEYOND), False


def _split(data: NDArray[np.uint8], ended: bool, tabs: bool) -> _Cells:
    """Find the cells of a block that ends in LF."""
    # One subtraction and one comparison find both separators: below TAB the difference wraps around.
    cuts = np.flatnonzero(data - np.uint8(_TAB) < _LF - _TAB + 1 if tabs else data == _LF)
    last = np.flatnonzero(data.take(cuts) == _LF)
    begins, firsts = np.zeros_like(cuts), np.zeros_like(last)
    np.add(cuts[:-1], 1, out=begins[1:])
    np.add(last[:-1], 1, out=firsts[1:])
    carriage = data[cuts[last] - 1] == _CR
    carriage[-1] &= ended
    ends = cuts
    ends[last] -= carriage
    return _Cells(begins, ends, firsts, last - firsts + 1)
