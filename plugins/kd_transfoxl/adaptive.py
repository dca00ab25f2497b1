"""Adaptive input embeddings and the adaptive softmax: frequent words get more of both.

Words are sorted by frequency and cut into clusters. The first words are predicted at once, together with a score for
each of the other clusters; a word of these needs a second softmax, inside its cluster (Grave et al. 2017, arXiv
1609.04309; the embeddings: Baevski and Auli 2019, arXiv 1809.10853). The embeddings of each cluster are narrower than
those before, and a projection makes them ``d_model`` wide. The softmax has tables and projections of the same shapes,
so that they can be shared.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdcli.lm import sampling


class AdaptiveEmbedding(nn.Module):
    """Embeddings whose width depends on the word's cluster, all projected to ``d_model``; see ``TransfoXLConfig``."""

    def __init__(self, vocab_size: int, cutoffs: Sequence[int], d_embed: int, d_model: int, div_val: int) -> None:
        super().__init__()
        self.cutoffs, self.scale = list(cutoffs), math.sqrt(d_model)
        shapes = _shapes(vocab_size, cutoffs, d_embed, div_val)
        self.emb_layers = nn.ModuleList(nn.Embedding(size, width) for size, width in shapes)
        self.emb_projs = nn.ParameterList(nn.Parameter(torch.empty(d_model, width)) for _, width in shapes)

    def forward(self, words: Tensor) -> Tensor:
        """Return ``[rows, time, d_model]`` for ``int64 [rows, time]``.

        Each table looks up all words, those of other clusters as its first one: this does not wait for a GPU, and gives
        every parameter the gradient that several processes require.
        """
        clusters = _clusters(words, self.cutoffs)
        tables = cast(list[nn.Embedding], list(self.emb_layers))
        result = tables[0].weight.new_zeros(())  # in the weights' precision, also where autocast lowers projections
        for cluster, (start, table) in enumerate(zip([0, *self.cutoffs], tables, strict=True)):
            inside = clusters == cluster
            vectors = functional.linear(table(torch.where(inside, words - start, 0)), self.emb_projs[cluster])
            result = torch.where(inside[..., None], vectors.to(result.dtype), result)
        return result * self.scale


class AdaptiveSoftmax(nn.Module):
    """The distribution of the next word; without cutoffs, a plain softmax."""

    def __init__(self, vocab_size: int, cutoffs: Sequence[int], d_embed: int, d_model: int, div_val: int) -> None:
        super().__init__()
        self.cutoffs, self.starts = list(cutoffs), [0, *cutoffs]
        shapes = _shapes(vocab_size, cutoffs, d_embed, div_val)
        if cutoffs:
            self.cluster_weight = nn.Parameter(torch.empty(len(cutoffs), d_embed))
            self.cluster_bias = nn.Parameter(torch.empty(len(cutoffs)))
        self.out_layers = nn.ModuleList(nn.Linear(width, size) for size, width in shapes)
        self.out_projs = nn.ParameterList(nn.Parameter(torch.empty(d_model, width)) for _, width in shapes)

    def nats(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Return the nats of ``words``, ``[rows]``, without probabilities of the whole vocabulary.

        ``hidden`` is ``[rows, d_model]``, ``words`` ``int64 [rows]``; the result is float32 or wider.
        """
        first, scores = self._head(hidden)
        clusters = _clusters(words, self.cutoffs)
        word = first.gather(1, torch.where(clusters == 0, words, 0)[:, None])
        chosen = torch.cat([word, scores[:, 1:]], dim=1).gather(1, clusters[:, None])[:, 0]
        nats = scores.logsumexp(dim=1) - chosen
        # A cluster without rows is computed too: every parameter needs a gradient, as in the embeddings.
        for cluster, rows in enumerate(_rows(clusters, len(self.starts))[1:], start=1):
            inside = words[rows] - self.starts[cluster]
            tail = functional.cross_entropy(self._logits(hidden[rows], cluster), inside, reduction="none")
            nats = nats.index_add(0, rows, tail)
        return nats

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Return the log-probabilities of all words, ``[rows, vocabulary]``, of ``hidden [rows, d_model]``."""
        first, scores = self._head(hidden)
        total = scores.logsumexp(dim=1, keepdim=True)
        tails = [
            self._logits(hidden, cluster).log_softmax(dim=1) + scores[:, cluster, None] - total
            for cluster in range(1, len(self.starts))
        ]
        return torch.cat([first - total, *tails], dim=1)

    def draw(
        self,
        hidden: Tensor,
        uniforms: Tensor,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        without: int | None = None,
    ) -> Tensor:
        """Draw a word for each row of ``hidden [rows, d_model]``: first its cluster, then the word in it alone.

        It is the word that the cumulative sum over the whole vocabulary would give. The options are those of
        ``kdcli.lm.sampling.draw``; the word ``without`` is never drawn, its probability goes to the others.
        """
        # A word of a later cluster has a share in that cluster's score, which only the whole vocabulary gives.
        beyond = without is not None and _clusters(torch.tensor(without), self.cutoffs) > 0
        if temperature != 1.0 or top_k or top_p < 1.0 or beyond:
            logits = self.log_probs(hidden)
            if without is not None:
                logits[:, without] = -torch.inf
            return sampling.draw(logits, uniforms, temperature=temperature, top_k=top_k, top_p=top_p)
        first, scores = self._head(hidden, without)
        chances = scores.to(uniforms.dtype).softmax(dim=1)
        clusters, rest = sampling.invert(chances, uniforms)
        rest = rest / chances.gather(1, clusters[:, None])[:, 0]
        words = torch.empty_like(clusters)
        for cluster, rows in enumerate(_rows(clusters, len(self.starts))):
            if len(rows):
                logits = self._logits(hidden[rows], cluster) if cluster else first[rows]
                words[rows] = self.starts[cluster] + sampling.draw(logits, rest[rows])
        return words

    def _head(self, hidden: Tensor, without: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the logits of the first words, ``[rows, words]``, and the log-scores of all clusters."""
        near = hidden @ self.out_projs[0]
        first = _wide(self.out_layers[0](near))
        if without is not None:
            first[:, without] = -torch.inf
        scores = first.logsumexp(dim=1, keepdim=True)
        if self.cutoffs:
            others = _wide(functional.linear(near, self.cluster_weight, self.cluster_bias))
            scores = torch.cat([scores, others], dim=1)
        return first, scores

    def _logits(self, hidden: Tensor, cluster: int) -> Tensor:
        """Return the logits of a cluster's words, ``[rows, words]``, float32 or wider."""
        return _wide(self.out_layers[cluster](hidden @ self.out_projs[cluster]))


def _shapes(vocab_size: int, cutoffs: Sequence[int], d_embed: int, div_val: int) -> list[tuple[int, int]]:
    """Return the size of each cluster, and the width of its embeddings."""
    bounds = pairwise([0, *cutoffs, vocab_size])
    return [(end - start, d_embed // div_val**cluster) for cluster, (start, end) in enumerate(bounds)]


def _clusters(words: Tensor, cutoffs: Sequence[int]) -> Tensor:
    """Return the cluster of each word, in the shape of ``words``."""
    clusters = torch.zeros_like(words)
    for cutoff in cutoffs:
        clusters += words >= cutoff
    return clusters


def _rows(clusters: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return the rows of each of ``count`` clusters, waiting for a GPU once."""
    sizes: list[int] = torch.bincount(clusters, minlength=count).tolist()
    return torch.split(clusters.argsort(stable=True), sizes)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
