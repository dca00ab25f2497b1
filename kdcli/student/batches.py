"""Batches of texts of similar lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.api import Batch
from kdcli.student.examples import Examples
from kdcli.student.vocabulary import Texts

SPREAD = 0.25
"""How far apart the lengths of a batch lie: rows are sorted by their length plus up to this share of it, drawn anew in
each epoch, so that even where texts are few, or of rare lengths, each meets others every time."""


def epoch_batches(lengths: NDArray[Any], size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the row numbers of each batch of an epoch, which depend on the arguments alone.

    Args:
        lengths: The words of each row, ``int [rows]``.
        size: Rows of a batch; one batch may have fewer.
        seed: The seed of the training.
        epoch: The number of the epoch.
    """
    # Counter-based, so that any epoch can be had without those before it.
    draws = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    keys = draws.random(len(lengths), np.float32)
    keys *= SPREAD
    keys += 1
    keys *= lengths
    rows = np.argsort(keys, kind="stable")
    batches = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    return [batches[number] for number in draws.permutation(len(batches))]


def collate(examples: Examples, rows: NDArray[np.int64], device: torch.device) -> Batch:
    """Gather rows into a padded batch on the device; the lengths stay on the CPU."""
    padded = [_padded(texts, rows) for texts in examples.texts]
    return Batch(
        words=tuple(torch.from_numpy(words).to(device) for words, _ in padded),
        lengths=tuple(torch.from_numpy(lengths) for _, lengths in padded),
    )


def targets(array: NDArray[Any] | None, rows: NDArray[np.int64], device: torch.device) -> Tensor | None:
    """Gather the logits or the labels of rows, if there are any."""
    return None if array is None else torch.from_numpy(array[rows]).to(device)


def _padded(texts: Texts, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    begins = texts.offsets[rows]
    lengths = texts.offsets[rows + 1] - begins
    time = np.arange(lengths.max())
    present = time < lengths[:, None]  # [batch, time]
    places = np.where(present, begins[:, None] + time, 0)
    return np.where(present, texts.words[places], 0).astype(np.int64), lengths
