"""The words of a Transformer-XL: counted from texts, or read from a published model.

Published vocabularies are pickles. A pickle is a program: it names functions, and the reader calls them. The reader
here knows only the names that such a vocabulary holds, and calls a builtin type or a class that does nothing for them.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from kdcli.api import DataError, ProfileError

END = "<eos>"
"""Ends a text; inside a text it stands for the tab of a pair."""
UNKNOWN = "<unk>"
"""Stands for every word outside the vocabulary."""
FILE = "vocab.txt"
"""One word a line, in the order of their ids."""
PICKLED = ("vocab.pkl", "vocab.bin")

_PUBLISHED_SIZE = 267_735
_PUBLISHED_CUTOFFS = (20_000, 40_000, 200_000)
"""Of transfo-xl-wt103."""
_TORCH = 0x1950A86A20F9469CFC6C
"""The number that ``torch.save`` wrote first, before it wrote zip archives."""


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model; the id of a word is its index.

    Attributes:
        words: The words, the most frequent ones first; ``<eos>`` and ``<unk>`` are among them.
        lower_case: Whether texts are converted to lower case first.
    """

    words: Sequence[str]
    lower_case: bool = False

    def __post_init__(self) -> None:
        seen = set()
        for row, word in enumerate(self.words, 1):
            if not isinstance(word, str) or word.split() != [word]:
                raise DataError(f"the vocabulary holds {word!r}, which is not a word", row=row)
            if word in seen:
                raise DataError(f"the vocabulary holds {word!r} twice", row=row)
            seen.add(word)
        if missing := [word for word in (END, UNKNOWN) if word not in seen]:
            raise DataError(f"the vocabulary has no {missing[0]}", hint="is it that of a word-level Transformer-XL?")


def count_vocabulary(words: Iterable[str], *, min_freq: int = 1, max_size: int | None = None) -> Vocabulary:
    """Make a vocabulary of the most frequent words, which come first; equally frequent ones in alphabetic order.

    A word needs ``min_freq`` occurrences; ``<eos>`` and ``<unk>`` count towards ``max_size``.
    """
    counts = Counter(words)
    frequent = sorted((-count, word) for word, count in counts.items() if count >= min_freq)
    kept = [word for _, word in frequent if word not in (END, UNKNOWN)]
    if not kept:
        raise DataError(f"no word occurs {min_freq} times", hint="a vocabulary needs more texts, or a lower min_freq")
    return Vocabulary([END, UNKNOWN, *kept][:max_size])


def fitting_cutoffs(size: int, cutoffs: Sequence[int] | None = None) -> list[int]:
    """Return ``cutoffs``, checked; or those of transfo-xl-wt103, or the same shares of a vocabulary of ``size`` words.

    Raises:
        ProfileError: They do not rise from 2 (``<eos>`` and ``<unk>`` come first), or exceed the vocabulary.
    """
    if cutoffs is None:
        if size > _PUBLISHED_CUTOFFS[-1]:
            return list(_PUBLISHED_CUTOFFS)
        shares = {round(cutoff * size / _PUBLISHED_SIZE) for cutoff in _PUBLISHED_CUTOFFS}
        return sorted(cutoff for cutoff in shares if 2 <= cutoff < size)
    key = "generators.transfoxl.cutoffs"
    if any(first >= second for first, second in pairwise([1, *cutoffs])):
        raise ProfileError(f"cutoffs rise from 2 on: {list(cutoffs)} do not", key=key)
    if cutoffs and cutoffs[-1] >= size:
        hint = f"leave it out for {fitting_cutoffs(size)}, or allow more words"
        raise ProfileError(f"a cutoff of {cutoffs[-1]} exceeds the vocabulary of {size} words", key=key, hint=hint)
    return list(cutoffs)


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read ``vocab.txt``, or else the ``vocab.pkl`` or ``vocab.bin`` of a published model.

    Raises:
        DataError: There is none; it is broken; or a pickle holds more than a vocabulary.
    """
    for name in (FILE, *PICKLED):
        if (path := folder / name).is_file():
            try:
                return _read_words(path) if name == FILE else _read_pickle(path)
            except DataError as error:
                row = error.row if name == FILE else None
                raise DataError(error.what, hint=error.hint, file=path, row=row) from error
    hint = f"copy {', '.join(PICKLED)} or {FILE} of the pretrained model into it"
    raise DataError("the folder holds no vocabulary", hint=hint, file=folder)


def unpickle(path: Path) -> Any:
    """Read a vocabulary that ``pickle.dump`` or ``torch.save`` (in any of its forms) wrote, as builtin types.

    Raises:
        DataError: The file names any other type; or it is broken.
    """
    try:
        with path.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                stream.seek(0)
                value = _load(stream)
                if value == _TORCH:  # then a version, the system, and the value
                    value = [_load(stream) for _ in range(3)][-1]
                return value
            with zipfile.ZipFile(stream) as archive:
                pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
                if len(pickles) != 1:
                    raise ValueError(f"an archive with {len(pickles)} pickles")
                return _load(BytesIO(archive.read(pickles[0])))
    except DataError as error:
        raise DataError(error.what, hint=error.hint, file=path) from error
    except Exception as error:  # a broken file makes the unpickler raise anything
        reason = str(error) or type(error).__name__
        hint = "copy the file again; a download may have been cut short"
        raise DataError(f"the vocabulary cannot be read: {reason}", hint=hint, file=path) from error


class _Ignored:
    """Replaces an object that is not needed: it accepts any arguments, and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_TYPES = {
    # A pickle can set attributes of the classes it names; those of a builtin type are fixed.
    "collections.OrderedDict": dict,
    "collections.Counter": dict,
    # transformers before version 5 pickled all attributes of its tokenizer along with the words.
    "re._compile": _Ignored,
    "sacremoses.normalize.MosesPunctNormalizer": _Ignored,
    "sacremoses.tokenize.MosesDetokenizer": _Ignored,
    "sacremoses.tokenize.MosesTokenizer": _Ignored,
    "tokenizers.AddedToken": _Ignored,
    "transformers.tokenization_utils.Trie": _Ignored,
}


class _Unpickler(pickle.Unpickler):
    """Knows ``_TYPES`` and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _TYPES:
            raise _refused(f"{module}.{name}")
        return _TYPES[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Any:
        raise _refused("tensor")


def _load(stream: BinaryIO) -> Any:
    return _Unpickler(stream, encoding="utf-8").load()


def _refused(name: str) -> DataError:
    hint = "a pickle can run any program: take the file from where the model was published, or make a vocab.txt of it"
    return DataError(f"the vocabulary holds a {name}, and is not read", hint=hint)


def _read_words(path: Path) -> Vocabulary:
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"the vocabulary is not UTF-8: {error}") from error
    return Vocabulary(["".join(line.split()[:1]) for line in lines])  # some files have counts behind the words


def _read_pickle(path: Path) -> Vocabulary:
    value = unpickle(path)
    ids = value.get("sym2idx") if isinstance(value, dict) else None
    if not isinstance(ids, dict) or not all(isinstance(number, int) for number in ids.values()):
        raise DataError("the file holds no vocabulary: sym2idx, the id of each word, is missing")
    words = sorted(ids, key=ids.__getitem__)
    if [ids[word] for word in words] != list(range(len(words))):
        raise DataError("the ids of the words are not 0, 1, 2 and so on")
    if value.get("delimiter") == "":
        raise DataError("the vocabulary is one of characters, and the model knows words")
    return Vocabulary(words, lower_case=bool(value.get("lower_case")))
