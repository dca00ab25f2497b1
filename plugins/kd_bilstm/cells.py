"""A step of an LSTM and of a GRU in NumPy, and their weights in the form that makes it cheap.

sigmoid(x) is (tanh(x / 2) + 1) / 2. The halves inside of tanh are in the weights, so one tanh serves all gates at once;
those outside are taken together, one for each product of gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdcli.models.inference import Floats, Weights, channels

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
FILL = 1024
"""Words that are put into the table at once."""


class Layer(NamedTuple):
    """The weights of a recurrent layer, the two directions side by side.

    Attributes:
        inputs: ``[2, input, gates * hidden]``.
        biases: What is added to the input's part, ``[2, 1, gates * hidden]``.
        recurrent: ``[2, hidden, gates * hidden]``.
        apart: The recurrent bias of a GRU's new state, which the reset gate scales, ``[2, hidden]``.
    """

    inputs: Floats
    biases: Floats
    recurrent: Floats
    apart: Floats

    def given(self, inputs: Floats) -> Floats:
        """Return the input's part of the gates, ``[2, words, gates * hidden]``, for inputs ``[words, input]``."""
        given: Floats = inputs @ self.inputs
        given += self.biases
        return given


class WordTable:
    """The input's part of the gates for each word, computed when the word first comes.

    Args:
        weights: The model's, by name.
        layer: Its first layer.

    Attributes:
        table: ``[2, vocabulary, gates * hidden]``.
    """

    def __init__(self, weights: Weights, layer: Layer) -> None:
        self.channels = channels(weights)
        self.layer = layer
        size = len(self.channels[0])
        # Memory that nothing was written to is not taken.
        self.table = np.empty((2, size, layer.inputs.shape[2]), np.float32)
        self._filled = np.zeros(size, np.bool_)

    def missing(self, words: NDArray[Any]) -> list[NDArray[np.intp]]:
        """Return those of the words that are not in the table yet, in blocks.

        Raises:
            IndexError: A word is not in the vocabulary.
        """
        if self._filled[words].all():
            return []
        needed = np.zeros_like(self._filled)
        needed[words] = True
        new = np.flatnonzero(needed & ~self._filled)
        return [new[begin : begin + FILL] for begin in range(0, len(new), FILL)]

    def fill(self, words: NDArray[np.intp]) -> None:
        """Put words into the table."""
        vectors = np.concatenate([channel[words] for channel in self.channels], axis=1)
        self.table[:, words] = self.layer.given(vectors)
        self._filled[words] = True


class Cell(NamedTuple):
    """A recurrent unit.

    Attributes:
        gates: The number of its gates.
        parts: The number of values that a unit passes on, the hidden state the last of them.
        fold: Takes the weights of a layer, by the model's weights, the layer's number and the hidden size.
        step: Takes a step, by: the input's part of the gates, ``[rows, gates * hidden]``; the recurrent part; room for
            the gates with the state before behind them, ``[gates + parts, rows, hidden]``; where to write the state
            after, ``[parts, rows, hidden]``, which may be the state before; ``Layer.apart``. It overwrites the first
            three.
    """

    gates: int
    parts: int
    fold: Callable[[Weights, int, int], Layer]
    step: Callable[[Floats, Floats, Floats, Floats, Floats], None]


def lstm_layer(weights: Weights, number: int, hidden: int) -> Layer:
    """Fold the weights of an LSTM; its gates are then: leave, enter, keep, new.

    Raises:
        KeyError: A weight is missing.
        ValueError: The weights have another size.
    """
    order, scales = (3, 0, 1, 2), (0.5, 0.5, 0.5, 1)
    inputs, recurrent, bias_ih, bias_hh = (_gates(weights, name, number, hidden, order, scales) for name in NAMES)
    return Layer(inputs, bias_ih + bias_hh, recurrent, np.zeros((2, hidden), np.float32))


def lstm(given: Floats, product: Floats, work: Floats, after: Floats, apart: Floats) -> None:
    """Take a step of an LSTM, whose state is: memory, hidden."""
    memory, hidden = after
    given += product
    np.tanh(_apart(given, 4), out=work[:4])
    work[:3] += 1
    work[1:3] *= work[3:5]  # enter * new, keep * memory
    np.add(work[1], work[2], out=memory)
    memory *= 0.5
    np.tanh(memory, out=work[3])
    np.multiply(work[3], work[0], out=hidden)
    hidden *= 0.5


def gru_layer(weights: Weights, number: int, hidden: int) -> Layer:
    """Fold the weights of a GRU; its gates are: reset, update, new.

    Raises:
        KeyError: A weight is missing.
        ValueError: The weights have another size.
    """
    given, recurring = (0.5, 0.5, 1), (0.5, 0.5, 0.5)
    inputs, recurrent, bias_ih, bias_hh = (
        _gates(weights, name, number, hidden, (0, 1, 2), recurring if name.endswith("hh") else given) for name in NAMES
    )
    bias_ih[..., : 2 * hidden] += bias_hh[..., : 2 * hidden]
    return Layer(inputs, bias_ih, recurrent, bias_hh[:, 0, 2 * hidden :].copy())


def gru(given: Floats, product: Floats, work: Floats, after: Floats, apart: Floats) -> None:
    """Take a step of a GRU, whose state is: hidden."""
    given, product = _apart(given, 3), _apart(product, 3)
    reset, update, new, before = work[:4]
    np.add(given[:2], product[:2], out=work[:2])
    np.tanh(work[:2], out=work[:2])
    work[:2] += 1
    np.add(product[2], apart, out=new)
    new *= reset
    new += given[2]
    np.tanh(new, out=new)
    np.subtract(before, new, out=reset)
    reset *= update
    reset *= 0.5
    np.add(new, reset, out=after[0])


def _apart(gates: Floats, count: int) -> Floats:
    """View ``[rows, gates * hidden]`` as ``[gates, rows, hidden]``."""
    return gates.reshape(len(gates), count, -1).swapaxes(0, 1)


CELLS = {"lstm": Cell(4, 2, lstm_layer, lstm), "gru": Cell(3, 1, gru_layer, gru)}


def _gates(
    weights: Weights, name: str, number: int, hidden: int, order: Sequence[int], scales: Sequence[float]
) -> Floats:
    """Return weights of both directions, ``[2, input, gates * hidden]``, or biases, ``[2, 1, gates * hidden]``."""
    both = np.stack([weights[f"rnn.{name}_l{number}{direction}"] for direction in ("", "_reverse")])
    parts = both.reshape(2, len(order), hidden, -1)[:, order] * np.array(scales, np.float32)[:, None, None]
    return np.ascontiguousarray(parts.reshape(2, len(order) * hidden, -1).swapaxes(1, 2))
