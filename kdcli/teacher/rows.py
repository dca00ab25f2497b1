"""Training texts as word pieces, and the order in which they are learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from kdcli.api import Reporter

CHUNK = 10_000
POOL = 50
"""Updates whose texts are sorted by length together: enough to pad little, few enough to stay random."""


@dataclass(frozen=True)
class Rows(Dataset[int]):
    """Word pieces of all rows end to end; an item is a row's number, and ``batch`` makes the tensors.

    Attributes:
        fields: For each input of the model, ``int32 [pieces]``, the rows one after the other.
        padding: For each input, the value that fills it up.
        offsets: ``int64 [rows + 1]``, where each row starts.
        labels: ``int64 [rows]`` classes or ``float32 [rows]`` scores.
        left: Whether padding stands before the text, as XLNet has it.
    """

    fields: dict[str, np.ndarray]
    padding: dict[str, int]
    offsets: np.ndarray
    labels: np.ndarray
    left: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> int:
        return row

    @property
    def lengths(self) -> np.ndarray:
        """``int64 [rows]``: word pieces of each row."""
        return np.diff(self.offsets)

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
        return {**tensors, "labels": torch.from_numpy(self.labels[rows])}


def encode_rows(
    columns: Sequence[pa.ChunkedArray],
    labels: np.ndarray,
    tokenizer: Any,
    *,
    inputs: Sequence[str],
    max_length: int,
    reporter: Reporter,
) -> Rows:
    """Cut texts into word pieces, at most ``max_length`` a row; of a pair the longer text is cut first.

    Args:
        columns: One text column, or two.
        labels: The classes or scores of the rows.
        tokenizer: The model's tokenizer.
        inputs: The inputs that the model takes.
        max_length: The longest row, special tokens included.
        reporter: Shown the progress.
    """
    names = [name for name in inputs if name != "attention_mask"]
    pieces: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in names}
    lengths: list[int] = []
    with reporter.progress("word pieces", len(labels)) as progress:
        for start in range(0, len(labels), CHUNK):
            texts = [column.slice(start, CHUNK).to_pylist() for column in columns]
            made = tokenizer(
                *texts,
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
                return_token_type_ids="token_type_ids" in names,
            )
            lengths += map(len, made["input_ids"])
            for name in names:
                pieces[name] += [np.asarray(row, np.int32) for row in made[name]]
            progress.advance(len(texts[0]))
    padding = {name: tokenizer.pad_token_type_id if name == "token_type_ids" else 0 for name in names}
    padding["input_ids"] = tokenizer.pad_token_id
    fields = {name: np.concatenate(rows) for name, rows in pieces.items()}
    return Rows(
        fields,
        padding,
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        labels,
        tokenizer.padding_side == "left",
    )


class ByLength(Sampler[int]):
    """Rows in random order, but so that the rows of an update are about equally long.

    The order depends on the seed and the epoch alone, so that a resumed training and all processes of one see the
    same. The longest rows come first in the first epoch: if memory does not suffice, it shows at once.

    Args:
        lengths: ``int64 [rows]``.
        update: Rows an update.
        seed: Seed of the order.
    """

    def __init__(self, lengths: np.ndarray, update: int, seed: int) -> None:
        self.lengths = lengths
        self.update = update
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rows = len(self.lengths)
        random = np.random.default_rng((self.seed, self.epoch))
        pool = self.update * min(max(rows // (4 * self.update), 1), POOL)
        pool_of = np.arange(rows) // pool
        order = random.permutation(rows)
        order = order[np.lexsort((-self.lengths[order], pool_of))]
        whole = rows // self.update * self.update
        updates = random.permutation(order[:whole].reshape(-1, self.update))
        if self.epoch == 0 and len(updates):
            longest = self.lengths[updates].max(axis=1).argmax()
            updates[[0, longest]] = updates[[longest, 0]]
        yield from (*updates.ravel().tolist(), *order[whole:].tolist())
