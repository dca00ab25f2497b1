"""Vocabularies are read from pickles, and nothing that a pickle asks for is run."""

import contextlib
import functools
import io
import os
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kd_transfoxl.words import unpickle
from kdcli.api import DataError

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

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def legacy(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def archive(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def read(tmp_path: Path, data: bytes) -> Any:
    path = tmp_path / "vocab.bin"
    path.write_bytes(data)
    return unpickle(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_vocabulary_is_read(tmp_path, protocol):
    assert read(tmp_path, pickle.dumps(VOCABULARY, protocol)) == VOCABULARY


@pytest.mark.parametrize("save", [legacy, archive])
def test_what_torch_saved_is_read(tmp_path, save):
    found = read(tmp_path, save(VOCABULARY))
    assert found == VOCABULARY
    assert list(found["sym2idx"]) == ["<eos>", "the", "ä"]


ATTACKS = {
    "posix.system": lambda marker: Runs(os.system, f"touch '{marker}'"),
    "posix.mkdir": lambda marker: Runs(os.mkdir, str(marker)),
    "builtins.eval": lambda marker: Runs(eval, f"open({str(marker)!r}, 'w')"),
    "torch.storage._load_from_bytes": lambda marker: Runs(
        torch.storage._load_from_bytes, pickle.dumps(Runs(os.mkdir, str(marker)))
    ),
}
PLACES = {
    "all of it": lambda attack: attack,
    "a value": lambda attack: {**VOCABULARY, "max_size": attack},
    "a word": lambda attack: {**VOCABULARY, "idx2sym": ["the", attack]},
    "a count": lambda attack: {"counter": Counter({"a": attack})},
}
FORMS = {"pickle": pickle.dumps, "legacy": legacy, "archive": archive}


def leaves_mark(data: bytes, marker: Path) -> bool:
    """Read data as transformers did; tell whether it was harmful."""
    for load in (pickle.load, functools.partial(torch.load, weights_only=False)):
        with contextlib.suppress(Exception):  # they are missing their words, when the harm is done
            load(io.BytesIO(data))
    return marker.exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_run(tmp_path, name, place, form):
    marker = tmp_path / "was here"
    data = FORMS[form](PLACES[place](ATTACKS[name](marker)))
    with pytest.raises(DataError) as caught:
        read(tmp_path, data)
    assert not marker.exists()
    # Python 2, whose names torch writes, had other modules.
    asked = name if form == "pickle" else rf"\S+\.{name.rpartition('.')[2]}"
    assert re.fullmatch(rf"the vocabulary cannot be read: it holds a {asked}", caught.value.what)
    assert caught.value.file == str(tmp_path / "vocab.bin")
    assert leaves_mark(data, marker), "the attack is none"


def test_what_stands_before_the_vocabulary_is_not_run_either(tmp_path):
    """torch.save wrote a number, a version and a description of the system first."""
    marker = tmp_path / "was here"
    whole = legacy(VOCABULARY)
    number = pickle.dumps(MAGIC, 2)
    assert whole.startswith(number)
    with pytest.raises(DataError, match=r"holds a posix\.mkdir"):
        read(tmp_path, number + pickle.dumps(Runs(os.mkdir, str(marker))) + whole[len(number) :])
    assert not marker.exists()


def set_attribute(name: str) -> bytes:
    """Set ``update`` of a class to 1: a pickle can do that to any class of Python's it may name."""
    return b"\x80\x02c" + name.encode() + b"\n(N}X\x06\x00\x00\x00updateK\x01stb."


def test_the_types_of_the_process_stay_what_they_are(tmp_path, monkeypatch):
    before = Counter.update
    for name in ("collections\nCounter", "collections\nOrderedDict", "tokenizers\nAddedToken"):
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path, set_attribute(name))
    assert Counter.update is before
    monkeypatch.setattr(Counter, "update", before)  # undone after what comes
    pickle.loads(set_attribute("collections\nCounter"))
    assert Counter.update == 1, "the attack is none"


def test_tensors_are_no_words(tmp_path):
    for save in (legacy, archive):
        with pytest.raises(DataError, match=r"holds a tensor|holds a torch\.\S+"):
            read(tmp_path, save({"sym2idx": torch.zeros(3)}))


def test_objects_that_are_not_needed_are_not_made(tmp_path):
    """Old transformers pickled its tokenizer with all attributes; ``re.compile`` alone can take for ever."""
    data = b"\x80\x02}X\x01\x00\x00\x00pcre\n_compile\nX\x01\x00\x00\x00(K\x00\x86Rs."
    with pytest.raises(re.error, match="unterminated"):
        pickle.loads(data)
    assert set(read(tmp_path, data)) == {"p"}


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(VOCABULARY)[:-20], archive(VOCABULARY)[:300]])
def test_a_broken_file_is_an_error(tmp_path, data):
    with pytest.raises(DataError, match="the vocabulary cannot be read") as caught:
        read(tmp_path, data)
    assert caught.value.file == str(tmp_path / "vocab.bin")


def test_functions_asked_for_by_the_opcodes_of_old_are_not_run(tmp_path):
    marker = tmp_path / "was here"
    data = f"(S'{marker}'\nios\nmkdir\n.".encode()
    with pytest.raises(DataError, match=r"holds a os\.mkdir"):
        read(tmp_path, data)
    assert not marker.exists()
    assert leaves_mark(data, marker)


@pytest.mark.parametrize(("module", "name"), [("collections", "Counter.update"), ("collections", "abc"), ("os", "x")])
def test_a_name_with_points_does_not_lead_elsewhere(tmp_path, module, name):
    named = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    with pytest.raises(DataError, match=f"holds a {module}.{name}"):
        read(tmp_path, b"\x80\x04" + named + b"\x93.")
