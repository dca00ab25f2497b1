"""The model: plain torch, with plain arguments."""

from __future__ import annotations

import numpy as np
import torch
from kdcli.api import Batch
from torch import Tensor, nn


class AveragedWords(nn.Module):
    """Logits from the average and the maximum of the word vectors of one or two texts."""

    def __init__(self, words: int, dimension: int, texts: int, outputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dimension)
        nn.init.uniform_(self.embedding.weight, -0.25, 0.25)
        features = 2 * dimension * (1 if texts == 1 else 4)
        layers = nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
        self.classify = nn.Sequential(nn.Dropout(dropout), *layers)

    def set_vectors(self, vectors: np.ndarray) -> None:
        """Begin with word vectors, ``float32 [words, dimension]``, instead of random ones."""
        self.embedding.weight.data.copy_(torch.from_numpy(vectors))

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, ``[batch, outputs]``."""
        texts = [self._encode(words, lengths) for words, lengths in zip(batch.words, batch.lengths, strict=True)]
        if len(texts) == 2:  # of a pair: both, and how they differ
            one, other = texts
            texts = [one, other, (one - other).abs(), one * other]
        logits: Tensor = self.classify(torch.cat(texts, dim=1))
        return logits

    def _encode(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[batch, 2 * dimension]`` for words, ``[batch, time]``; padding makes no difference."""
        lengths = lengths.to(words.device)[:, None]
        padding = (torch.arange(words.shape[1], device=words.device) >= lengths)[:, :, None]
        vectors = self.embedding(words)  # [batch, time, dimension]
        average = vectors.masked_fill(padding, 0).sum(dim=1) / lengths
        return torch.cat([average, vectors.masked_fill(padding, -torch.inf).amax(dim=1)], dim=1)
