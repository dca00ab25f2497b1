import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st
from raising import raising
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.transfer import cleaning
from kdcli.transfer.cleaning import clean, hashes, keys, mix, new_texts, one_line, plain, spaced, split_pairs

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
def test_cleaned_and_spaced_texts_are_those_of_python(texts):
    found = changed(clean, texts)
    assert found == [by_category(text) for text in texts]
    assert changed(clean, found) == changed(spaced, found) == found
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
    assert found.columns == ["sentence1", "sentence2"] and found.rows() == [pair for pair in pairs.values() if pair]
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


ORIGINALS = [("a film", "original", "1"), ("a film", "original", "0"), ("dull", "original", None)]


def made(source, *texts):
    return [(text, source, None) for text in texts]


def mixed(folder, task=SINGLE, **rows):
    """Write sets of these rows and mix them; return the result and the rows of the mixture."""
    schema = dict.fromkeys((*task.columns, "source", "label"), pl.String)
    for name, some in rows.items():
        pl.DataFrame(some, schema=schema, orient="row").write_parquet(folder / f"{name}.parquet")
    sets = {name: folder / f"{name}.parquet" for name in rows}
    result = mix(sets=sets, task=task, output=folder / "set.parquet")
    return result, pl.read_parquet(folder / "set.parquet").rows()


def test_originals_once_then_each_sets_texts_without_what_came_before(tmp_path):
    lite = [*ORIGINALS, *made("lite", "one", "two  words", "three")]
    heavy = [*ORIGINALS, *made("heavy", "four", " two words", "one")]
    corpus = [*ORIGINALS, *made("corpus", "four", "five", "three", "six")]
    result, rows = mixed(tmp_path, lite=lite, heavy=heavy, corpus=corpus)
    assert rows == [*lite, *made("heavy", "four"), *made("corpus", "five", "six")]
    assert (result.rows, result.originals) == (9, 3)
    assert result.kept == {"lite": 3, "heavy": 1, "corpus": 2}
    assert result.dropped == {"lite": 0, "heavy": 2, "corpus": 2}


def test_copies_of_originals_that_a_set_has_kept_stay_and_there_may_be_no_originals(tmp_path):
    heavy = [*ORIGINALS, *made("heavy", "a film", "one")]
    result, rows = mixed(tmp_path, lite=[*ORIGINALS, *made("lite", "one")], heavy=heavy)
    assert rows[3:] == [("one", "lite", None), ("a film", "heavy", None)]
    assert result.kept == {"lite": 1, "heavy": 1}
    result, rows = mixed(tmp_path, lite=[], corpus=made("corpus", "one"))
    assert rows == [("one", "corpus", None)] and result.rows == 1


def test_pairs_are_equal_if_both_texts_are(tmp_path):
    first = [("a", "b", "original", "1"), ("c", "d", "lite", None)]
    second = [first[0], ("d", "c", "corpus", None), ("c ", "d", "corpus", None)]
    result, rows = mixed(tmp_path, PAIR, lite=first, corpus=second)
    assert rows == [*first, second[1]]
    assert (result.kept, result.dropped) == ({"lite": 1, "corpus": 1}, {"lite": 0, "corpus": 1})


def test_many_batches_keep_their_places(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "_ROWS", 100)
    originals = [(f"o{i % 999}", "original", "1") for i in range(7_000)]
    lite = [*originals, *made("lite", *(f"t{i}" for i in range(7_000)))]
    corpus = [*originals, *made("corpus", *(f"t{i}" for i in range(0, 14_000, 2)))]
    result, rows = mixed(tmp_path, lite=lite, corpus=corpus)
    assert rows == [*lite, *made("corpus", *(f"t{i}" for i in range(7_000, 14_000, 2)))]
    assert (result.kept["corpus"], result.dropped["corpus"]) == (3_500, 3_500)


@pytest.mark.parametrize(
    ("originals", "what"),
    [
        (ORIGINALS[:2], "2 originals where the set of lite has 3"),
        ([*ORIGINALS[:2], ("dull ", "original", None)], "original number 3 is another text"),
        ([ORIGINALS[2], *ORIGINALS[:2]], "original number 1 is another text"),
    ],
)
def test_other_originals_are_an_error(tmp_path, originals, what):
    with raising(DataError, what, file=tmp_path / "corpus.parquet"):
        mixed(tmp_path, lite=[*ORIGINALS, *made("lite", "one")], corpus=[*originals, *made("corpus", "two")])
    assert not (tmp_path / "set.parquet").exists()


def test_a_table_that_is_no_transfer_set_is_an_error(tmp_path):
    path = tmp_path / "b.parquet"
    pl.DataFrame({"sentence": ["a film"], "label": ["1"]}).write_parquet(path)
    with raising(DataError, key="source", file=path):
        mix(sets={"lite": path, "corpus": path}, task=SINGLE, output=tmp_path / "set.parquet")
    assert not (tmp_path / "set.parquet").exists()
