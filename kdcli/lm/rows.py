"""Texts as tokens: all rows end to end, cut out and padded by the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Tokens of all rows end to end: ``Examples`` that are the same in every epoch.

    Attributes:
        fields: For each input of the model, ``int32 [tokens]``, the rows one after the other.
        padding: For each input, the value that fills it up.
        offsets: ``int64 [rows + 1]``, where each row starts.
        labels: ``int64 [rows]`` classes or ``float32 [rows]`` scores; None where ``labels`` is one of the fields.
        left: Whether padding stands before the text, as XLNet has it.
    """

    fields: dict[str, np.ndarray]
    padding: dict[str, int]
    offsets: np.ndarray
    labels: np.ndarray | None = None
    left: bool = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """``int64 [rows]``: tokens of each row."""
        return np.diff(self.offsets)

    @property
    def digest(self) -> str:
        """A hash of all of it (hex digits)."""
        arrays = (*self.fields.values(), self.offsets, *([] if self.labels is None else [self.labels]))
        digest = hashlib.sha256()
        for values in arrays:
            digest.update(values.tobytes())
        return digest.hexdigest()

    def start(self, epoch: int) -> None:
        """Do nothing: every epoch has the same rows."""

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return ``[batch, time]`` tensors padded to the longest of the rows, and the labels."""
        starts = self.offsets[rows]
        lengths = self.offsets[np.asarray(rows) + 1] - starts
        used = np.arange(lengths.max()) < lengths[:, None]
        used = used[:, ::-1] if self.left else used
        flat = np.concatenate([np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)])
        tensors = {"attention_mask": torch.from_numpy(used.astype(np.int64))}
        for name, values in self.fields.items():
            padded = np.full(used.shape, self.padding[name], np.int64)
            padded[used] = values[flat]
            tensors[name] = torch.from_numpy(padded)
        return tensors if self.labels is None else {**tensors, "labels": torch.from_numpy(self.labels[rows])}
