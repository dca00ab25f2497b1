"""A deep averaging network over n-grams in a large sparse table (Ye et al. 2022), single sentences and pairs."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from kdcli.api import API_VERSION, Batch, Task
from kdcli.models.inference import Floats, Graph, Ints, Model, Weights, numpy_model, onnx_model, word_vectors

if TYPE_CHECKING:
    from torch import nn

api_version, pairs, scores = API_VERSION, True, True

PRIME, FACTOR = 2**31 - 1, 1_000_003_919  # (PRIME + PRIME) * FACTOR fits int64: nothing overflows
LAYERS = ("fc", "logits")
NGRAMS = """
    words_{n} = Slice (words_{less}, axis, end, axis)
    counted_{n} = Slice (counted_{less}, axis, end, axis)
    shorter_{n} = Slice (keys_{less}, first, last, axis)
    sum_{n} = Add (shorter_{n}, words_{n})
    product_{n} = Mul (sum_{n}, factor)
    keys_{n} = Mod (product_{n}, prime)
    rows_{n} = Mod (keys_{n}, buckets)
    found_{n} = Gather (ngrams_weight, rows_{n})
"""
ENCODE = """
    words_1 = Identity (words)
    product_1 = Mul (words, factor)
    keys_1 = Mod (product_1, prime)
    counted_1 = Identity (present)
    found_1 = Gather (vectors, words)
    {ngrams}
    found = Concat <axis = 1> ({found})
    counted = Concat <axis = 1> ({counted})
    shares = LpNormalization <axis = 1, p = 2> (counted)
    row = Unsqueeze (shares, axis)
    average = MatMul (row, found)
    states = Squeeze (average, axis)
"""


class Options(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """The table ``[students.dan]`` of a profile."""

    ngram: Annotated[int, Field(ge=2)] = 4
    """Words of the longest n-grams; all from single words up to these are averaged."""
    buckets: Annotated[int, Field(ge=1, lt=2**31)] = 100_000
    """Rows of the table that n-grams of two words and more are hashed into."""
    fc: Annotated[int, Field(ge=1)] = 200
    """Size of the fully connected layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of values dropped before the logits."""
    embeddings: Literal["rand", "static", "non-static", "multichannel"] = "non-static"
    """Word vectors: random, given and frozen, given and trained, or two copies: one frozen, one trained (Kim 2014)."""


def ngram_rows(words: Any, longest: int, buckets: int) -> list[Any]:
    """Return the row of each n-gram, ``[batch, time - n + 1]`` for n from 2 on, of words as a tensor or an array.

    The words are coefficients of a polynomial in ``FACTOR``, modulo ``PRIME`` (Karp and Rabin 1987).
    """
    keys, rows = words * FACTOR % PRIME, []
    for n in range(2, longest + 1):
        keys = (keys[:, :-1] + words[:, n - 1 :]) * FACTOR % PRIME
        rows.append(keys % buckets)
    return rows


def build(options: Options, task: Task, vocabulary_size: int, vectors: Floats | None, dimension: int) -> "nn.Module":
    """Build the model; see ``kdcli.api.StudentPlugin``. Without vectors, every kind of embedding begins at random."""
    import torch
    from torch import nn
    from torch.nn import functional

    from kdcli.models.embedding import compared, embedding

    class DAN(nn.Module):
        """The average of a text's n-grams -> FC + ReLU -> FC (Iyyer et al. 2015; n-grams as in Ye et al. 2022).

        Single words have vectors of their own; longer n-grams are hashed into the rows of one table, in place of a list
        of the most frequent ones. The rows begin at zero, so an n-gram that was never trained says nothing. The sum is
        divided by the root of the number: the mean of many small vectors is so small that AdaDelta hardly begins to
        learn.
        """

        def __init__(self) -> None:
            super().__init__()
            self.embedding = embedding(options.embeddings, vocabulary_size, vectors, dimension)
            self.longest, size = options.ngram, self.embedding.dimension
            self.ngrams = nn.Embedding(options.buckets, size, _weight=torch.zeros(options.buckets, size))
            self.fc = nn.Linear(size * (4 if task.kind == "pair" else 1), options.fc)
            self.dropout = nn.Dropout(options.dropout)
            self.logits = nn.Linear(options.fc, task.outputs)

        def forward(self, batch: Batch) -> torch.Tensor:  # [batch, outputs]
            states = [self.encode(*column) for column in zip(batch.words, batch.lengths, strict=True)]
            logits: torch.Tensor = self.logits(self.dropout(functional.relu(self.fc(compared(states)))))
            return logits

        def encode(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            """Return the averages, ``[batch, dimension]``, of texts ``[batch, time]``."""
            time = words.shape[1]
            present = torch.arange(time, device=words.device) < lengths.to(words.device)[:, None]
            # An n-gram lies in a text if its last word does.
            counted = torch.cat([present[:, n:] for n in range(self.longest)], dim=1)
            shares = functional.normalize(counted.to(self.ngrams.weight.dtype), dim=1)[:, None]  # [batch, 1, n-grams]
            rows = torch.cat(ngram_rows(words, self.longest, self.ngrams.num_embeddings), dim=1)
            # Channel by channel, so that no gradient is computed for a frozen one.
            singles = torch.cat([shares[:, :, :time] @ channel for channel in self.embedding(words)], dim=2)
            return torch.squeeze(singles + shares[:, :, time:] @ self.ngrams(rows), dim=1)

    return DAN()


def to_onnx(options: Options, task: Task, weights: Weights) -> Graph:
    """Build the model as an ONNX graph; see ``kdcli.api.StudentPlugin``."""
    every = range(1, options.ngram + 1)
    found, counted = (", ".join(f"{name}_{n}" for n in every) for name in ("found", "counted"))
    ngrams = "".join(NGRAMS.format(n=n, less=n - 1) for n in every[1:])
    encode = ENCODE.format(ngrams=ngrams, found=found, counted=counted)
    constants = {"first": [0], "last": [-1], "end": [PRIME], "factor": FACTOR, "prime": PRIME}
    constants["buckets"] = len(weights["ngrams.weight"])
    return onnx_model("kd_dan", task, encode, LAYERS, {**weights, **constants})


def fast(options: Options, task: Task, weights: Weights) -> Model:
    """Return the model in NumPy; weights of another model are a ``KeyError`` or a ``ValueError``."""
    vectors, ngrams = word_vectors(weights), weights["ngrams.weight"]

    def encode(words: Ints, lengths: Ints) -> Floats:
        present = np.arange(words.shape[1]) < lengths[:, None]
        counted = np.concatenate([present[:, n:] for n in range(options.ngram)], axis=1)
        shares = (counted / np.sqrt(counted.sum(axis=1, keepdims=True))).astype(np.float32)
        rows = np.concatenate(ngram_rows(words, options.ngram, len(ngrams)), axis=1)
        single, longer = np.split(shares[:, None], [words.shape[1]], axis=2)
        return np.asarray(single @ vectors[words] + longer @ ngrams[rows], np.float32)[:, 0]

    return numpy_model(encode, LAYERS, weights, words=256)
