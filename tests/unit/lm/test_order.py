from types import SimpleNamespace

import numpy as np
import pytest

from kdcli.lm.trainer import ByLength


class Lengths(SimpleNamespace):
    def __len__(self):
        return len(self.lengths)


def drawn(rows, seed=0):
    return SimpleNamespace(rows=Lengths(lengths=np.random.default_rng(seed).integers(3, 60, rows)))


@pytest.mark.parametrize("rows", [5, 64, 1003])
def test_order_by_length(rows):
    examples = drawn(rows)
    order = ByLength(examples, 16, seed=1)
    first, again = list(order), list(order)
    order.epoch = 1
    second = list(order)

    assert first == again
    assert sorted(first) == sorted(second) == list(range(rows))
    if rows == 1003:
        lengths = examples.rows.lengths
        assert first != second and first != list(ByLength(examples, 16, seed=2))
        assert lengths.max() in lengths[first[:16]]

        def padded(indices):
            return sum(len(part) * lengths[part].max() for part in np.array_split(indices, range(16, rows, 16)))

        assert padded(second) < 1.1 * lengths.sum() < padded(np.random.default_rng(0).permutation(rows))
