import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.student.vocabulary import SPREAD, epoch_batches


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 128), min_size=1, max_size=200), st.integers(1, 60), st.integers(0, 2**40))
def test_an_epoch_is_a_partition(lengths, size, seed):
    batches = epoch_batches(np.array(lengths), size, seed, 3)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches), reverse=True)[:-1] == [size] * (len(batches) - 1)


def test_lengths_of_a_batch_are_close():
    lengths = np.random.default_rng(0).integers(1, 60, 10_000)
    for batch in epoch_batches(lengths, 50, 1, 0):
        assert lengths[batch].max() <= lengths[batch].min() * (1 + SPREAD) + 2


def test_order_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(1, 60, 1000)

    def order(seed, epoch):
        return np.concatenate(epoch_batches(lengths, 50, seed, epoch)).tolist()

    assert order(1, 5) == order(1, 5)
    assert order(1, 5) != order(1, 6) != order(2, 6)


def test_batches_come_in_no_order_of_length():
    lengths = np.random.default_rng(0).integers(1, 60, 5000)
    means = [lengths[batch].mean() for batch in epoch_batches(lengths, 50, 1, 0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_few_rows_meet_others_each_time():
    lengths = np.arange(10, 40)
    meetings = {tuple(sorted(batch)) for epoch in range(10) for batch in epoch_batches(lengths, 10, 1, epoch)}
    assert len(meetings) > 20
