"""Vocabularies that come with a published model."""

import pickle
import shutil
from pathlib import Path

import pytest

from kd_transfoxl.words import read_vocabulary
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
