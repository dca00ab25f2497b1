import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import raising
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.tables.parquet import stream
from kdcli.transfer import cleaning
from kdcli.transfer.cleaning import (
    clean,
    hashes,
    keys,
    mix,
    new_texts,
    one_line,
    plain,
    select,
    spaced,
    split_pairs,
    take,
)

ODD = st.sampled_from(list(" \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u2029\u3000\ufeff\x00\x1b\x7f\x80\x9fab"))
TEXTS = st.one_of(st.text(max_size=20), st.text(ODD, max_size=12))
EVERY = [chr(code) for code in (*range(0x3100), *range(0x3100, 0x110000, 61), 0xFEFF) if not 0xD800 <= code < 0xE000]
"""All below U+3100, where white space and controls are, and some of the others."""


def changed(change, texts):
    return pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)}).select(change(pl.col("text")))["text"].to_list()


def by_category(text):
    """Do the same by Unicode's categories, a character at a time."""
    made = ""
    for character in text:
        if character.isspace():
            made += "" if made.endswith(" ") else " "
        elif unicodedata.category(character) != "Cc" and character != "\ufeff":
            made += character
    return made.strip(" ")


@given(st.lists(TEXTS, max_size=8))
def test_clean_is_what_the_categories_of_characters_say(texts):
    found = changed(clean, texts)
    assert found == [by_category(text) for text in texts]
    assert changed(clean, found) == changed(spaced, found) == found


@given(st.lists(TEXTS, max_size=8))
def test_white_space_is_that_of_python(texts):
    assert changed(spaced, texts) == [" ".join(text.split()) for text in texts]
    lines = changed(one_line, texts)
    for text, line in zip(texts, lines, strict=True):
        assert line.splitlines() in ([line], []) and "\t" not in line and line.split() == text.split()


def test_every_character():
    texts = [f"a{character}b{character}" for character in EVERY]
    assert changed(spaced, texts) == [" ".join(text.split()) for text in texts]
    assert changed(clean, texts) == [by_category(text) for text in texts]
    assert changed(one_line, [" a  b\xa0c\x00\ufeff \t\r\n d\u2028\x85e "]) == ["a  b\xa0c\x00\ufeff   d e"]


def test_a_pair_has_one_tab_and_text_on_both_sides():
    pairs = {
        "a\tb": ("a", "b"),
        " a\x85 b \t\xa0c ": ("a b", "c"),
        "a\nb\tc\r\n": ("a b", "c"),
        **dict.fromkeys(["a b", "a\tb\tc", "a\tb\t", "a\t \x00", "\tb", ""]),
    }
    found = split_pairs(pl.Series(list(pairs)), ("sentence1", "sentence2"))
    assert found.columns == ["sentence1", "sentence2"]
    assert found.rows() == [pair for pair in pairs.values() if pair]
    assert split_pairs(pl.Series([], dtype=pl.String), ("a", "b")).rows() == []


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


SINGLE = Task("films", "single", ("0", "1"))
PAIR = Task("pairs", "pair", ("0", "1"))
ORIGINALS = [("a film", "original", "1"), ("a film", "original", "0"), ("dull", "original", None)]


def put(path, rows, task=SINGLE):
    schema = dict.fromkeys((*task.columns, "source", "label"), pl.String)
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(path)
    return path


def made(source, *texts):
    return [(text, source, None) for text in texts]


def rows_of(path):
    return pl.read_parquet(path).rows()


def test_originals_once_then_each_sets_texts_without_what_came_before(tmp_path):
    lite = put(tmp_path / "lite.parquet", [*ORIGINALS, *made("lite", "one", "two  words", "three")])
    heavy = put(tmp_path / "heavy.parquet", [*ORIGINALS, *made("heavy", "four", " two words", "one")])
    corpus = put(tmp_path / "corpus.parquet", [*ORIGINALS, *made("corpus", "four", "five", "three", "six")])
    result = mix(sets={"lite": lite, "heavy": heavy, "corpus": corpus}, task=SINGLE, output=tmp_path / "set.parquet")
    assert rows_of(tmp_path / "set.parquet") == [
        *ORIGINALS,
        *made("lite", "one", "two  words", "three"),
        *made("heavy", "four"),
        *made("corpus", "five", "six"),
    ]
    assert (result.rows, result.originals) == (9, 3)
    assert result.kept == {"lite": 3, "heavy": 1, "corpus": 2}
    assert result.dropped == {"lite": 0, "heavy": 2, "corpus": 2}


def test_copies_of_originals_that_a_set_has_kept_stay(tmp_path):
    lite = put(tmp_path / "lite.parquet", [*ORIGINALS, *made("lite", "one")])
    heavy = put(tmp_path / "heavy.parquet", [*ORIGINALS, *made("heavy", "a film", "one")])
    result = mix(sets={"lite": lite, "heavy": heavy}, task=SINGLE, output=tmp_path / "set.parquet")
    assert rows_of(tmp_path / "set.parquet")[3:] == [("one", "lite", None), ("a film", "heavy", None)]
    assert result.kept == {"lite": 1, "heavy": 1}


def test_pairs_are_equal_if_both_texts_are(tmp_path):
    originals = [("a", "b", "original", "1")]
    one = put(tmp_path / "one.parquet", [*originals, ("c", "d", "lite", None)], PAIR)
    two = put(tmp_path / "two.parquet", [*originals, ("d", "c", "corpus", None), ("c ", "d", "corpus", None)], PAIR)
    result = mix(sets={"lite": one, "corpus": two}, task=PAIR, output=tmp_path / "set.parquet")
    assert rows_of(tmp_path / "set.parquet") == [
        ("a", "b", "original", "1"),
        ("c", "d", "lite", None),
        ("d", "c", "corpus", None),
    ]
    assert (result.kept, result.dropped) == ({"lite": 1, "corpus": 1}, {"lite": 0, "corpus": 1})


def test_many_batches_keep_their_places(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "_ROWS", 1000)
    originals = [(f"o{i % 999}", "original", "1") for i in range(70_000)]
    lite = put(tmp_path / "lite.parquet", [*originals, *made("lite", *(f"t{i}" for i in range(70_000)))])
    texts = [f"t{i}" for i in range(0, 140_000, 2)]
    corpus = put(tmp_path / "corpus.parquet", [*originals, *made("corpus", *texts)])
    result = mix(sets={"lite": lite, "corpus": corpus}, task=SINGLE, output=tmp_path / "set.parquet")
    new = [text for text in texts if int(text[1:]) >= 70_000]
    expected = [*originals, *made("lite", *(f"t{i}" for i in range(70_000))), *made("corpus", *new)]
    assert rows_of(tmp_path / "set.parquet") == expected
    assert (result.kept["corpus"], result.dropped["corpus"]) == (35_000, 35_000)


def test_sets_without_originals_or_new_texts(tmp_path):
    lite = put(tmp_path / "lite.parquet", [])
    corpus = put(tmp_path / "corpus.parquet", made("corpus", "one"))
    assert mix(sets={"lite": lite, "corpus": corpus}, task=SINGLE, output=tmp_path / "set.parquet").rows == 1
    assert rows_of(tmp_path / "set.parquet") == [("one", "corpus", None)]


@pytest.mark.parametrize(
    ("originals", "what"),
    [
        (ORIGINALS[:2], "2 originals where the set of lite has 3"),
        ([*ORIGINALS[:2], ("dull ", "original", None)], "original number 3 is another text"),
        ([ORIGINALS[2], *ORIGINALS[:2]], "original number 1 is another text"),
    ],
)
def test_other_originals_are_an_error(tmp_path, originals, what):
    lite = put(tmp_path / "lite.parquet", [*ORIGINALS, *made("lite", "one")])
    corpus = put(tmp_path / "corpus.parquet", [*originals, *made("corpus", "two")])
    with raising(DataError, what, file=corpus):
        mix(sets={"lite": lite, "corpus": corpus}, task=SINGLE, output=tmp_path / "set.parquet")
    assert not (tmp_path / "set.parquet").exists()


def test_a_table_that_is_no_transfer_set_is_an_error(tmp_path):
    lite = put(tmp_path / "lite.parquet", ORIGINALS)
    pl.DataFrame({"sentence": ["a film"], "label": ["1"]}).write_parquet(tmp_path / "b.parquet")
    with raising(DataError, key="source", file=tmp_path / "b.parquet"):
        mix(sets={"lite": lite, "corpus": tmp_path / "b.parquet"}, task=SINGLE, output=tmp_path / "set.parquet")
    assert not (tmp_path / "set.parquet").exists()
