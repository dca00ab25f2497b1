"""The tree of the prefixes of texts: what two texts have in common from their start on is there once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[Any]

NEAR = 8
"""Texts are put in the order of so many words: what they share beyond is nearly always shared by neighbours too."""


class Level(NamedTuple):
    """The nodes of a tree at one time step, and the texts that have a word there.

    Attributes:
        ids: The last word of each prefix, ``[nodes]``.
        parents: Its node of the level before, the root for those of the first, ``[nodes]``.
        texts: The texts, ``[texts here]``.
        nodes: The node of each, ``[texts here]``.
        ends: Whether it is the text's last, ``[texts here]``.
    """

    ids: NDArray[np.intp]
    parents: NDArray[np.intp]
    texts: NDArray[np.intp]
    nodes: NDArray[np.intp]
    ends: NDArray[np.bool_]


def levels(ids: Ints, lengths: Ints) -> Iterator[Level]:
    """Walk through the tree of texts ``[texts, time]``.

    Neighbours share their common prefix; in the order of their words, all texts do.
    """
    differs = np.ones((len(ids), ids.shape[1] + 1), np.bool_)
    np.not_equal(ids[1:], ids[:-1], out=differs[1:, :-1])
    shared = differs.argmax(axis=1)  # words in common with the text before
    shared[1:] = np.minimum.reduce([shared[1:], lengths[1:], lengths[:-1]])
    texts, nodes = np.arange(len(ids)), np.zeros(len(ids), np.intp)
    for time, words in enumerate(np.ascontiguousarray(ids.T, np.intp), 1):
        new = shared < time
        parents = nodes[new]
        # A text without a node of its own has the last one made before it.
        nodes = np.cumsum(new) - 1
        ends = lengths == time
        yield Level(words[texts[new]], parents, texts, nodes, ends)
        goes_on = ~ends
        texts, nodes, shared, lengths = (each[goes_on] for each in (texts, nodes, shared, lengths))


def near(ids: Ints, lengths: Ints, *, backward: bool) -> NDArray[np.intp]:
    """Return texts ``[texts, time]`` in an order in which those that begin alike, or end alike, are neighbours."""
    first = reverse(ids, lengths, NEAR) if backward else ids[:, :NEAR]
    first = np.where(np.arange(first.shape[1]) < lengths[:, None], first, 0).astype(ids.dtype)
    order: NDArray[np.intp] = np.lexsort(np.ascontiguousarray(first.T[::-1]))
    return order


def reverse(ids: Ints, lengths: Ints, limit: int | None = None) -> Ints:
    """Return texts read from their ends, ``[texts, time]``, or the last words of each, ``[texts, limit]``."""
    time = np.arange(ids.shape[1])[:limit]
    return np.take_along_axis(ids, np.maximum(lengths[:, None] - 1 - time, 0), axis=1)
