"""The tree of the prefixes of texts: what texts that begin alike, or end alike, have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdcli.models.inference import Ints

Places = NDArray[np.intp]

NEAR = 8  # texts are sorted by so many words: neighbours nearly always share what texts share beyond


class Level(NamedTuple):
    """The nodes of the tree of prefixes at one time step."""

    ids: Places  # [nodes], the last word of each prefix
    parents: Places  # [nodes], its node of the level before, the root for those of the first
    nodes: Places  # [texts], the node of each text; without meaning where the text has ended


def levels(ids: Ints, lengths: Ints) -> Iterator[Level]:
    """Walk through the tree of the prefixes of texts ``[texts, time]``, of which neighbours share what they can."""
    differs = np.ones((len(ids), ids.shape[1] + 1), np.bool_)
    np.not_equal(ids[1:], ids[:-1], out=differs[1:, :-1])
    shared = differs.argmax(axis=1)  # words in common with the text before
    shared[1:] = np.minimum.reduce([shared[1:], lengths[1:], lengths[:-1]])
    time = np.arange(ids.shape[1])[:, None]
    new = (shared <= time) & (time < lengths)  # [time, texts]
    # A text without a node of its own has the last one made before it.
    nodes = np.cumsum(new, axis=1) - 1
    parents = np.concatenate([np.zeros_like(nodes[:1]), nodes[:-1]])[new]
    cuts = np.cumsum(np.count_nonzero(new, axis=1))[:-1]
    return map(Level, np.split(ids.T[new], cuts), np.split(parents, cuts), nodes)


def near(ids: Ints, lengths: Ints, *, backward: bool) -> Places:
    """Return texts ``[texts, time]`` in an order in which those that begin alike, or end alike, are neighbours."""
    first = reverse(ids, lengths, NEAR) if backward else ids[:, :NEAR]
    first = np.where(np.arange(first.shape[1]) < lengths[:, None], first, 0).astype(ids.dtype)
    order: Places = np.lexsort([*np.ascontiguousarray(first.T[::-1]), lengths // 8])
    return order


def reverse(ids: Ints, lengths: Ints, limit: int | None = None) -> Ints:
    """Return texts read from their ends, ``[texts, time]``, or the last words of each, ``[texts, limit]``."""
    time = np.arange(ids.shape[1])[:limit]
    return np.take_along_axis(ids, np.maximum(lengths[:, None] - 1 - time, 0), axis=1)
