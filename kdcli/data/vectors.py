"""Word vectors from a file, read as a stream that keeps only the words needed."""

from __future__ import annotations

import gzip
import io
import re
import statistics
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import DataError

_SPELLINGS: tuple[Callable[[str], str], ...] = (str, str.lower, str.capitalize)
_STEP = 1 << 16
_BLOCK = 1 << 20
_PEEK = 1 << 18
_SAMPLE_ROWS = 20
_FORMS = "word2vec (text or binary), GloVe and fastText .vec files are read, each also as .gz"
_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"\xba\x16\x4f\x2f": "a fastText model",
    b"\x93NUM": "a NumPy array",
    b"\x80\x02": "a pickle",
    b"\x80\x04": "a pickle",
}


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
    """Read the vectors of the wanted words from a word2vec, GloVe or fastText file.

    A word is looked up as written, else in lower case, else capitalised. Of a word that the file holds several times
    the first vector counts. Of the other rows only a few are parsed, the first and the last among them, so a fault in
    one of them may go unnoticed.

    Args:
        path: The file, gzipped or not: text with or without a header line ``count dimension``, or word2vec's binary.
        wanted: The words, without spaces; each gets a row of the matrix.
        reporter: Shows the progress.

    Raises:
        DataError: The file is missing, cut, of another form, or holds a vector of the wrong size or with NaN.
    """
    reporter = reporter or QuietReporter()
    with _open(path) as file:
        form = _recognise(file, path)
        search = _Search(wanted, form.dimension, path)
        read = _read_binary if form.binary else _read_text
        with reporter.progress(f"vectors of {path.name}", form.count, "words") as progress:
            read(file, form, search, progress.advance)
    return WordVectors(search.matrix, search.rank < len(_SPELLINGS))


class _Search:
    """The wanted words, by all spellings they may have in a file, and the vectors found so far."""

    def __init__(self, wanted: Sequence[str], dimension: int, path: Path) -> None:
        self.path = path
        self.matrix = np.zeros((len(wanted), dimension), np.float32)
        self.rank = np.full(len(wanted), len(_SPELLINGS))
        self.seekers: dict[bytes, list[tuple[int, int]]] = {}
        for index, word in enumerate(wanted):
            for rank, spelling in enumerate(_SPELLINGS):
                self.seekers.setdefault(spelling(word).encode(), []).append((index, rank))

    def needs(self, word: bytes) -> bool:
        """Tell whether a vector of this word would be better than what has been found."""
        seekers = self.seekers.get(word)
        return seekers is not None and any(rank < self.rank[index] for index, rank in seekers)

    def keep(self, word: bytes, vector: NDArray[np.float32], row: int) -> None:
        """Give the vector to those who seek the word and have no better one.

        Raises:
            DataError: The vector holds NaN or infinity.
        """
        if not np.isfinite(vector).all():
            raise _row_error(self.path, row, word, "holds a value that is not finite")
        for index, rank in self.seekers[word]:
            if rank < self.rank[index]:
                self.matrix[index] = vector
                self.rank[index] = rank


@dataclass(frozen=True)
class _Form:
    """The form of a file; ``count`` is None where there is no header line."""

    dimension: int
    count: int | None
    binary: bool


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedReader[Any]]:
    try:
        with path.open("rb", buffering=0) as plain:
            gzipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            raw = gzip.GzipFile(fileobj=plain) if gzipped else plain
            with io.BufferedReader(raw, _PEEK) as file:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _cut(path, f"the gzip stream breaks off ({error})") from error
    except OSError as error:
        hint = "word vectors are one file: give its path in student.vectors"
        raise DataError(f"cannot read the word vectors: {error.strerror}", file=path, hint=hint) from error


def _recognise(file: io.BufferedReader[Any], path: Path) -> _Form:
    """Tell the form from the first bytes, and leave the file at the first vector."""
    sample = file.peek(_PEEK)
    for magic, what in _MAGIC.items():
        if sample.startswith(magic):
            raise DataError(f"this is {what}, not a file of word vectors", file=path, hint=_FORMS)
    header = re.match(rb"\s*(\d+)[ \t]+(\d+)[ \t]*\r?\n", sample)
    if header:
        count, dimension = int(header[1]), int(header[2])
        file.read(header.end())
        if not count or not dimension:
            raise DataError("the header line says that there are no vectors", file=path, row=1)
        first = sample[header.end() :].partition(b"\n")[0].rstrip().split(b" ")
        return _Form(dimension, count, binary=not _ends_in_numbers(first, dimension))
    rows = [line.rstrip().split(b" ") for line in sample.split(b"\n")[:_SAMPLE_ROWS] if line.strip()]
    dimension = statistics.mode(len(fields) - 1 for fields in rows) if rows else 0
    if not dimension or not _ends_in_numbers(rows[0], dimension):
        what = "no word vectors here: a row is a word and its numbers" if rows else "the file is empty"
        raise DataError(what, file=path, row=1, hint=_FORMS)
    return _Form(dimension, None, binary=False)


def _ends_in_numbers(fields: list[bytes], dimension: int) -> bool:
    """Tell a row of text from bytes; a few fields will do, for the row itself may be cut or of the wrong size."""
    values = fields[1:][-min(dimension, 4) :]
    return bool(values) and all(map(_is_number, values))


def _read_text(file: io.BufferedReader[Any], form: _Form, search: _Search, advance: Callable[[int], None]) -> None:
    start = 1 if form.count is None else 2
    seekers, row, line = search.seekers, start - 1, b""
    for row, line in enumerate(file, start):
        word = line[: line.find(b" ")]
        if word in seekers and search.needs(word):
            vector = _parse(line, row, form, search.path)
            if vector is not None:
                search.keep(word, vector, row)
        if (row - start) % _STEP == 0:
            _parse(line, row, form, search.path)
            advance(min(row - start, _STEP))
    if line.strip():
        _parse(line, row, form, search.path)
    count = row - start + 1
    if form.count is not None and count < form.count:
        raise _cut(search.path, f"it ends after {count:,} of {form.count:,} vectors")
    advance((count - 1) % _STEP + 1)


def _parse(line: bytes, row: int, form: _Form, path: Path) -> NDArray[np.float32] | None:
    """Read a row's values; None if its word holds spaces, as some of GloVe's do, so that it is no word of ours."""
    fields = line.rstrip().split(b" ")
    count = len(fields) - 1
    if count > form.dimension and not _is_number(fields[-form.dimension - 1]):
        return None
    if count < form.dimension and not line.endswith(b"\n"):
        raise _cut(path, f"row {row} breaks off")
    if count != form.dimension:
        raise _row_error(path, row, fields[0], f"has {count} values where the file has {form.dimension}")
    try:
        with np.errstate(over="ignore"):
            return np.array([float(field) for field in fields[1:]], np.float32)
    except ValueError as error:
        raise _row_error(path, row, fields[0], f"is no list of numbers ({error})") from None


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_binary(file: io.BufferedReader[Any], form: _Form, search: _Search, advance: Callable[[int], None]) -> None:
    size, count = 4 * form.dimension, form.count or 0
    block, position, told = b"", 0, 0
    for number in range(count):
        space = block.find(b" ", position)
        while space < 0 or len(block) <= space + size:
            more = file.read(_BLOCK)
            if not more:
                raise _cut(search.path, f"it ends after {number:,} of {count:,} vectors")
            advance(number - told)
            block, position, told = block[position:] + more, 0, number
            space = block.find(b" ")
        # word2vec ends each vector with a line feed, gensim does not.
        word = block[position:space].lstrip(b"\n")
        if search.needs(word):
            search.keep(word, np.frombuffer(block, "<f4", form.dimension, space + 1).astype(np.float32), number + 2)
        position = space + 1 + size
    advance(count - told)
    if (block[position:] + file.read(_BLOCK)).strip(b"\n"):
        what = f"bytes are left over after {count:,} vectors of {form.dimension} values"
        raise DataError(what, file=search.path, row=1, hint="the header line does not fit the file")


def _row_error(path: Path, row: int, word: bytes, what: str) -> DataError:
    return DataError(f"the vector of {word.decode(errors='replace')!r} {what}", file=path, row=row)


def _cut(path: Path, what: str) -> DataError:
    return DataError(f"the word vectors are cut: {what}", file=path, hint="the file is not whole: get it again")
