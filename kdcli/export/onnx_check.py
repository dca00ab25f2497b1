"""Whether an exported graph gives PyTorch's logits, padded batches of all kinds included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.api import Batch, Task
from kdcli.student.batches import collate
from kdcli.student.examples import Examples
from kdcli.student.folder import LoadedStudent
from kdcli.student.loaded import Columns, Fast
from kdcli.tasks.metrics import score

SIZES = (1, 2, 7, 32)
"""Rows of a batch."""
LONGEST = (1, 2, 5, 13, 40)
"""Words of a batch's longest text, beside the most that the student reads."""
TOLERANCE = 1e-5
"""Of float32: |ours - PyTorch's| is at most this, and this share of PyTorch's more."""


@dataclass(frozen=True)
class Comparison:
    """A graph against PyTorch on the same batches.

    Attributes:
        file: The graph.
        texts: What it read: ``random`` words, or the texts of ``dev``.
        rows: How many.
        difference: The largest between two logits.
        exact: Whether all are within ``TOLERANCE``.
        same_labels: Share of rows with the same label; None for scores.
        pearson: Correlation of the scores; None for labels.
    """

    file: str
    texts: str
    rows: int
    difference: float
    exact: bool
    same_labels: float | None
    pearson: float | None


def compare(student: LoadedStudent, runs: Mapping[str, Fast], texts: Mapping[str, Sequence[Batch]]) -> list[Comparison]:
    """Compare graphs with PyTorch.

    Args:
        student: The student they were made from.
        runs: The graphs by name of their file.
        texts: Batches by name.
    """
    found = []
    for name, batches in texts.items():
        with torch.inference_mode():
            expected = np.concatenate([student.module(batch).numpy() for batch in batches])
        for file, run in runs.items():
            logits = np.concatenate([run(*_arrays(batch)) for batch in batches])
            found.append(_comparison(student.task, file, name, logits, expected))
    return found


def random_batches(task: Task, vocabulary: int, max_length: int) -> Iterator[Batch]:
    """Make batches of random words, of each size and several lengths, with padding beyond the longest text too."""
    numbers = np.random.default_rng(0)
    for longest in sorted({min(longest, max_length) for longest in (*LONGEST, max_length)}):
        for size in SIZES:
            columns = [_column(numbers, size, longest, vocabulary) for _ in task.columns]
            yield Batch(tuple(words for words, _ in columns), tuple(lengths for _, lengths in columns))


def text_batches(examples: Examples) -> Iterator[Batch]:
    """Make batches of real texts in their own order, whatever their lengths, of each size in turn."""
    begin = 0
    for size in cycle(SIZES):
        if begin >= len(examples):
            return
        rows = np.arange(begin, min(begin + size, len(examples)))
        yield collate(examples, rows, torch.device("cpu"))
        begin += size


def _arrays(batch: Batch) -> tuple[Columns, Columns]:
    return tuple(words.numpy() for words in batch.words), tuple(lengths.numpy() for lengths in batch.lengths)


def _column(numbers: np.random.Generator, size: int, longest: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    lengths = numbers.integers(1, longest + 1, size)
    lengths[numbers.integers(size)] = longest
    width = longest + numbers.integers(3)
    words = numbers.integers(1, max(vocabulary, 2), (size, width)) * (np.arange(width) < lengths[:, None])
    return torch.from_numpy(words), torch.from_numpy(lengths)


def _comparison(
    task: Task, file: str, texts: str, logits: NDArray[np.float32], expected: NDArray[np.float32]
) -> Comparison:
    difference = float(np.abs(logits - expected).max())
    exact = np.allclose(logits, expected, TOLERANCE, TOLERANCE)
    same = None if task.is_score else float((logits.argmax(1) == expected.argmax(1)).mean())
    pearson = score(task, logits, expected[:, 0])["pearson"] if task.is_score else None
    return Comparison(file, texts, len(logits), difference, exact, same, pearson)
