"""A student that averages word vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from kdcli.api import API_VERSION, Batch, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

api_version = API_VERSION
pairs = True
scores = True


class Options(BaseModel):
    """Its table of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    bias: bool = True
    """Add a number to each logit."""


def build(
    options: Options, task: Task, vocabulary_size: int, vectors: NDArray[np.float32] | None, dimension: int
) -> nn.Module:
    """Build the model; see ``kdcli.api.Student``."""
    import torch
    from torch import nn

    class Average(nn.Module):
        """The mean of each text's word vectors, then one linear layer."""

        def __init__(self) -> None:
            super().__init__()
            weight = None if vectors is None else torch.tensor(vectors)
            self.embedding = nn.Embedding(vocabulary_size, dimension, _weight=weight)
            self.logits = nn.Linear(dimension * len(task.columns), task.outputs, bias=options.bias)

        def forward(self, batch: Batch) -> Tensor:
            """Return logits, ``[batch, outputs]``."""
            means = []
            for words, lengths in zip(batch.words, batch.lengths, strict=True):
                there = (torch.arange(words.shape[1]) < lengths[:, None]).to(words.device)  # [batch, time]
                vectors_there = self.embedding(words) * there[:, :, None]
                means.append(vectors_there.sum(1) / lengths.to(words.device)[:, None])
            logits: Tensor = self.logits(torch.cat(means, dim=1))
            return logits

    return Average()
