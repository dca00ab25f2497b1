"""The trained model without torch, in NumPy.

The product of a word's vector with the input weights is a constant after training, and four fifths of the arithmetic:
it is kept in a table. Without alignment, a hidden state depends only on the words that lead to it, so texts that begin
alike share the states of their beginning, and for the second direction those that end alike share the states of their
end: each different prefix is computed once. sigmoid(x) is (tanh(x / 2) + 1) / 2: the halves inside are in the weights,
so one tanh serves all gates at once; those outside are applied together, one for each product of gates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from kd_bilstm.prefixes import Places, levels, near, reverse
from kdcli.api import UNKNOWN
from kdcli.models.inference import Cores, Floats, Ints, Weights, channels, head

Source = Callable[..., Floats]
"""From the numbers of inputs, ``[rows]``, to their part of the gates, put into ``out [rows, gates * hidden]``."""

GROUP = 512  # texts that advance together: what a step of theirs needs should fit a core's own cache
ROWS = 512  # rows of a product outside the recurrence
FEW = 8  # of so few texts the calls take longer than the arithmetic


class LayerWeights(NamedTuple):
    """The weights of a recurrent layer, the two directions side by side."""

    inputs: Floats  # [2, input, gates * hidden]
    biases: Floats  # [2, 1, gates * hidden], added to the input's part
    recurrent: Floats  # [2, hidden, gates * hidden]
    apart: Floats  # [2, hidden], the recurrent bias of a GRU's new state, which the reset gate scales

    def input_part(self, inputs: Floats) -> Floats:
        """Return the input's part of the gates, ``[2, words, gates * hidden]``, for inputs ``[words, input]``."""
        part: Floats = inputs @ self.inputs
        part += self.biases
        return part


class Cell(NamedTuple):
    """A recurrent unit.

    ``step`` takes the input's part of the gates, ``[rows, gates * hidden]``; the recurrent part; room for the gates
    with the state before behind them, ``[gates + parts, rows, hidden]``; where to write the state after,
    ``[parts, rows, hidden]``, which may be the state before; ``apart``. It overwrites the first three.
    """

    gates: int
    parts: int  # values that a unit passes on, the hidden state the last of them
    fold: Callable[[Weights, int, int], LayerWeights]  # of the model's weights, the layer's number and the hidden size
    step: Callable[[Floats, Floats, Floats, Floats, Floats], None]


def _lstm_layer(weights: Weights, number: int, hidden: int) -> LayerWeights:
    order, scales = (3, 0, 1, 2), (0.5, 0.5, 0.5, 1)  # output, input, forget, new
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    inputs, recurrent, bias_ih, bias_hh = (
        _gates(weights, f"{name}_l{number}", hidden, order, scales) for name in names
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


class FoldedBiRNN:
    """``BiRNN`` in evaluation mode; missing weights are a ``KeyError``, those of another model a ``ValueError``."""

    def __init__(self, weights: Weights, *, cell: str, hidden: int, layers: int, pooling: str, alignment: bool) -> None:
        self.hidden, self.by_maximum = hidden, pooling == "max"
        self.cell = CELLS[cell]
        self.layers = [self.cell.fold(weights, number, hidden) for number in range(layers)]
        self.alignment = alignment
        if alignment:
            first = self.layers[0]
            self.layers[0] = first._replace(inputs=first.inputs[:, :-2])
            self.aligned_weights = first.inputs[:, -2:]  # [2, 2, gates * hidden]
        self.words = WordTable(channels(weights), self.layers[0])
        self.head = head(["fc", "logits"], weights)
        if len(weights) > len(self.words.channels) + 8 * layers + 4:
            raise ValueError("there are more weights than the model has")
        self.cores = Cores()

    def __call__(self, words: tuple[Ints, ...], lengths: tuple[Ints, ...]) -> Floats:
        """Return the logits; a word outside the vocabulary is an ``IndexError``."""
        with self.cores.taken():
            longest = max(column.shape[1] for column in words)
            stacked = np.concatenate([np.pad(column, ((0, 0), (0, longest - column.shape[1]))) for column in words])
            self.cores.each(self.words.fill, self.words.missing(stacked))
            counts = np.concatenate(lengths).astype(np.intp)
            aligned = self._align(stacked, counts) if self.alignment else None
            encode = self._encode if len(stacked) > FEW else self._encode_few
            states = np.split(encode(stacked, counts, aligned), len(words))
            blocks = [[part[begin : begin + ROWS] for part in states] for begin in range(0, len(states[0]), ROWS)]
            return np.concatenate(self.cores.each(self.head, blocks))

    def _align(self, words: Ints, lengths: Places) -> Floats:
        """Return what ``BiRNN.align`` does, ``[2 * pairs, time, 2]``."""
        used, places = np.unique(words, return_inverse=True)
        vectors, real = self.words.vectors(used), used != UNKNOWN
        vectors *= real[:, None] / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        aligned = np.zeros((*words.shape, 2), np.float32)
        for one in range(len(words) // 2):
            two = one + len(words) // 2
            rows, columns = places[one, : lengths[one]], places[two, : lengths[two]]
            same = (rows[:, None] == columns) & real[columns]
            likeness = np.stack([vectors[rows] @ vectors[columns].T, same], axis=-1)
            aligned[one, : len(rows)], aligned[two, : len(columns)] = likeness.max(axis=1), likeness.max(axis=0)
        return np.maximum(aligned, 0)

    def _encode_few(self, ids: Ints, lengths: Places, aligned: Floats | None) -> Floats:
        """Return what ``_encode`` does. Texts share nothing, but both directions of all of them take a step at once."""
        texts, time = np.arange(len(ids)), np.arange(ids.shape[1])[:, None]
        back = np.maximum(lengths - 1 - time, 0)  # [time, texts], the places of the words read from the end
        inputs = self.words.table[:, ids.T]
        if aligned is not None:
            inputs += (aligned.swapaxes(0, 1).reshape(-1, 2) @ self.aligned_weights).reshape(inputs.shape)
        states = self._steps(self.layers[0], inputs, back)
        for layer in self.layers[1:]:
            below = np.concatenate([states[:, 0], states[back, 1, texts]], axis=2)
            inputs = layer.input_part(below.reshape(back.size, -1))
            states = self._steps(layer, inputs.reshape(2, *back.shape, -1), back)
        if self.by_maximum:
            inside = (time < lengths)[:, None, :, None]
            pooled: Floats = states.max(axis=0, initial=-np.inf, where=inside).swapaxes(0, 1)
        else:
            pooled = states[lengths - 1, :, texts]
        return pooled.reshape(len(ids), -1)

    def _steps(self, layer: LayerWeights, inputs: Floats, back: Places) -> Floats:
        """Return the hidden states, ``[time, 2, texts, hidden]``, the second direction's last words first.

        ``inputs`` are the input's part of the gates, ``[2, time, texts, gates * hidden]``.
        """
        gates, parts, _, step = self.cell
        time, count = back.shape
        steps = np.concatenate([inputs[0], inputs[1, back, np.arange(count)]], axis=1)  # [time, 2 * texts, ...]
        states = np.empty((time, 2, count, self.hidden), np.float32)
        work = np.zeros((gates + parts, 2 * count, self.hidden), np.float32)
        product, before = np.empty_like(steps[0]), work[-1].reshape(states[0].shape)
        apart = np.repeat(layer.apart, count, axis=0)
        for words, hidden in zip(steps, states, strict=True):
            np.matmul(before, layer.recurrent, out=product.reshape(2, count, -1))
            step(words, product, work, work[gates:], apart)
            hidden[:] = before
        return states

    def _encode(self, ids: Ints, lengths: Places, aligned: Floats | None) -> Floats:
        """Return the pooled states of texts ``[texts, time]``, ``[texts, 2 * hidden]``."""
        pooled = np.empty((len(ids), 2, self.hidden), np.float32)

        def encode(job: tuple[Places, tuple[int, ...]]) -> None:
            rows, directions = job
            sizes = lengths[rows]
            time = np.arange(sizes.max())
            texts, each = ids[rows, : len(time)], (np.cumsum(sizes) - sizes)[:, None] + time  # each word an input
            sources = _rows_of(self.words.table)
            if aligned is not None:
                inside = np.nonzero(time < sizes[:, None])
                words, more = texts[inside], aligned[rows][inside]
                sources, texts = [partial(self._with_alignment, way, words, more) for way in (0, 1)], each
            for layer, above in pairwise(self.layers):
                sources, texts = _rows_of(above.input_part(self._outputs(layer, sources, texts, sizes))), each
            for direction in directions:
                pooled[rows, direction] = self._pooled(direction, sources[direction], texts, sizes)

        # The directions of a single layer go apart, each with neighbours of its own; layers above it need both.
        apart: list[tuple[int, ...]] = [(0,), (1,)] if len(self.layers) == 1 else [(0, 1)]
        orders = [near(ids, lengths, backward=directions == (1,)) for directions in apart]
        count = math.ceil(len(ids) / GROUP)
        jobs = [(rows, way) for way, order in zip(apart, orders, strict=True) for rows in np.array_split(order, count)]
        self.cores.each(encode, jobs)
        return pooled.reshape(len(ids), -1)

    def _with_alignment(self, direction: int, words: Ints, aligned: Floats, places: Places, out: Floats) -> Floats:
        np.take(self.words.table[direction], words[places], axis=0, out=out, mode="clip")
        out += aligned[places] @ self.aligned_weights[direction]
        return out

    def _outputs(self, layer: LayerWeights, sources: Sequence[Source], ids: Ints, lengths: Places) -> Floats:
        """Return a layer's hidden states for each word, text after text, ``[words, 2 * hidden]``."""
        outputs = np.empty((lengths.sum(), 2, self.hidden), np.float32)
        begins = np.cumsum(lengths) - lengths
        for direction, source in enumerate(sources):
            for time, (nodes, states) in enumerate(self._walk(layer, direction, source, ids, lengths)):
                inside = time < lengths
                places = begins + (lengths - 1 - time if direction else time)
                outputs[places[inside], direction] = states[self.cell.parts - 1, nodes[inside]]
        return outputs.reshape(len(outputs), -1)

    def _pooled(self, direction: int, source: Source, ids: Ints, lengths: Places) -> Floats:
        """Return the last layer's hidden states of a direction, pooled over time, ``[texts, hidden]``."""
        pooled = np.empty((len(ids), self.hidden), np.float32)
        walk = self._walk(self.layers[-1], direction, source, ids, lengths, maxima=self.by_maximum)
        for time, (nodes, states) in enumerate(walk, 1):
            ends = lengths == time
            if ends.any():
                pooled[ends] = states[-1, nodes[ends]]
        return pooled

    def _walk(
        self, layer: LayerWeights, direction: int, source: Source, ids: Ints, lengths: Places, *, maxima: bool = False
    ) -> Iterator[tuple[Places, Floats]]:
        """Compute the states of all prefixes of texts, one word longer each time; direction 1 begins at their ends.

        ``source`` gives the inputs' part of the gates, ``ids [texts, time]`` are the inputs of the words. With
        ``maxima``, the largest value so far of each unit lies behind the hidden state. Yields the prefix of each text,
        and their states, ``[parts, prefixes, hidden]``, which are valid until the next ones.
        """
        (gates, parts, _, step), size = self.cell, self.hidden
        before = np.zeros((parts + maxima, 1, size), np.float32)
        if maxima:
            before[-1] = -np.inf
        room = np.empty((parts + maxima) * len(ids) * size, np.float32)
        gates_room, product_room = np.zeros((2, len(ids), gates * size), np.float32)
        work_room = np.empty((gates + parts + maxima) * len(ids) * size, np.float32)
        for time, level in enumerate(levels(reverse(ids, lengths) if direction else ids, lengths)):
            count = len(level.ids)
            inputs = source(level.ids, out=gates_room[:count])
            work = _shaped(work_room, gates + parts + maxima, count, size)
            np.take(before, level.parents, axis=1, out=work[gates:], mode="clip")
            product = product_room[:count]
            if time:  # the first state is zero
                np.matmul(work[gates + parts - 1], layer.recurrent[direction], out=product)
            before = _shaped(room, parts + maxima, count, size)  # where the states after take their place
            step(inputs, product, work[: gates + parts], before[:parts], layer.apart[direction])
            if maxima:
                np.maximum(work[-1], before[parts - 1], out=before[-1])
            yield level.nodes, before


class WordTable:
    """The input's part of the gates for each word, ``[2, vocabulary, gates * hidden]``, computed at its first use."""

    def __init__(self, channels: Sequence[Floats], layer: LayerWeights) -> None:
        self.channels, self.layer = channels, layer
        # Memory is taken only where something is written.
        self.table = np.empty((2, channels[0].shape[0], layer.inputs.shape[2]), np.float32)
        self._filled = np.zeros(channels[0].shape[0], np.bool_)

    def missing(self, words: Ints) -> list[Places]:
        """Return those of the words that are not in the table yet, in blocks; an unknown one is an ``IndexError``."""
        if self._filled[words].all():
            return []
        needed = np.zeros_like(self._filled)
        needed[words] = True
        new = np.flatnonzero(needed & ~self._filled)
        return [new[begin : begin + ROWS] for begin in range(0, len(new), ROWS)]

    def vectors(self, words: Places) -> Floats:
        """Return the vectors of words, all channels side by side, ``[words, size]``."""
        return np.concatenate([channel[words] for channel in self.channels], axis=1)

    def fill(self, words: Places) -> None:
        """Put words into the table."""
        self.table[:, words] = self.layer.input_part(self.vectors(words))
        self._filled[words] = True


def _rows_of(tables: Floats) -> list[Source]:
    """Return a source for each direction from its table, ``[inputs, gates * hidden]``."""
    # "clip" saves a copy; every index is in range.
    return [partial(np.take, table, axis=0, mode="clip") for table in tables]


def _shaped(room: Floats, *shape: int) -> Floats:
    """Return an array without gaps that lies in the room."""
    return room[: math.prod(shape)].reshape(shape)
