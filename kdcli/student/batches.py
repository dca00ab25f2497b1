"""Texts as word ids, and batches of texts of similar lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELLS = 1 << 22
"""The largest padded batch of ``compute_batches``, in words: a bound on memory."""
ROWS = 256
"""Texts that a PyTorch module predicts at once."""
SPREAD = 0.25
"""How far apart the lengths of a training batch lie: rows are sorted by their length plus up to this share of it, drawn
anew in each epoch, so that even few texts, or those of rare lengths, meet others every time."""

Columns = tuple[NDArray[Any], ...]
Compute = Callable[[Columns, Columns], NDArray[np.float32]]
"""Words ``[batch, time]`` and lengths ``[batch]`` of each text column to logits ``[batch, outputs]``."""


@dataclass(frozen=True)
class Texts:
    """Texts as word ids, one after the other; every text has at least one.

    Attributes:
        words: ``uint16`` or ``uint32 [all words]``.
        offsets: Where each text begins, and where the last ends, ``int64 [texts + 1]``.
    """

    words: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """The words of each text, ``int32 [texts]``."""
        return np.diff(self.offsets).astype(np.int32)

    def padded(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return rows as ``[rows, time]``, padded with 0 on the right, and their lengths ``int64 [rows]``."""
        begins = self.offsets[rows]
        lengths = self.offsets[rows + 1] - begins
        words = np.zeros((len(rows), int(lengths.max())), self.words.dtype)
        words[np.arange(words.shape[1]) < lengths[:, None]] = self.words[spans(begins, lengths)]
        return words, lengths


def spans(begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices begins[0], begins[0] + 1, ... (lengths[0] of them), begins[1], ... in one array."""
    return np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())


def compute_batches(
    compute: Compute, texts: Sequence[Texts], outputs: int, rows: int | None = None
) -> NDArray[np.float32]:
    """Return the logits of texts, ``float32 [texts, outputs]``; texts of similar lengths go together.

    A batch has so many rows, or, for None, as many as make ``CELLS`` padded words.
    """
    lengths = np.maximum.reduce([column.lengths for column in texts])
    order = np.argsort(lengths, kind="stable")
    logits = np.empty((len(order), outputs), np.float32)
    for batch in _cut(order, lengths[order].astype(np.int64), rows):
        words, counts = zip(*(column.padded(batch) for column in texts), strict=True)
        logits[batch] = compute(words, counts)
    return logits


def epoch_batches(lengths: NDArray[Any], size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the row numbers of each batch of an epoch, which depend on the arguments alone; one may be smaller."""
    # Counter-based, so that an epoch does not depend on those before it.
    draws = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    keys = draws.random(len(lengths), np.float32)
    keys *= SPREAD
    keys += 1
    keys *= lengths
    rows = np.argsort(keys, kind="stable")
    batches = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    return [batches[number] for number in draws.permutation(len(batches))]


def _cut(order: NDArray[np.int64], lengths: NDArray[np.int64], rows: int | None) -> Iterator[NDArray[np.int64]]:
    begin = 0
    while begin < len(order):
        cells = np.arange(1, len(order) - begin + 1) * lengths[begin:]
        end = begin + (rows or max(1, int(np.searchsorted(cells, CELLS, side="right"))))
        yield order[begin:end]
        begin = end
