"""The trained model without torch, in NumPy and as an ONNX graph, and the hashing that all its forms share."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdcli.api import Task
from kdcli.models.inference import Floats, Graph, Ints, Model, Weights, numpy_model, onnx_model, word_vectors

PRIME, FACTOR = 2**31 - 1, 1_000_003_919  # (PRIME + PRIME) * FACTOR fits int64: nothing overflows
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
LAYERS = ("fc", "logits")


def ngram_rows(words: Any, longest: int, buckets: int) -> list[Any]:
    """Return the row of each n-gram, ``[batch, time - n + 1]`` for n from 2 on, of words as a tensor or an array.

    The words are coefficients of a polynomial in ``FACTOR``, modulo ``PRIME`` (Karp and Rabin 1987).
    """
    keys, rows = words * FACTOR % PRIME, []
    for n in range(2, longest + 1):
        keys = (keys[:, :-1] + words[:, n - 1 :]) * FACTOR % PRIME
        rows.append(keys % buckets)
    return rows


def averaging(longest: int, weights: Weights) -> Model:
    """Return the model in NumPy; weights of another model are a ``KeyError`` or a ``ValueError``."""
    vectors, ngrams = word_vectors(weights), weights["ngrams.weight"]

    def encode(words: Ints, lengths: Ints) -> Floats:
        present = np.arange(words.shape[1]) < lengths[:, None]
        counted = np.concatenate([present[:, n:] for n in range(longest)], axis=1)
        shares = (counted / np.sqrt(counted.sum(axis=1, keepdims=True))).astype(np.float32)
        rows = np.concatenate(ngram_rows(words, longest, len(ngrams)), axis=1)
        single, longer = np.split(shares[:, None], [words.shape[1]], axis=2)
        average: Floats = single @ vectors[words] + longer @ ngrams[rows]
        return average[:, 0]

    return numpy_model(encode, LAYERS, weights, words=256)


def graph(longest: int, task: Task, weights: Weights) -> Graph:
    """Return the model as an ONNX graph."""
    every = range(1, longest + 1)
    found, counted = (", ".join(f"{name}_{n}" for n in every) for name in ("found", "counted"))
    ngrams = "".join(NGRAMS.format(n=n, less=n - 1) for n in every[1:])
    encode = ENCODE.format(ngrams=ngrams, found=found, counted=counted)
    constants = {"first": [0], "last": [-1], "end": [PRIME], "factor": FACTOR, "prime": PRIME}
    constants["buckets"] = len(weights["ngrams.weight"])
    return onnx_model("kd_dan", task, encode, LAYERS, {**weights, **constants})
