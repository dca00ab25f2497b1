"""The model, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdcli.api import Batch
from kdcli.models.embedding import Embedding


class DAN(nn.Module):
    """The average of a text's n-grams -> FC + ReLU -> FC (Iyyer et al. 2015; n-grams as in Ye et al. 2022).

    Single words have vectors of their own; longer n-grams are hashed into the rows of one table, in place of a list of
    the most frequent ones. The rows begin at zero, so an n-gram that was never trained says nothing. The sum is divided
    by the root of the number: the mean of many small vectors is so small that AdaDelta hardly begins to learn.

    The arguments are those of ``kd_dan.Options``, and ``ngram_rows``, which hashes; two texts of a pair are compared as
    [h1, h2, |h1 - h2|, h1 * h2].
    """

    def __init__(
        self,
        embedding: Embedding,
        ngram_rows: Callable[[Tensor, int, int], list[Tensor]],
        *,
        ngram: int,
        buckets: int,
        fc: int,
        dropout: float,
        pair: bool,
        outputs: int,
    ) -> None:
        super().__init__()
        self.embedding, self.ngram_rows = embedding, ngram_rows
        self.longest = ngram
        self.ngrams = nn.Embedding(buckets, embedding.dimension, _weight=torch.zeros(buckets, embedding.dimension))
        self.fc = nn.Linear(embedding.dimension * (4 if pair else 1), fc)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(fc, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, ``[batch, outputs]``."""
        states = [self.encode(words, lengths) for words, lengths in zip(batch.words, batch.lengths, strict=True)]
        if len(states) == 2:
            one, two = states
            states += [(one - two).abs(), one * two]
        hidden = functional.relu(self.fc(torch.cat(states, dim=1)))  # [batch, fc]
        logits: Tensor = self.logits(self.dropout(hidden))
        return logits

    def encode(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Return the averages, ``[batch, dimension]``, of texts ``[batch, time]``."""
        time = words.shape[1]
        present = torch.arange(time, device=words.device) < lengths.to(words.device)[:, None]
        # An n-gram lies in a text if its last word does.
        counted = torch.cat([present[:, n:] for n in range(self.longest)], dim=1)
        shares = functional.normalize(counted.to(self.ngrams.weight.dtype), dim=1)[:, None]  # [batch, 1, n-grams]
        rows = torch.cat(self.ngram_rows(words, self.longest, self.ngrams.num_embeddings), dim=1)
        # Channel by channel, so that no gradient is computed for a frozen one.
        singles = torch.cat([shares[:, :, :time] @ channel for channel in self.embedding(words)], dim=2)
        return torch.squeeze(singles + shares[:, :, time:] @ self.ngrams(rows), dim=1)
