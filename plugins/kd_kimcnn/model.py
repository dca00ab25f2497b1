"""The model, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdcli.api import Batch
from kdcli.models.embedding import Embedding


class KimCNN(nn.Module):
    """Filters over word vectors, the largest value of each over time -> dropout -> FC (Kim 2014, section 2).

    A window may reach over the ends of a text, where it sees zeros, as long as it sees a word: there are
    ``length + width - 1`` of them, whatever the text is padded to.

    The arguments are those of ``kd_kimcnn.Options``. The two texts of a pair are encoded by the same filters and
    compared as [h1, h2, |h1 - h2|, h1 * h2].
    """

    def __init__(
        self, embedding: Embedding, *, filters: int, widths: Sequence[int], dropout: float, pair: bool, outputs: int
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.filters = nn.ModuleList(nn.Conv1d(embedding.dimension, filters, width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(filters * len(widths) * (4 if pair else 1), outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, ``[batch, outputs]``."""
        states = [self.encode(words, lengths) for words, lengths in zip(batch.words, batch.lengths, strict=True)]
        if len(states) == 2:
            one, two = states
            states += [(one - two).abs(), one * two]
        logits: Tensor = self.logits(self.dropout(torch.cat(states, dim=1)))
        return logits

    def encode(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Return the largest value of each filter, ``[batch, widths * filters]``, for texts ``[batch, time]``."""
        ends = lengths.to(words.device)[:, None]
        present = torch.arange(words.shape[1], device=words.device) < ends
        channels = [(channel * present[:, :, None]).transpose(1, 2) for channel in self.embedding(words)]
        states = []
        for convolution in self.filters:
            assert isinstance(convolution, nn.Conv1d) and convolution.bias is not None
            beyond = convolution.kernel_size[0] - 1
            # Apart, so that no gradient is computed for a frozen channel.
            parts = zip(channels, torch.chunk(convolution.weight, len(channels), dim=1), strict=True)
            values = sum((functional.conv1d(*part, padding=beyond) for part in parts), convolution.bias[:, None])
            windows = torch.arange(values.shape[2], device=words.device) < ends + beyond
            states.append(values.masked_fill(~windows[:, None], -torch.inf).amax(dim=2))
        return functional.relu(torch.cat(states, dim=1))
