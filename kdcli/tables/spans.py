"""Texts where they lie in a block of bytes: counted and hashed all at once with NumPy, none of them made an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Places = NDArray[np.int64]
Hashes = NDArray[np.uint64]

BEYOND = 16
"""Bytes that can be read behind a block, whatever they are."""

_Number = TypeVar("_Number", np.int64, np.uint64)
_LANE = 8
_U = np.uint64
_KEEP = np.array([(1 << 8 * length) - 1 for length in range(_LANE + 1)], _U)
"""What keeps the first bytes of a lane, by their number."""
_STEP = 0x9E3779B97F4A7C15
_SCRAMBLE = _U(0xBF58476D1CE4E5B9)


@dataclass(frozen=True)
class Spans:
    """The texts of some columns, as places in a block of bytes.

    Attributes:
        data: The block, ``uint8 [bytes + BEYOND]``.
        begins: Where each text begins, ``int64 [columns, rows]``, ascending in a column.
        ends: Where it ends, ``int64 [columns, rows]``.
    """

    data: NDArray[np.uint8]
    begins: Places
    ends: Places

    @classmethod
    def of(cls, columns: Sequence[pa.StringArray]) -> Spans:
        """Lay columns of as many texts each one behind the other; none may be null."""
        blocks, begins, ends, size = [], [], [], 0
        for column in columns:
            offsets, data = (column.buffers()[1], column.buffers()[2])
            places = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
            blocks.append(np.frombuffer(data or b"", np.uint8)[places[0] : places[-1]])
            begins.append(places[:-1] - places[0] + size)
            ends.append(places[1:] - places[0] + size)
            size += len(blocks[-1])
        return cls(np.concatenate([*blocks, np.zeros(BEYOND, np.uint8)]), np.array(begins), np.array(ends))

    def copy(self) -> Spans:
        """Return the same with a block of its own."""
        return Spans(self.data.copy(), self.begins, self.ends)

    def select(self, columns: Sequence[int]) -> Spans:
        """Return some of the columns."""
        return Spans(self.data, self.begins[list(columns)], self.ends[list(columns)])

    def texts(self, column: int, rows: Places | slice = slice(None)) -> pa.StringArray:
        """Copy the texts of a column, or some of them."""
        begins = self.begins[column][rows]
        if not len(begins):
            return pa.array([], pa.string())
        # Texts and what lies between them take turns.
        offsets = np.empty(2 * len(begins), np.int32)
        offsets[0::2], offsets[1::2] = begins, self.ends[column][rows]
        turns = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(self.data))
        # pa.array would import pandas for an array of NumPy's, where there is one.
        even = pa.py_buffer(np.arange(0, len(offsets), 2))
        return turns.take(pa.Array.from_buffers(pa.int64(), len(begins), [None, even]))


def keep_memory() -> None:
    """Have the allocator keep the memory of blocks that are done with.

    glibc gives pieces back to the system, page by page, unless it has seen larger ones go (mallopt(3),
    M_MMAP_THRESHOLD). Getting them again for each block takes as long as all that is done with it.
    """
    np.empty(1 << 24, np.uint8)


def count_within(masks: Sequence[NDArray[np.bool_]], begins: Places, ends: Places) -> list[Places]:
    """Count the true values of each mask, ``bool [bytes]``, between each begin and its end, in the begins' shape."""
    places = np.stack([begins, ends]).astype(_U)
    # Unsigned numbers are shifted much faster.
    words = (places >> _U(6)).view(np.int64)
    below = (_U(1) << (places & _U(63))) - _U(1)
    found = []
    for mask in masks:
        bits = np.zeros(len(mask) // 64 + 1, _U)
        bits.view(np.uint8)[: (len(mask) + 7) // 8] = np.packbits(mask, bitorder="little")
        before = np.zeros(len(bits), np.int64)
        np.cumsum(np.bitwise_count(bits[:-1]), out=before[1:])
        ranks = _at(before, words) + np.bitwise_count(_at(bits, words) & below)
        found.append(ranks[1] - ranks[0])
    return found


def hash_texts(spans: Spans) -> tuple[Hashes, Hashes]:
    """Hash texts, as they are and, if all their bytes are ASCII, in lower case.

    The bytes are taken eight at a time. Each such lane is scrambled much as by SplitMix64 (Steele, Lea, Flood 2014),
    the lanes of a text are summed, each times a power that tells its place, and the sum is scrambled with the length.
    That any two texts of a million have the same hash by chance happens to one file in 30 million, and then a count is
    wrong by one: texts are not compared again.

    Returns:
        Two of ``uint64 [columns, rows]``. They are for counting within a process, and may change with ``kd``.
    """
    begins, ends = spans.begins.ravel(), spans.ends.ravel()
    if not len(begins):
        return spans.begins.view(_U), spans.begins.view(_U)
    lengths = (ends - begins).astype(_U)
    # One lane more than there are is gathered, and counts as none.
    counts = (lengths + _U(2 * _LANE - 1) >> _U(3)).view(np.int64)
    behind = np.cumsum(counts)
    firsts = behind - counts
    lanes = _lanes(spans.data, begins - _LANE * firsts, counts)
    lanes[behind - 1] = 0
    last = np.maximum(behind - 2, firsts)
    lanes[last] &= _at(_KEEP, (lengths - _LANE * (last - firsts).view(_U)).view(np.int64))
    lower = _lower(lanes)
    exact, folded = (_sum(each, firsts, lengths).reshape(spans.begins.shape) for each in (lanes, lower))
    return exact, folded


def combine(hashes: Hashes) -> Hashes:
    """Make one hash of each row's, ``uint64 [columns, rows]``, their order included."""
    row: Hashes = hashes[0].copy()
    for column in hashes[1:]:
        row *= _U(_STEP)
        row += column
        _scramble(row)
    return row


def _lanes(data: NDArray[np.uint8], origins: Places, counts: Places) -> Hashes:
    """Gather eight bytes from each place of a text but its last; ``origins`` are its begin less the lanes before it."""
    places = np.repeat(origins, counts)
    places += _ramp(len(places))
    # What is not aligned lies in two words that are, and these are gathered faster.
    words = _at(data[: len(data) // _LANE * _LANE].view("<u8"), (places.view(_U) >> _U(3)).view(np.int64))
    shifts = (places.view(_U) & _U(_LANE - 1)) << _U(3)
    lanes: Hashes = words >> shifts
    np.subtract(_U(64), shifts, out=shifts)
    # A shift by 64 leaves nothing, as NumPy has it.
    lanes[:-1] |= words[1:] << shifts[:-1]
    return lanes


def _lower(lanes: Hashes) -> Hashes:
    """Set bit 5 of the bytes from A to Z, where all bytes are ASCII."""
    ones = 0x0101010101010101
    # What is A or more sets the byte's highest bit in the first sum, what is more than Z in both.
    found = lanes + _U((0x80 - ord("A")) * ones)
    found ^= lanes + _U((0x80 - ord("Z") - 1) * ones)
    found &= _U(0x80 * ones)
    found >>= _U(2)
    found |= lanes
    return found


def _sum(lanes: Hashes, firsts: Places, lengths: Hashes) -> Hashes:
    """Sum up the lanes of each text, from its first on; scrambles them in place."""
    _scramble(lanes)
    powers, inverses = _powers(len(lanes))
    lanes *= powers
    sums = np.add.reduceat(lanes, firsts)
    sums *= _at(inverses, firsts)
    sums += lengths * _U(_STEP)
    _scramble(sums)
    return sums


def _scramble(values: Hashes) -> None:
    """Spread each bit over all of its value, in place; 0 stays."""
    scratch = values >> _U(30)
    values ^= scratch
    values *= _SCRAMBLE
    np.right_shift(values, _U(29), out=scratch)
    values ^= scratch


def _at(values: NDArray[_Number], places: Places) -> NDArray[_Number]:
    """Take values at places that are all among them, without looking whether they are."""
    return values.take(places, mode="clip")


def _ramp(length: int) -> Places:
    return _ramps(int(length).bit_length())[:length]


@lru_cache(maxsize=8)
def _ramps(bits: int) -> Places:
    return np.arange(0, _LANE << bits, _LANE)


def _powers(length: int) -> tuple[Hashes, Hashes]:
    """Return the powers of the step from 0 on, and of its inverse (modulo 2 to the 64)."""
    powers, inverses = _all_powers(length.bit_length())
    return powers[:length], inverses


@lru_cache(maxsize=8)
def _all_powers(bits: int) -> tuple[Hashes, Hashes]:
    found = []
    for base in (_STEP, pow(_STEP, -1, 1 << 64)):
        values = np.full(1 << bits, base, _U)
        values[0] = 1
        found.append(np.cumprod(values, out=values))
    return found[0], found[1]
