import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.api import Task
from kdcli.transfer.cleaning import clean, hashes, new_texts, plain, select, spaced, stream, take

HASHES = st.lists(st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 2, 2**64 - 1]), max_size=12)
SINGLE, PAIR = Task("t", "single", ("0", "1")), Task("t", "pair", ("0", "1"))


def one_by_one(made, train, held_out):
    """Do the same with sets."""
    seen, keep, duplicates, copies = set(), [], 0, {"train": set(), "held out": set()}
    for key in made:
        duplicates += key in seen
        where = "train" if key in train else "held out" if key in held_out else None
        keep.append(key not in seen and where is None)
        if where:
            copies[where].add(key)
        seen.add(key)
    return keep, duplicates, len(copies["train"]), len(copies["held out"])


@settings(deadline=None)
@given(HASHES, HASHES, HASHES)
def test_keeps_what_a_set_would_keep(made, train, held_out):
    new = new_texts(*(np.array(some, np.uint64) for some in (made, train, held_out)))
    found = (new.keep.tolist(), new.duplicates, new.train_copies, new.held_out_copies)
    assert found == one_by_one(made, train, held_out)
    assert new.keep.sum() + new.duplicates + new.train_copies + new.held_out_copies == len(made)


@given(st.data())
def test_rows_are_kept_and_taken_by_their_numbers(data):
    count = data.draw(st.integers(0, 9))
    frame = pl.DataFrame({"n": pl.Series(range(count), dtype=pl.Int64)})
    lazy = stream(frame.iter_slices(2), frame.schema) if data.draw(st.booleans()) and count else frame.lazy()
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    assert select(lazy, keep).collect()["n"].to_list() == np.flatnonzero(keep).tolist()
    numbers = np.array(data.draw(st.permutations(range(count)))[: data.draw(st.integers(0, 9))], np.int64)
    assert take(frame.lazy(), numbers, count)["n"].to_list() == numbers.tolist()


def test_hashes_see_white_space_and_controls_as_they_are_asked_to():
    frame = plain(pl.DataFrame({"sentence": [" a  b", "a b", "a\x07 b", None, ""], "label": [1, 0, 1, 0, 1]}), SINGLE)
    assert frame["label"].to_list() == ["1", "0", "1", "0", "1"]
    by_space, by_clean = hashes([frame], SINGLE, spaced), hashes([frame[:2], frame[2:]], SINGLE, clean)
    assert by_space[0] == by_space[1] != by_space[2] and by_space[3] == by_space[4]
    assert by_clean[0] == by_clean[1] == by_clean[2] == by_space[0]
    assert hashes([], SINGLE, spaced).tolist() == []
    pairs = plain(pl.DataFrame({"sentence1": ["a", "ab"], "sentence2": ["bc", "c"], "index": [1, 2]}), PAIR)
    assert pairs.columns == ["sentence1", "sentence2"] and len(set(hashes([pairs], PAIR, spaced))) == 2


def test_what_a_stream_raises_comes_through():
    def frames():
        yield pl.DataFrame({"a": [1]})
        raise KeyError("late")

    with pytest.raises(KeyError, match="late"):
        stream(frames(), {"a": pl.Int64}).collect()
