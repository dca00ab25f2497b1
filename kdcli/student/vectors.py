"""Word vectors of the words that are needed, from a file of any form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter
from kdcli.student.converted import ConvertedVectors, is_safetensors
from kdcli.student.vector_files import VectorFile

_SPELLINGS: tuple[Callable[[str], str], ...] = (str, str.lower, str.capitalize)


@dataclass(frozen=True)
class WordVectors:
    """The vectors of a list of words.

    Attributes:
        matrix: ``float32 [words, dimension]``; zeros where a word has no vector.
        found: ``bool [words]``.
    """

    matrix: NDArray[np.float32]
    found: NDArray[np.bool_]


def read_vectors(path: Path, wanted: Sequence[str], *, reporter: Reporter | None = None) -> WordVectors:
    """Read the vectors of the wanted words from a word2vec, GloVe, fastText or converted file.

    A word is looked up as written, else in lower case, else capitalised. Of a word that the file holds several times
    the first vector counts. Of the other rows only a few are parsed, the first and the last among them, so a fault in
    one of them may go unnoticed; of a converted file, which was checked when it was made, they are not even read.

    Args:
        path: The file, gzipped or not: text with or without a header line ``count dimension``, or word2vec's binary;
            or what ``kdcli.student.converted.convert`` made of such a file.
        wanted: The words, without spaces; each gets a row of the matrix.
        reporter: Shows the progress.

    Raises:
        DataError: The file is missing, cut, of another form, or holds a vector of the wrong size or with NaN.
    """
    if is_safetensors(path):
        return _look_up(ConvertedVectors(path), wanted)
    file = VectorFile(path)
    search = _Search(wanted, file.dimension)
    with (reporter or QuietReporter()).progress(f"vectors of {path.name}", file.count, "words") as progress:
        for word, _, vector in file.rows(search.needs, progress.advance):
            search.keep(word, vector)
    return WordVectors(search.matrix, search.rank < len(_SPELLINGS))


def _look_up(file: ConvertedVectors, wanted: Sequence[str]) -> WordVectors:
    rows = np.full(len(wanted), -1)
    for spelling in _SPELLINGS:
        missing = np.flatnonzero(rows < 0)
        rows[missing] = file.find([spelling(wanted[index]).encode() for index in missing.tolist()])
    return WordVectors(file.vectors(rows), rows >= 0)


class _Search:
    """The wanted words, by all spellings they may have in a file, and the vectors found so far."""

    def __init__(self, wanted: Sequence[str], dimension: int) -> None:
        self.matrix = np.zeros((len(wanted), dimension), np.float32)
        self.rank = np.full(len(wanted), len(_SPELLINGS))
        self._seekers: dict[bytes, list[tuple[int, int]]] = {}
        for index, word in enumerate(wanted):
            for rank, spelling in enumerate(_SPELLINGS):
                self._seekers.setdefault(spelling(word).encode(), []).append((index, rank))

    def needs(self, word: bytes) -> bool:
        """Tell whether a vector of this word would be better than what has been found."""
        seekers = self._seekers.get(word)
        return seekers is not None and any(rank < self.rank[index] for index, rank in seekers)

    def keep(self, word: bytes, vector: NDArray[np.float32]) -> None:
        """Give the vector to those who seek the word and have no better one."""
        for index, rank in self._seekers[word]:
            if rank < self.rank[index]:
                self.matrix[index] = vector
                self.rank[index] = rank


def words_of(path: Path) -> Iterator[str]:
    """Give the words of a file of word vectors in its order; published files begin with the most frequent.

    Args:
        path: The file, as for ``read_vectors``.

    Raises:
        DataError: As for ``read_vectors``, as far as the file is read.
    """
    if is_safetensors(path):
        words: Iterator[bytes] = ConvertedVectors(path).words()
    else:
        words = (word for word, _, _ in VectorFile(path).rows(lambda _: True, lambda _: None))
    return (word.decode(errors="replace") for word in words)
