"""Rows to train and evaluate on, in memory or memory-mapped from disk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.student.arrays import ArrayWriter, open_array
from kdcli.student.vocabulary import Texts


@dataclass(frozen=True)
class Examples:
    """Rows to train or evaluate a student on.

    Attributes:
        texts: One for each text column.
        logits: The teacher's, ``float32 [rows, task.outputs]``, or None.
        labels: Class ids ``int64 [rows]`` or scores ``float32 [rows]``, or None.
    """

    texts: tuple[Texts, ...]
    logits: NDArray[np.float32] | None = None
    labels: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.texts[0].lengths)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """The words of each row's longest text, ``int32 [rows]``."""
        longest: NDArray[np.int32] = np.maximum.reduce([texts.lengths for texts in self.texts])
        return longest

    def digest(self) -> str:
        """Return a hash of all that is in here (hex digits)."""
        digest = blake2b(digest_size=16)
        arrays = [array for texts in self.texts for array in (texts.words, texts.offsets)]
        for array in [*arrays, *(array for array in (self.logits, self.labels) if array is not None)]:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class ExampleWriter:
    """The arrays of examples in a folder, written piece by piece; a context manager.

    Labels are kept only if every row has one.

    Args:
        folder: The folder, which exists.
        task: The task.
        words: The type of word ids.
    """

    def __init__(self, folder: Path, task: Task, words: np.dtype[Any]) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._words = [self._array(f"{column}.words", words) for column in task.columns]
        self._offsets = [self._array(f"{column}.offsets", np.dtype(np.int64)) for column in task.columns]
        self._logits = self._array("logits", np.dtype(np.float32), task.outputs)
        self._labels = self._array("labels", np.dtype(np.float32 if task.is_score else np.int64))
        for offsets in self._offsets:
            offsets.write(np.zeros(1, np.int64))

    def __enter__(self) -> ExampleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if not self.labelled:
            (self.folder / "labels.npy").unlink()

    @property
    def rows(self) -> int:
        """The rows written so far."""
        return self._logits.rows

    @property
    def labelled(self) -> bool:
        """Whether all of them have labels."""
        return self._labels.rows == self._logits.rows

    def write(self, texts: Sequence[Texts], logits: NDArray[np.float32], labels: NDArray[Any] | None) -> None:
        """Add rows."""
        for column, words, offsets in zip(texts, self._words, self._offsets, strict=True):
            offsets.write(column.offsets[1:] + words.rows)
            words.write(column.words)
        self._logits.write(logits)
        if labels is not None:
            self._labels.write(labels)

    def _array(self, name: str, dtype: np.dtype[Any], width: int | None = None) -> ArrayWriter:
        return self._stack.enter_context(ArrayWriter(self.folder / f"{name}.npy", dtype, width))


def load_examples(folder: Path, task: Task) -> Examples:
    """Map the arrays that ``encode`` has written into memory.

    Raises:
        DataError: The folder is not one that ``encode`` has written for such a task.
    """
    hint = "encode the joined set again"
    try:
        texts = tuple(
            Texts(open_array(folder / f"{column}.words.npy"), open_array(folder / f"{column}.offsets.npy"))
            for column in task.columns
        )
        logits = open_array(folder / "logits.npy")
        labels = open_array(folder / "labels.npy") if (folder / "labels.npy").exists() else None
    except (OSError, ValueError) as error:
        raise DataError(f"this is no encoded joined set: {error}", file=folder, hint=hint) from error
    if logits.shape != (len(texts[0].offsets) - 1, task.outputs):
        raise DataError(f"the encoded set is not one of task {task.name}", file=folder, hint=hint)
    return Examples(texts, logits, labels)
