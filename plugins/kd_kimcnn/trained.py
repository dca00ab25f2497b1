"""The trained model without torch: in NumPy, and as an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdcli.api import Task
from kdcli.models.inference import Floats, Graph, Ints, Model, Weights, numpy_model, onnx_model, word_vectors

ENCODE = """
    found = Gather (vectors, words)
    columns = Transpose <perm = [0, 2, 1]> (found)
    mask = Unsqueeze (present, axis)
    text = Mul (columns, mask)
"""
FILTERS = """
    values_{number} = Conv <pads = [{beyond}, {beyond}]> (text, filters_{number}_weight, filters_{number}_bias)
    positive_{number} = Relu (values_{number})
    windows_{number} = MaxPool <kernel_shape = [{width}], pads = [{beyond}, {beyond}]> (mask)
    counted_{number} = Mul (positive_{number}, windows_{number})
    highest_{number} = ReduceMax <axes = [2], keepdims = 0> (counted_{number})
"""  # a window counts if it sees a word


def graph(widths: Sequence[int], task: Task, weights: Weights) -> Graph:
    """Build the model as an ONNX graph."""
    filters = (FILTERS.format(number=number, width=width, beyond=width - 1) for number, width in enumerate(widths))
    highest = ", ".join(f"highest_{number}" for number in range(len(widths)))
    encode = f"{ENCODE}{''.join(filters)} states = Concat <axis = 1> ({highest})"
    return onnx_model("kd_kimcnn", task, encode, ["logits"], weights)


def folded(filters: int, widths: Sequence[int], weights: Weights) -> Model:
    """Return the model in NumPy.

    What a filter makes of a word at each of its places is a constant of the word: it is computed when the word first
    comes. The value of a window is then a sum of as many numbers as it has places.

    Raises:
        KeyError: A weight is missing.
        ValueError: The weights are those of another model.
    """
    vectors = word_vectors(weights)
    size, dimension = vectors.shape
    by_width = [weights[f"filters.{number}.weight"].transpose(1, 2, 0) for number in range(len(widths))]
    places = [each.reshape(dimension, width * filters) for each, width in zip(by_width, widths, strict=True)]
    matrix = np.concatenate(places, axis=1)  # [dimension, sum of widths * filters]
    biases = np.concatenate([weights[f"filters.{number}.bias"] for number in range(len(widths))])
    table, known = np.empty((size, matrix.shape[1]), np.float32), np.zeros(size, np.bool_)

    def encode(words: Ints, lengths: Ints) -> Floats:
        (texts, time), ends = words.shape, lengths[:, None]
        new = np.unique(words[~known[words]])
        table[new] = vectors[new] @ matrix
        known[new] = True
        made = np.where((np.arange(time) < ends)[:, :, None], table[words], 0)
        parts = iter(np.split(made, sum(widths), axis=2))  # [texts, time, filters] for each place of each width
        states = []
        for width in widths:
            values = np.zeros((texts, time + width - 1, filters), np.float32)
            for first in reversed(range(width)):
                values[:, first : first + time] += next(parts)
            values[np.arange(time + width - 1) >= ends + width - 1] = -np.inf
            states.append(values.max(axis=1))
        highest: Floats = np.maximum(np.concatenate(states, axis=1) + biases, 0)
        return highest

    return numpy_model(encode, ["logits"], weights, words=256)
