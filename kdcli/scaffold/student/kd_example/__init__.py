"""A student without recurrence: the average of a text's word vectors, and a small network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdcli.api import Batch, Task
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

api_version, pairs, scores = 2, True, True


class Options(BaseModel, extra="forbid", frozen=True):
    """The table ``[students.example]`` of a profile."""

    hidden: int = Field(200, ge=1, description="Size of the hidden layer.")


def build(options: Options, task: Task, vocabulary_size: int, vectors: np.ndarray | None, dimension: int) -> nn.Module:
    """Build the model; only this function imports torch."""
    import torch
    from torch import nn

    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = None if vectors is None else torch.tensor(vectors)
            self.words = nn.EmbeddingBag(vocabulary_size, dimension, padding_idx=0, _weight=weight)
            hidden = nn.Linear(dimension * len(task.columns), options.hidden)
            self.logits = nn.Sequential(hidden, nn.ReLU(), nn.Linear(options.hidden, task.outputs))

        def forward(self, batch: Batch) -> Tensor:
            """Return logits, ``[batch, outputs]``."""
            logits: Tensor = self.logits(torch.cat([self.words(words) for words in batch.words], dim=1))
            return logits

    return Average()
