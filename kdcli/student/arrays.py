"""Arrays on disk that grow while they are written, and are memory-mapped when they are read."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray


class ArrayWriter:
    """A ``.npy`` file written piece by piece; a context manager.

    Args:
        path: The file.
        dtype: The type of its elements.
        width: The number of columns, or None for an array of one dimension.
    """

    def __init__(self, path: Path, dtype: DTypeLike, width: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.rows = 0
        self._width = () if width is None else (width,)
        self._file = path.open("wb")
        self._write_header()

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._write_header()

    def write(self, piece: NDArray[Any]) -> None:
        """Add rows."""
        self._file.write(np.ascontiguousarray(piece, self.dtype).data)
        self.rows += len(piece)

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the first dimension to grow, so the second header fits over the first.
        shape = (self.rows, *self._width)
        header = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)


def open_array(path: Path) -> NDArray[Any]:
    """Map an array into memory, for reading."""
    # An empty file cannot be mapped.
    array: NDArray[Any] = np.load(path, mmap_mode="r" if path.stat().st_size > _HEADER else None, allow_pickle=False)
    return array


_HEADER = 128
