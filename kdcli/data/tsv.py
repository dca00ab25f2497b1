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

from kdcli.data.forms import BLOCK, BadRows, Numbers, check_columns, check_utf8, numbered, open_bytes, shown
from kdcli.errors import DataError

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
        wanted = [self.columns.index(name) for name in columns]
        row = 1
        with open_bytes(self.path) as stream:
            if self.header:
                stream.readline()
                row = 2
            for block, ended in _blocks(stream, self.path):
                check_utf8(block, self.path, row)
                cells = _split(block, ended, self.tabs)
                good = cells.per_row == len(self.columns)
                if not good.all():
                    self._refuse(block, cells, row, bad)
                begins = cells.begins[good]
                texts = [cells.texts.take(pa.array(2 * (begins + column))) for column in wanted]
                yield row + np.flatnonzero(good), pa.RecordBatch.from_arrays(texts, list(columns))
                row += len(good)

    def _refuse(self, block: bytes, cells: _Cells, row: int, bad: BadRows) -> None:
        ragged = np.flatnonzero(cells.per_row != len(self.columns))
        content = block.split(b"\n", int(ragged[0]) + 1)[ragged[0]].removesuffix(b"\r")
        fields = int(cells.per_row[ragged[0]])
        what = f"{fields} field{'s' * (fields > 1)} where {len(self.columns)} are expected: {shown(content)}"
        bad.add(row + int(ragged[0]), what if content else "a blank line", len(ragged))


@dataclass(frozen=True)
class _Cells:
    """The cells of a block, row by row.

    Attributes:
        texts: The cells at even places; at odd places the separators that end them.
        begins: Which cell is the first of each row, ``int64 [rows]``.
        per_row: The number of cells in each row, ``int64 [rows]``.
    """

    texts: pa.StringArray
    begins: Numbers
    per_row: Numbers


def _blocks(stream: io.BufferedReader | gzip.GzipFile, path: Path) -> Iterator[tuple[bytes, bool]]:
    """Cut a stream into blocks of whole lines; the flag tells whether the last line had its line end in the file."""
    kept: list[bytes | memoryview] = []
    while chunk := stream.read(BLOCK):
        cut = chunk.rfind(b"\n") + 1
        if sum(map(len, kept)) + len(chunk) > _LONGEST:
            raise DataError("a row of more than 2 GB", file=path)
        if cut:
            yield b"".join([*kept, memoryview(chunk)[:cut]]), True
            kept = [chunk[cut:]]
        else:
            kept.append(chunk)
    if any(kept):
        yield b"".join([*kept, b"\n"]), False


def _split(block: bytes, ended: bool, tabs: bool) -> _Cells:
    """Find the cells of a block that ends in LF, without copying their bytes."""
    data = np.frombuffer(block, np.uint8)
    # One subtraction and one comparison find both separators: below TAB the difference wraps around.
    cuts = np.flatnonzero(data - np.uint8(_TAB) < _LF - _TAB + 1 if tabs else data == _LF)
    last = np.flatnonzero(data[cuts] == _LF)
    ends = cuts.astype(np.int32)
    carriage = data[cuts[last] - 1] == _CR
    carriage[-1] &= ended
    ends[last] -= carriage
    offsets = np.zeros(2 * len(cuts) + 1, np.int32)
    offsets[1::2] = ends
    offsets[2::2] = cuts + 1
    texts = pa.StringArray.from_buffers(2 * len(cuts), pa.py_buffer(offsets), pa.py_buffer(block))
    per_row = np.diff(last, prepend=-1)
    return _Cells(texts, last - per_row + 1, per_row)
