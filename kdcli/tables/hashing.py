"""Hashes of rows: what joins a text to its logits, and finds duplicates over a whole set."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_ROWS = 65_536


def row_hashes(columns: Sequence[pa.Array | pa.ChunkedArray]) -> NDArray[np.uint64]:
    """Hash the texts of each row as they are written.

    A hash is the 8 bytes (little endian) of BLAKE2b with a digest of 8 over, for each field, the length of its UTF-8
    bytes as a 64-bit little-endian number and then the bytes. With the lengths, ``("a", "bc")`` and ``("ab", "c")``
    differ.

    Args:
        columns: The text columns, of equal length and without nulls.

    Returns:
        ``uint64 [rows]``.

    Raises:
        ValueError: A text is null.
    """
    if any(column.null_count for column in columns):
        raise ValueError("a null has no hash")
    table = pa.table(list(columns), names=[str(index) for index in range(len(columns))])
    digests = [_hash(batch.columns) for batch in table.to_batches(_ROWS)]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64, copy=False)


def _hash(columns: Sequence[pa.Array]) -> bytes:
    """Lay all rows' messages out one behind the other, then hash each."""
    fields: list[pa.Array] = []
    for column in columns:
        text = column.cast(pa.large_binary())
        lengths = pc.binary_length(text).to_numpy().astype("<u8")
        raw = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(text), [None, pa.py_buffer(lengths)])
        fields += [raw.cast(pa.large_binary()), text]
    messages = pc.binary_join_element_wise(*fields, pa.scalar(b"", pa.large_binary()))
    data = memoryview(messages.buffers()[2] or b"")
    ends = np.frombuffer(messages.buffers()[1], np.int64, len(messages) + 1).tolist()
    return b"".join([blake2b(data[begin:end], digest_size=8).digest() for begin, end in pairwise(ends)])
