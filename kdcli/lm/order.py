"""The order in which rows are learned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from kdcli.lm.learner import Examples

POOL = 50
"""Updates whose texts are sorted by length together: enough to pad little, few enough to stay random."""


class ByLength(Sampler[int]):
    """Rows in random order, but so that the rows of an update are about equally long.

    The order depends on the seed, the epoch and the rows' lengths in it alone, so that a resumed training and all
    processes of one see the same. The longest rows come first in the first epoch: if memory does not suffice, it
    shows at once.

    Args:
        examples: The rows.
        update: Rows an update.
        seed: Seed of the order.
    """

    def __init__(self, examples: Examples, update: int, seed: int) -> None:
        self.examples = examples
        self.update = update
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[int]:
        rows, lengths = len(self.examples), self.examples.lengths
        random = np.random.default_rng((self.seed, self.epoch))
        pool = self.update * min(max(rows // (4 * self.update), 1), POOL)
        pool_of = np.arange(rows) // pool
        order = random.permutation(rows)
        order = order[np.lexsort((-lengths[order], pool_of))]
        whole = rows // self.update * self.update
        updates = random.permutation(order[:whole].reshape(-1, self.update))
        if self.epoch == 0 and len(updates):
            longest = lengths[updates].max(axis=1).argmax()
            updates[[0, longest]] = updates[[longest, 0]]
        yield from (*updates.ravel().tolist(), *order[whole:].tolist())
