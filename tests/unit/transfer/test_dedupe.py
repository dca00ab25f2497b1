import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from kdcli.api import Task
from kdcli.tables.parquet import stream
from kdcli.transfer.cleaning import hashes, keys, new_texts, plain, select, take

HASHES = st.lists(st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 2, 2**64 - 1]), max_size=12)
SINGLE, PAIR = Task("t", "single", ("0", "1")), Task("t", "pair", ("0", "1"))


def one_by_one(made, train, held_out):
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


NORMALIZER, CUTTER = BertNormalizer(lowercase=True), BertPreTokenizer()


def words_of(text):
    """The words that a student reads, by the tokenizers library."""
    return tuple(word for word, _ in CUTTER.pre_tokenize_str(NORMALIZER.normalize_str(text)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The plot, is dull.", "the plot , is dull ."),
        ("crème brûlée", "creme brulee"),
        ("cre\u0300me bru\u0302le\u0301e", "Crème  Brûlée"),
        (" a  b", "a\x07 b"),
        ("don't", "don ' t"),
        ("电影 很好", "电影很好"),
        ("GOOD\u00a0film", "good film"),
    ],
)
def test_texts_of_the_same_words_are_the_same(one, other):
    assert words_of(one) == words_of(other)
    for frame in (pl.DataFrame({"a": [one, other]}), pl.DataFrame({"a": [one, other], "b": ["x", "x"]})):
        assert len(set(keys(frame))) == 1
    assert len(set(keys(pl.DataFrame({"a": [one, other, f"{one} x"]})))) == 2


@settings(deadline=None)
@given(st.lists(st.text("aB ,.'é\u0301$电-", max_size=6), min_size=2, max_size=12))
def test_other_words_are_another_text(texts):
    found = keys(pl.DataFrame({"a": texts}, schema={"a": pl.String}))
    same = {(a, b): found[i] == found[j] for i, a in enumerate(texts) for j, b in enumerate(texts)}
    assert same == {(a, b): "".join(words_of(a)) == "".join(words_of(b)) for a, b in same}


def test_plain_texts_have_the_same_keys(sst2):
    frame = pl.DataFrame({"sentence": [text.strip() for text in sst2(2000)]})
    assert keys(frame, plain=True).tolist() == keys(frame).tolist()
    table = plain(frame.with_columns(label=pl.lit(1)), SINGLE)
    assert table["label"].to_list() == ["1"] * len(frame)
    assert hashes([table[:5], table[5:]], SINGLE).tolist() == keys(frame).tolist()
    assert hashes([], SINGLE).tolist() == []
    pairs = plain(pl.DataFrame({"sentence1": ["a", "ab"], "sentence2": ["bc", "c"], "index": [1, 2]}), PAIR)
    assert pairs.columns == ["sentence1", "sentence2"] and len(set(hashes([pairs], PAIR))) == 2


def test_what_a_stream_raises_comes_through():
    def frames():
        yield pl.DataFrame({"a": [1]})
        raise KeyError("late")

    with pytest.raises(KeyError, match="late"):
        stream(frames(), {"a": pl.Int64}).collect()
