"""Hashes that find equal texts among millions; they are compared within a run and never leave it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def normal_keys(columns: Sequence[pa.Array | pa.ChunkedArray]) -> Keys:
    """Hash the texts of each row with their white space made equal: one space between words, none at the ends."""
    return keys([pa.array([" ".join(text.split()) for text in column.to_pylist()], pa.string()) for column in columns])


def keys(columns: Sequence[pa.StringArray]) -> Keys:
    """Hash the texts of each row, without a loop over the rows.

    A text's bytes are taken eight at a time; each eight, with their place, are mixed (SplitMix64's way) and summed,
    and the sum is mixed with the length. The fields of a row are chained.

    Args:
        columns: The text columns, of equal length and without nulls.

    Returns:
        ``uint64 [rows]``.
    """
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        total = _mix(total * _STEP + _hash(column.cast(pa.large_string())))
    return total


def _hash(texts: pa.LargeStringArray) -> Keys:
    if not len(texts):
        return np.zeros(0, np.uint64)
    _, places, data = texts.buffers()
    offsets = np.frombuffer(places, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    padded = np.zeros(offsets[-1] - offsets[0] + 8, np.uint8)
    padded[:-8] = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    eights = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))  # those that begin at each byte
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    counts = lengths // 8 + 1  # so that also an empty text has one
    ends = np.cumsum(counts)
    place = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    values = eights[np.repeat(starts, counts) + 8 * place]
    inside = (np.uint64(1) << (lengths % 8 * 8).astype(np.uint64)) - np.uint64(1)
    values[ends - 1] &= inside  # the bytes behind are the next text's
    mixed = _mix(values + (place.astype(np.uint64) + np.uint64(1)) * _STEP)
    return _mix(np.add.reduceat(mixed, ends - counts) + lengths.astype(np.uint64))


def _mix(values: Keys) -> Keys:
    """Spread each bit over all, one to one (SplitMix64's finaliser)."""
    for shift, factor in _MIX:
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))
