"""What is trained: a model, its rows, its loss and its score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor


class Examples(Protocol):
    """The rows of a training or dev set; their number never changes."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray:
        """``int64 [rows]``: how long each row is in this epoch."""

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the model's inputs for some rows, padded to the longest of them, and ``labels``.

        Labels are ``[batch]``, or ``[batch, time]`` and -100 where there is nothing to learn. What is not -100 is
        what an update's loss is divided by: where a model predicts nothing at a place, its label has to be -100.
        """

    def start(self, epoch: int) -> None:
        """Make the rows of an epoch of training, counted from 0.

        They depend on the epoch alone, not on what was trained before: a resumed training starts with any epoch.
        """


class Learner(Protocol):
    """A model to fine-tune, and what the task makes of its outputs."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, which is saved beside the model."""

    @property
    def stage(self) -> str:
        """The name in learning curves: ``teacher`` or ``generator``."""

    @property
    def key(self) -> str:
        """The settings' table, which errors name: ``teacher`` or ``generators.gpt2``."""

    @property
    def metric(self) -> str:
        """The dev score that chooses among checkpoints."""

    @property
    def greater_is_better(self) -> bool:
        """Whether the highest score is the best, or the lowest."""

    @property
    def train(self) -> Examples:
        """The rows to learn."""

    @property
    def dev(self) -> Examples:
        """The rows that choose among checkpoints; their ``start`` is not called."""

    def build(self, seed: int) -> Any:
        """Return the ``PreTrainedModel`` to start from, in float32, new weights drawn with ``seed``."""

    def loss(self, outputs: Any, labels: Tensor, items: Tensor | int) -> Tensor:
        """Return the sum of the losses of a batch, divided by ``items``.

        Args:
            outputs: What the model gave.
            labels: The batch's labels.
            items: How many labels are not -100 in the whole update, of which the batch may be a part.
        """

    def reduce(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return what ``score`` needs of a dev batch: ``[batch]`` or ``[batch, outputs]``, kept for all rows."""

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return the dev scores, ``metric`` among them.

        Args:
            predictions: What ``reduce`` returned, of all dev rows from short to long.
            labels: Their labels, padded with -100.

        Raises:
            Diverged: The predictions are no numbers.
        """
