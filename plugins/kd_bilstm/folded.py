"""The model for prediction alone, in NumPy.

After training, the input's part of the gates is a constant of each word: the product of its vector with the input
weights, four fifths of the arithmetic. It is kept in a table. And a hidden state depends on nothing but the words that
lead to it, so texts that begin alike share the states of their beginning, and for the second direction those that end
alike share the states of their end: each different prefix is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kd_bilstm.cells import CELLS, Layer, WordTable
from kd_bilstm.prefixes import Level, levels, near, reverse
from kdcli.models.inference import Cores, Floats, Ints, Weights

Places = NDArray[np.intp]

BLOCK = 512
"""States computed at once: what they need should fit a core's own cache."""
WORDS = 65_536
"""The most words of the texts that a thread takes in one go, where there is more than one text."""
ROWS = 1024
"""Rows of a product outside the recurrence."""


class FoldedBiRNN:
    """What ``kd_bilstm.model.BiRNN`` computes in evaluation mode.

    Args:
        weights: The module's, by name.
        cell: ``lstm`` or ``gru``.
        hidden: Size of a hidden state.
        layers: Number of recurrent layers.
        pooling: What stands for a text: ``last`` or ``max``.

    Raises:
        KeyError: A weight is missing.
        ValueError: The weights are those of another model.
    """

    def __init__(self, weights: Weights, *, cell: str, hidden: int, layers: int, pooling: str) -> None:
        self.hidden, self.by_maximum = hidden, pooling == "max"
        self.cell = CELLS[cell]
        self.layers = [self.cell.fold(weights, number, hidden) for number in range(layers)]
        self.words = WordTable(weights, self.layers[0])
        self.head = [(weights[f"{name}.weight"].T, weights[f"{name}.bias"]) for name in ("fc", "logits")]
        if len(weights) > len(self.words.channels) + 8 * layers + 2 * len(self.head):
            raise ValueError("there are more weights than the model has")
        self.cores = Cores()

    def __call__(self, words: tuple[Ints, ...], lengths: tuple[Ints, ...]) -> Floats:
        """Return logits, ``[batch, outputs]``, for words ``[batch, time]`` and lengths ``[batch]`` of each text column.

        Raises:
            IndexError: A word is not in the vocabulary.
        """
        with self.cores.taken():
            if len(lengths[0]) == 1:
                texts = [text[0, : int(length[0])] for text, length in zip(words, lengths, strict=True)]
                return self._logits([self._encode_one(text) for text in texts])
            states = np.split(self._encode(_stacked(words), np.concatenate(lengths).astype(np.intp)), len(words))
            blocks = [[part[begin : begin + ROWS] for part in states] for begin in range(0, len(states[0]), ROWS)]
            return np.concatenate(self.cores.each(self._logits, blocks))

    def _logits(self, states: Sequence[Floats]) -> Floats:
        """Return logits, ``[batch, outputs]``, for the pooled states of each text column, ``[batch, 2 * hidden]``."""
        if len(states) == 2:
            one, two = states
            states = [np.concatenate([one, two, np.abs(one - two), one * two], axis=1)]
        (weight, bias), (last_weight, last_bias) = self.head
        hidden = np.maximum(states[0] @ weight + bias, 0)  # [batch, fc]
        logits: Floats = hidden @ last_weight + last_bias
        return logits

    def _encode_one(self, text: Ints) -> Floats:
        """Return the pooled states of a text ``[time]``, ``[1, 2 * hidden]``; both directions take a step at once."""
        for block in self.words.missing(text):
            self.words.fill(block)
        given = self.words.table[:, text]  # [2, time, gates * hidden]
        states = self._steps(self.layers[0], given)
        for layer in self.layers[1:]:
            inputs = np.concatenate([states[:, 0], states[::-1, 1]], axis=1)  # [time, 2 * hidden]
            states = self._steps(layer, layer.given(inputs))
        pooled: Floats = states.max(axis=0) if self.by_maximum else states[-1]
        return pooled.reshape(1, -1)

    def _steps(self, layer: Layer, given: Floats) -> Floats:
        """Return the hidden states of a text, ``[time, 2, hidden]``; the second direction's last words first."""
        gates, parts, _, step = self.cell
        steps = np.stack([given[0], given[1, ::-1]], axis=1)  # [time, 2, gates * hidden]
        states = np.empty((*steps.shape[:2], self.hidden), np.float32)
        work = np.zeros((gates + parts, *states.shape[1:]), np.float32)
        recurrent = np.empty_like(steps[0])
        for word, hidden in zip(steps, states, strict=True):
            np.matmul(work[-1, :, None], layer.recurrent, out=recurrent[:, None])
            step(word, recurrent, work, work[gates:], layer.apart)
            hidden[:] = work[-1]
        return states

    def _encode(self, ids: Ints, lengths: Places) -> Floats:
        """Return the pooled states of texts ``[texts, time]``, ``[texts, 2 * hidden]``."""
        self.cores.each(self.words.fill, self.words.missing(ids))
        pooled = np.empty((len(ids), 2, self.hidden), np.float32)

        def encode(job: tuple[Places, tuple[int, ...]]) -> None:
            rows, directions = job
            sizes, tables = lengths[rows], self.words.table
            texts = ids[rows, : sizes.max()]
            for layer, above in pairwise(self.layers):
                tables = above.given(self._outputs(layer, tables, texts, sizes))
                texts = _places(sizes)
            for direction in directions:
                pooled[rows, direction] = self._pooled(direction, tables[direction], texts, sizes)

        # The directions of a single layer go apart, each with neighbours of its own; layers above it need both.
        apart = [(0,), (1,)] if len(self.layers) == 1 else [(0, 1)]
        orders = [near(ids, lengths, backward=directions == (1,)) for directions in apart]
        self.cores.each(
            encode,
            [
                (rows, directions)
                for directions, order in zip(apart, orders, strict=True)
                for rows in _pieces(order, lengths)
            ],
        )
        return pooled.reshape(len(ids), -1)

    def _outputs(self, layer: Layer, tables: Floats, ids: Ints, lengths: Places) -> Floats:
        """Return a layer's hidden states for each word, text after text, ``[words, 2 * hidden]``."""
        outputs = np.empty((lengths.sum(), 2, self.hidden), np.float32)
        begins = np.cumsum(lengths) - lengths
        for direction, table in enumerate(tables):
            walk = self._walk(layer, direction, table, ids, lengths)
            for time, (level, states) in enumerate(walk):
                texts = level.texts
                places = begins[texts] + (lengths[texts] - 1 - time if direction else time)
                outputs[places, direction] = states[self.cell.parts - 1, level.nodes]
        return outputs.reshape(len(outputs), -1)

    def _pooled(self, direction: int, table: Floats, ids: Ints, lengths: Places) -> Floats:
        """Return the last layer's hidden states of a direction, pooled over time, ``[texts, hidden]``."""
        pooled = np.empty((len(ids), self.hidden), np.float32)
        for level, states in self._walk(self.layers[-1], direction, table, ids, lengths, maxima=self.by_maximum):
            pooled[level.texts[level.ends]] = states[-1, level.nodes[level.ends]]
        return pooled

    def _walk(
        self, layer: Layer, direction: int, table: Floats, ids: Ints, lengths: Places, *, maxima: bool = False
    ) -> Iterator[tuple[Level, Floats]]:
        """Compute the states of all prefixes of texts, one word longer each time.

        Args:
            layer: The layer.
            direction: 1 to read the texts from their ends.
            table: The input's part of the gates, ``[inputs, gates * hidden]``.
            ids: Which of them each word takes, ``[texts, time]``.
            lengths: The words of each text.
            maxima: Note the largest value so far of each unit too.

        Yields:
            The prefixes of that length, and their states, ``[parts, prefixes, hidden]``, the maxima behind the hidden
            state; they are good until the next but one.
        """
        (gates, parts, _, step), size = self.cell, self.hidden
        before = np.zeros((parts + maxima, 1, size), np.float32)
        if maxima:
            before[-1] = -np.inf
        room = np.empty((2, (parts + maxima) * len(ids) * size), np.float32)
        gates_room, product_room = np.empty((2, BLOCK, gates * size), np.float32)
        work_room = np.empty((gates + parts + maxima) * BLOCK * size, np.float32)
        for time, level in enumerate(levels(reverse(ids, lengths) if direction else ids, lengths)):
            after = _shaped(room[time % 2], parts + maxima, len(level.ids), size)
            for begin in range(0, len(level.ids), BLOCK):
                words, parents = level.ids[begin : begin + BLOCK], level.parents[begin : begin + BLOCK]
                # "clip" spares a copy; every index is in range.
                given = np.take(table, words, axis=0, out=gates_room[: len(words)], mode="clip")
                work = _shaped(work_room, gates + parts + maxima, len(words), size)
                np.take(before, parents, axis=1, out=work[gates:], mode="clip")
                product = np.matmul(work[gates + parts - 1], layer.recurrent[direction], out=product_room[: len(words)])
                new = after[:, begin : begin + BLOCK]
                step(given, product, work[: gates + parts], new[:parts], layer.apart[direction])
                if maxima:
                    np.maximum(work[-1], new[parts - 1], out=new[-1])
            yield level, after
            before = after


def _shaped(room: Floats, *shape: int) -> Floats:
    """Return an array without gaps that lies in the room."""
    return room[: math.prod(shape)].reshape(shape)


def _stacked(words: Sequence[Ints]) -> Ints:
    """Put the text columns below each other, ``[columns * batch, time]``."""
    longest = max(column.shape[1] for column in words)
    return np.concatenate([np.pad(column, ((0, 0), (0, longest - column.shape[1]))) for column in words])


def _places(lengths: Places) -> Places:
    """Number the words of texts, text after text, ``[texts, time]``; without meaning beyond their ends."""
    places: Places = (np.cumsum(lengths) - lengths)[:, None] + np.arange(lengths.max())
    return places


def _pieces(order: Places, lengths: Places) -> list[Places]:
    """Cut rows, in the order given, into pieces of about as many words, at most about ``WORDS``."""
    words = np.cumsum(lengths[order])
    count = -(-int(words[-1]) // WORDS)
    piece = (words - 1) * count // int(words[-1])
    return np.split(order, np.flatnonzero(np.diff(piece)) + 1)
