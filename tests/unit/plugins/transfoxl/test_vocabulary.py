import io
import os
import pickle
import shutil
from collections import Counter, OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
from raising import raising

from kd_transfoxl.words import read_vocabulary, unpickle
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
    assert list(words) == PUBLISHED and len(words) == 301 and not lower_case


def write(folder, **changed):
    published = {"sym2idx": {"<eos>": 0, "<unk>": 1, "the": 2}, "lower_case": False, "delimiter": None}
    (folder / "vocab.pkl").write_bytes(pickle.dumps({**published, **changed}))
    return folder


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"sym2idx": {}}, "the vocabulary has no <eos>"),
        ({"sym2idx": {"<eos>": 0, "the": 1}}, "the vocabulary has no <unk>"),
        ({"sym2idx": {"<eos>": 0, "<unk>": 2}}, "the ids of the words are not 0, 1, 2 and so on"),
        ({"sym2idx": {"<eos>": 0, "<unk>": 1, "two words": 2}}, "the vocabulary holds 'two words'"),
        ({"sym2idx": {"<eos>": 0, "<unk>": 1, 7: 2}}, "the vocabulary holds 7, which is not a word"),
        ({"sym2idx": {"<eos>": 0, "<unk>": "1"}}, "the file holds no vocabulary: sym2idx"),
        ({"delimiter": ""}, "the vocabulary is one of characters"),
    ],
)
def test_a_pickle_without_a_vocabulary(tmp_path, changed, what):
    with raising(DataError, what=what, file=tmp_path / "vocab.pkl"):
        read_vocabulary(write(tmp_path, **changed))


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
    with raising(DataError, what=what, file=tmp_path / "vocab.txt", row=row):
        read_vocabulary(tmp_path)


def test_a_folder_without_a_vocabulary_with_something_else_or_with_plain_text_which_comes_first(tmp_path):
    with raising(DataError, "the folder holds no vocabulary", hint="vocab.pkl"):
        read_vocabulary(tmp_path)
    (tmp_path / "vocab.bin").write_bytes(pickle.dumps(["<eos>", "<unk>"]))
    with pytest.raises(DataError, match=r"the file holds no vocabulary.*vocab\.bin"):
        read_vocabulary(tmp_path)
    write(tmp_path)
    (tmp_path / "vocab.txt").write_text("<eos>\n<unk>\nplain\n")
    assert read_vocabulary(tmp_path)[0] == ["<eos>", "<unk>", "plain"]
    (tmp_path / "vocab.txt").write_bytes("<eos> 12\r\n<unk> 3\r\nnaïve 1\r\n".encode())
    assert read_vocabulary(tmp_path)[0] == ["<eos>", "<unk>", "naïve"]


MAGIC = 0x1950A86A20F9469CFC6C
"""The number that torch.save wrote first."""
VOCABULARY = {
    "counter": Counter({"the": 3, "a": 2}),
    "special": ["<eos>"],
    "min_freq": 0,
    "max_size": None,
    "lower_case": False,
    "idx2sym": ["<eos>", "the", "ä"],
    "sym2idx": OrderedDict([("<eos>", 0), ("the", 1), ("ä", 2)]),
}


class Runs:
    """What asks its reader to call a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def archive(value, zipped=True):
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


legacy = partial(archive, zipped=False)


def read(tmp_path, data):
    path = tmp_path / "vocab.bin"
    path.write_bytes(data)
    return unpickle(path)


PROTOCOLS = [partial(pickle.dumps, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)]


@pytest.mark.parametrize("save", [*PROTOCOLS, legacy, archive])
def test_what_was_saved_is_read(tmp_path, save):
    found = read(tmp_path, save(VOCABULARY))
    assert found == VOCABULARY and list(found["sym2idx"]) == ["<eos>", "the", "ä"]


ATTACKS = {
    "posix.system": lambda marker: Runs(os.system, f"touch '{marker}'"),
    "posix.mkdir": lambda marker: Runs(os.mkdir, str(marker)),
    "builtins.eval": lambda marker: Runs(eval, f"open({str(marker)!r}, 'w')"),
    "torch.storage._load_from_bytes": lambda marker: Runs(
        torch.storage._load_from_bytes, pickle.dumps(Runs(os.mkdir, str(marker)))
    ),
}
PICKLED = {"pickle": pickle.dumps, "legacy": legacy, "archive": archive}


@pytest.mark.parametrize("form", PICKLED)
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_run(tmp_path, name, form):
    marker = tmp_path / "was here"
    data = PICKLED[form]({**VOCABULARY, "idx2sym": ["the", ATTACKS[name](marker)]})
    # Python 2, whose names torch writes, had other modules.
    asked = name if form == "pickle" else rf"\S+\.{name.rpartition('.')[2]}"
    with raising(DataError, f"the vocabulary cannot be read: it holds a {asked} ", file=tmp_path / "vocab.bin"):
        read(tmp_path, data)
    assert not marker.exists()


def test_what_stands_before_the_vocabulary_or_is_asked_for_by_opcodes_of_old_is_not_run(tmp_path):
    """torch.save wrote a number, a version and a description of the system first."""
    marker = tmp_path / "was here"
    whole = legacy(VOCABULARY)
    number = pickle.dumps(MAGIC, 2)
    assert whole.startswith(number)
    with pytest.raises(DataError, match=r"holds a posix\.mkdir"):
        read(tmp_path, number + pickle.dumps(Runs(os.mkdir, str(marker))) + whole[len(number) :])
    with pytest.raises(DataError, match=r"holds a os\.mkdir"):
        read(tmp_path, f"(S'{marker}'\nios\nmkdir\n.".encode())
    assert not marker.exists()


def set_attribute(name):
    """Set ``update`` of a class to 1: a pickle can do that to any class of Python's it may name."""
    return b"\x80\x02c" + name.encode() + b"\n(N}X\x06\x00\x00\x00updateK\x01stb."


def test_the_types_of_the_process_stay_what_they_are(tmp_path):
    before = Counter.update
    for name in ("collections\nCounter", "collections\nOrderedDict", "tokenizers\nAddedToken"):
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path, set_attribute(name))
    assert Counter.update is before


def test_tensors_are_no_words_and_objects_that_are_not_needed_are_not_made(tmp_path):
    for save in (legacy, archive):
        with pytest.raises(DataError, match=r"holds a tensor|holds a torch\.\S+"):
            read(tmp_path, save({"sym2idx": torch.zeros(3)}))
    data = b"\x80\x02}X\x01\x00\x00\x00pcre\n_compile\nX\x01\x00\x00\x00(K\x00\x86Rs."
    assert set(read(tmp_path, data)) == {"p"}


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(VOCABULARY)[:-20], archive(VOCABULARY)[:300]])
def test_a_broken_file_is_an_error(tmp_path, data):
    with raising(DataError, "the vocabulary cannot be read", file=tmp_path / "vocab.bin"):
        read(tmp_path, data)


@pytest.mark.parametrize(("module", "name"), [("collections", "Counter.update"), ("collections", "abc"), ("os", "x")])
def test_a_name_with_points_does_not_lead_elsewhere(tmp_path, module, name):
    named = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    with pytest.raises(DataError, match=f"holds a {module}.{name}"):
        read(tmp_path, b"\x80\x04" + named + b"\x93.")
