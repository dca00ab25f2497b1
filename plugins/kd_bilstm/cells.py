"""A step of an LSTM and of a GRU in NumPy, and their weights in the form that makes it cheap.

sigmoid(x) is (tanh(x / 2) + 1) / 2. The halves inside of tanh are in the weights, so one tanh serves all gates at once;
those outside are applied together, one for each product of gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kdcli.models.inference import Floats, Weights


class LayerWeights(NamedTuple):
    """The weights of a recurrent layer, the two directions side by side.

    Attributes:
        inputs: ``[2, input, gates * hidden]``.
        biases: Added to the input's part, ``[2, 1, gates * hidden]``.
        recurrent: ``[2, hidden, gates * hidden]``.
        apart: The recurrent bias of a GRU's new state, which the reset gate scales, ``[2, hidden]``.
    """

    inputs: Floats
    biases: Floats
    recurrent: Floats
    apart: Floats

    def input_part(self, inputs: Floats) -> Floats:
        """Return the input's part of the gates, ``[2, words, gates * hidden]``, for inputs ``[words, input]``."""
        part: Floats = inputs @ self.inputs
        part += self.biases
        return part


class Cell(NamedTuple):
    """A recurrent unit.

    Attributes:
        gates: The number of its gates.
        parts: The number of values that a unit passes on, the hidden state the last of them.
        fold: Makes a ``Layer`` of the model's weights, the layer's number and the hidden size. A missing weight is a
            ``KeyError``, one of another size a ``ValueError``.
        step: Takes a step, from: the input's part of the gates, ``[rows, gates * hidden]``; the recurrent part; room
            for the gates with the state before behind them, ``[gates + parts, rows, hidden]``; where to write the state
            after, ``[parts, rows, hidden]``, which may be the state before; ``Layer.apart``. It overwrites the first
            three.
    """

    gates: int
    parts: int
    fold: Callable[[Weights, int, int], LayerWeights]
    step: Callable[[Floats, Floats, Floats, Floats, Floats], None]


def _lstm_layer(weights: Weights, number: int, hidden: int) -> LayerWeights:
    order, scales = (3, 0, 1, 2), (0.5, 0.5, 0.5, 1)  # output, input, forget, new
    inputs, recurrent, bias_ih, bias_hh = (
        _gates(weights, f"{name}_l{number}", hidden, order, scales)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return LayerWeights(inputs, bias_ih + bias_hh, recurrent, np.zeros((2, hidden), np.float32))


def _lstm(inputs: Floats, product: Floats, work: Floats, after: Floats, apart: Floats) -> None:
    memory, hidden = after
    inputs += product
    np.tanh(_by_gate(inputs, 4), out=work[:4])
    work[:3] += 1
    work[1:3] *= work[3:5]  # input * new, forget * memory
    np.add(work[1], work[2], out=memory)
    memory *= 0.5
    np.tanh(memory, out=work[3])
    np.multiply(work[3], work[0], out=hidden)
    hidden *= 0.5


def _gru_layer(weights: Weights, number: int, hidden: int) -> LayerWeights:
    order = (0, 1, 2)  # reset, update, new
    inputs, bias_ih = (
        _gates(weights, f"{name}_l{number}", hidden, order, (0.5, 0.5, 1)) for name in ("weight_ih", "bias_ih")
    )
    recurrent, bias_hh = (
        _gates(weights, f"{name}_l{number}", hidden, order, (0.5, 0.5, 0.5)) for name in ("weight_hh", "bias_hh")
    )
    bias_ih[..., : 2 * hidden] += bias_hh[..., : 2 * hidden]
    return LayerWeights(inputs, bias_ih, recurrent, bias_hh[:, 0, 2 * hidden :].copy())


def _gru(inputs: Floats, product: Floats, work: Floats, after: Floats, apart: Floats) -> None:
    inputs, product = _by_gate(inputs, 3), _by_gate(product, 3)
    reset, update, new, before = work[:4]
    np.add(inputs[:2], product[:2], out=work[:2])
    np.tanh(work[:2], out=work[:2])
    work[:2] += 1
    np.add(product[2], apart, out=new)
    new *= reset
    new += inputs[2]
    np.tanh(new, out=new)
    np.subtract(before, new, out=reset)
    reset *= update
    reset *= 0.5
    np.add(new, reset, out=after[0])


def _by_gate(values: Floats, gates: int) -> Floats:
    """View ``[rows, gates * hidden]`` as ``[gates, rows, hidden]``."""
    return values.reshape(len(values), gates, -1).swapaxes(0, 1)


def _gates(weights: Weights, name: str, hidden: int, order: Sequence[int], scales: Sequence[float]) -> Floats:
    """Return weights of both directions, ``[2, input, gates * hidden]``, or biases, ``[2, 1, gates * hidden]``."""
    both = np.stack([weights[f"rnn.{name}{direction}"] for direction in ("", "_reverse")])
    parts = both.reshape(2, len(order), hidden, -1)[:, order] * np.array(scales, np.float32)[:, None, None]
    return np.ascontiguousarray(parts.reshape(2, len(order) * hidden, -1).swapaxes(1, 2))


CELLS = {"lstm": Cell(4, 2, _lstm_layer, _lstm), "gru": Cell(3, 1, _gru_layer, _gru)}
