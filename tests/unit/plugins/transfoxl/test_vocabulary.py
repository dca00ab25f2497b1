"""Vocabularies that are counted, and those that come with a published model."""

import pickle
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_transfoxl.words import count_vocabulary, fitting_cutoffs, read_vocabulary
from kdcli.api import DataError

REFERENCE = Path(__file__).parent / "reference"
PUBLISHED = (REFERENCE / "wt103/vocab.txt").read_text("utf-8").split("\n")[:-1]
FORMS = {
    "wt103/vocab.txt": "vocab.txt",
    "wt103/vocab.pkl": "vocab.pkl",
    "wt103/vocab.bin": "vocab.bin",
    "forms/zip.bin": "vocab.bin",
    "forms/resaved.pkl": "vocab.pkl",
}
"""What transformers 4.35.2 wrote, and the name that it has in a folder."""


# Those that come with a model


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_is_read(tmp_path, form):
    shutil.copy(REFERENCE / form, tmp_path / FORMS[form])
    words, lower_case = read_vocabulary(tmp_path)
    assert list(words) == PUBLISHED
    assert len(words) == 301
    assert not lower_case


def write(folder: Path, **changed: object) -> Path:
    published = {"sym2idx": {"<eos>": 0, "<unk>": 1, "the": 2}, "lower_case": False, "delimiter": None}
    (folder / "vocab.pkl").write_bytes(pickle.dumps({**published, **changed}))
    return folder


def test_plain_text_comes_before_pickles(tmp_path):
    write(tmp_path)
    (tmp_path / "vocab.txt").write_text("<eos>\n<unk>\nplain\n")
    assert read_vocabulary(tmp_path)[0] == ["<eos>", "<unk>", "plain"]


def test_counts_behind_words_are_left_out(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("<eos> 12\r\n<unk> 3\r\nnaïve 1\r\n".encode())
    assert read_vocabulary(tmp_path)[0] == ["<eos>", "<unk>", "naïve"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"sym2idx": {}}, "the vocabulary has no <eos>"),
        ({"sym2idx": {"<eos>": 0, "the": 1}}, "the vocabulary has no <unk>"),
        ({"sym2idx": {"<eos>": 0, "<unk>": 2}}, "the ids of the words are not 0, 1, 2 and so on"),
        ({"sym2idx": {"<eos>": 0, "<unk>": 0}}, "the ids of the words are not 0, 1, 2 and so on"),
        (
            {"sym2idx": {"<eos>": 0, "<unk>": 1, "two words": 2}},
            "the vocabulary holds 'two words'",
        ),
        ({"sym2idx": {"<eos>": 0, "<unk>": 1, 7: 2}}, "the vocabulary holds 7, which is not a word"),
        ({"sym2idx": {"<eos>": 0, "<unk>": "1"}}, "the file holds no vocabulary: sym2idx"),
        ({"sym2idx": None}, "the file holds no vocabulary: sym2idx"),
        ({"delimiter": ""}, "the vocabulary is one of characters"),
    ],
)
def test_a_pickle_without_a_vocabulary(tmp_path, changed, what):
    with pytest.raises(DataError) as caught:
        read_vocabulary(write(tmp_path, **changed))
    assert caught.value.what.startswith(what)
    assert caught.value.file == str(tmp_path / "vocab.pkl")


def test_a_pickle_of_something_else(tmp_path):
    (tmp_path / "vocab.bin").write_bytes(pickle.dumps(["<eos>", "<unk>"]))
    with pytest.raises(DataError, match=r"the file holds no vocabulary.*vocab\.bin"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize(
    ("text", "what", "row"),
    [
        (b"<eos>\n<unk>\n\nthe\n", "the vocabulary holds '', which is not a word", 3),
        (b"<eos>\n<unk>\nthe\nthe\n", "the vocabulary holds 'the' twice", 4),
        (b"<eos>\nthe\n", "the vocabulary has no <unk>", None),
        (b"<eos>\n<unk>\nna\xefve\n", "the vocabulary is not UTF-8", None),
        (b"", "the vocabulary holds '', which is not a word", 1),
    ],
)
def test_a_broken_text_file(tmp_path, text, what, row):
    (tmp_path / "vocab.txt").write_bytes(text)
    with pytest.raises(DataError) as caught:
        read_vocabulary(tmp_path)
    assert caught.value.what.startswith(what)
    assert (caught.value.file, caught.value.row) == (str(tmp_path / "vocab.txt"), row)


def test_a_folder_without_a_vocabulary(tmp_path):
    with pytest.raises(DataError, match="the folder holds no vocabulary") as caught:
        read_vocabulary(tmp_path)
    assert "vocab.pkl" in str(caught.value.hint)


# Those that are counted

WORDS = st.lists(st.sampled_from(["a", "b", "c", "B", "ä", "<eos>", "<unk>", "@-@"]), min_size=1)


@given(WORDS, st.integers(1, 3))
def test_counted_words_are_the_most_frequent_ones(words, min_freq):
    counts = Counter(word for word in words if word not in ("<eos>", "<unk>"))
    enough = {word for word, count in counts.items() if count >= min_freq}
    if not enough:
        with pytest.raises(DataError, match=f"no word occurs {min_freq} times"):
            count_vocabulary(words, min_freq)
        return
    end, unknown, *kept = count_vocabulary(words, min_freq)
    assert (end, unknown, set(kept)) == ("<eos>", "<unk>", enough)
    for first, second in pairwise(kept):
        assert (counts[first], second) > (counts[second], first)


# Cutoffs


def test_published_cutoffs_where_they_fit():
    assert fitting_cutoffs(267_735) == [20_000, 40_000, 200_000]
    assert fitting_cutoffs(200_001) == [20_000, 40_000, 200_000]


@given(st.integers(3, 300_000))
def test_cutoffs_fit_every_vocabulary(size):
    cutoffs = [1, *fitting_cutoffs(size), size]
    assert all(first < second for first, second in pairwise(cutoffs))
