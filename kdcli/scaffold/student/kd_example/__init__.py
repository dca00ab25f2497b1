"""A student without recurrence: the average and the maximum of a text's word vectors, and a small network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdcli.api import Task
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

api_version = 2
pairs = True
scores = True


class Options(BaseModel, extra="forbid", frozen=True):
    """The table ``[students.example]`` of a profile."""

    hidden: int = Field(200, ge=1, description="Size of the hidden layer.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of values dropped before and behind the hidden layer.")


def build(options: Options, task: Task, vocabulary_size: int, vectors: np.ndarray | None, dimension: int) -> nn.Module:
    """Build the model; only this function imports torch."""
    from kd_example.model import AveragedWords

    model = AveragedWords(vocabulary_size, dimension, len(task.columns), task.outputs, options.hidden, options.dropout)
    if vectors is not None:
        model.set_vectors(vectors)
    return model
