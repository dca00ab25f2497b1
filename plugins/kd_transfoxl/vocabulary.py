"""The words that a Transformer-XL knows: counted from texts, or as they come with a published model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from kd_transfoxl.unpickling import unpickle
from kdcli.api import DataError, ProfileError

END = "<eos>"
"""Ends a text; inside of one it stands for the tab of a pair."""
UNKNOWN = "<unk>"
"""Stands for every word outside the vocabulary."""
FILE = "vocab.txt"
"""One word a line, in the order of their ids."""
PICKLED = ("vocab.pkl", "vocab.bin")

_PUBLISHED_SIZE = 267_735
_PUBLISHED_CUTOFFS = (20_000, 40_000, 200_000)
"""Of transfo-xl-wt103."""


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model; the id of a word is its place.

    Attributes:
        words: The words, the most frequent ones first; ``<eos>`` and ``<unk>`` are among them.
        lower_case: Whether texts are put into lower case before they are looked up.
    """

    words: Sequence[str]
    lower_case: bool = False

    def __post_init__(self) -> None:
        seen = set()
        for row, word in enumerate(self.words, 1):
            if not isinstance(word, str) or word.split() != [word]:
                raise DataError(f"the vocabulary holds {word!r}, which is no word", row=row)
            if word in seen:
                raise DataError(f"the vocabulary holds {word!r} twice", row=row)
            seen.add(word)
        if missing := [word for word in (END, UNKNOWN) if word not in seen]:
            raise DataError(f"the vocabulary has no {missing[0]}", hint="is it that of a word-level Transformer-XL?")


def count_vocabulary(words: Iterable[str], *, min_freq: int = 1, max_size: int | None = None) -> Vocabulary:
    """Make a vocabulary of the most frequent words, which come first; words of one frequency are in alphabetic order.

    Args:
        words: The words of all texts.
        min_freq: The occurrences that a word needs.
        max_size: The largest number of words, ``<eos>`` and ``<unk>`` included.

    Raises:
        DataError: There is no word.
    """
    counts = Counter(words)
    frequent = sorted((-count, word) for word, count in counts.items() if count >= min_freq)
    kept = [word for _, word in frequent if word not in (END, UNKNOWN)]
    if not kept:
        raise DataError(f"no word occurs {min_freq} times", hint="a vocabulary needs more texts, or a lower min_freq")
    return Vocabulary([END, UNKNOWN, *kept][:max_size])


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


def fitting_cutoffs(size: int, wanted: Sequence[int] | None = None) -> list[int]:
    """Return where the clusters of the adaptive softmax begin, but for the first.

    Args:
        size: Words in the vocabulary.
        wanted: The cutoffs; None takes those of transfo-xl-wt103, or the same shares of a smaller vocabulary.

    Raises:
        ProfileError: They do not rise from 2 (``<eos>`` and ``<unk>`` come first), or exceed the vocabulary.
    """
    if wanted is None:
        if size > _PUBLISHED_CUTOFFS[-1]:
            return list(_PUBLISHED_CUTOFFS)
        shares = {round(cutoff * size / _PUBLISHED_SIZE) for cutoff in _PUBLISHED_CUTOFFS}
        return sorted(cutoff for cutoff in shares if 2 <= cutoff < size)
    key = "generators.transfoxl.cutoffs"
    if any(first >= second for first, second in pairwise([1, *wanted])):
        raise ProfileError(f"cutoffs rise from 2 on: {list(wanted)} do not", key=key)
    if wanted and wanted[-1] >= size:
        hint = f"leave it out for {fitting_cutoffs(size)}, or allow more words"
        raise ProfileError(f"a cutoff of {wanted[-1]} exceeds the vocabulary of {size} words", key=key, hint=hint)
    return list(wanted)


def _read_words(path: Path) -> Vocabulary:
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"the vocabulary is not in UTF-8: {error}") from error
    # Some files have a word's count behind it.
    return Vocabulary(["".join(line.split()[:1]) for line in lines])


def _read_pickle(path: Path) -> Vocabulary:
    found = unpickle(path)
    ids = found.get("sym2idx") if isinstance(found, dict) else None
    if not isinstance(ids, dict) or not all(isinstance(number, int) for number in ids.values()):
        raise DataError("the file holds no vocabulary: sym2idx, the id of each word, is missing")
    words = sorted(ids, key=ids.__getitem__)
    if [ids[word] for word in words] != list(range(len(words))):
        raise DataError("the ids of the words are not 0, 1, 2 and so on")
    if found.get("delimiter") == "":
        raise DataError("the vocabulary is one of characters, and the model does not know words")
    return Vocabulary(words, lower_case=bool(found.get("lower_case")))
