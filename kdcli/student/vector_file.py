"""Published word vectors, read as a stream: word2vec (text or binary), GloVe and fastText."""

import gzip
import io
import re
import statistics
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import DataError

Row: TypeAlias = tuple[bytes, NDArray[np.float32]]  # a word (UTF-8) and its vector, ``float32 [dimension]``

FORMS = "word2vec (text or binary), GloVe and fastText .vec files are read, each also as .gz, and .parquet"
_STEP = 1 << 16
_BUFFER = 1 << 18
_BLOCK = 1 << 20
_SAMPLE_ROWS = 20
_BOM = b"\xef\xbb\xbf"
_MAGIC = {b"PK\x03\x04": "a zip archive", b"\xba\x16\x4f\x2f": "a fastText model"}


class VectorFile:
    """A file of word vectors, gzipped or not: text with or without a header line ``count dimension``, or binary."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _open(path) as stream:
            sample = stream.read(_BUFFER)
        bom = len(_BOM) if sample.startswith(_BOM) else 0
        for magic, what in _MAGIC.items():
            if sample.startswith(magic):
                raise DataError(f"this is {what}, not a file of word vectors", file=path, hint=FORMS)
        self._start, self._binary = bom, False
        self.count: int | None = None  # the number of vectors in the header line
        if header := re.match(rb"\s*(\d+)[ \t]+(\d+)[ \t]*\r?\n", sample[bom:]):
            self.count, self.dimension, self._start = int(header[1]), int(header[2]), bom + header.end()
            if not self.count or not self.dimension:
                raise DataError("the header line says that there are no vectors", file=path, row=1)
            first = _fields(sample[self._start :].partition(b"\n")[0])
            self._binary = not _ends_in_numbers(first, self.dimension)
            return
        rows = [_fields(line) for line in sample.split(b"\n")[:_SAMPLE_ROWS] if line.strip()]
        self.dimension = statistics.mode(len(fields) - 1 for fields in rows) if rows else 0
        if not self.dimension or not _ends_in_numbers(rows[0], self.dimension):
            what = "no word vectors here: a row is a word and its numbers" if rows else "the file is empty"
            raise DataError(what, file=path, row=1, hint=FORMS)

    def rows(self, needs: Callable[[bytes], bool], advance: Callable[[int], None]) -> Iterator[Row]:
        """Yield the rows whose word is needed, in the file's order; only these, and a few others, are parsed.

        ``needs`` may change its answer on the way; ``advance`` counts the rows. A file that is cut, or a vector of the
        wrong size, with NaN, infinity or no number, is a ``DataError``.
        """
        with _open(self.path) as stream:
            stream.read(self._start)
            read = self._binary_rows if self._binary else self._text_rows
            for number, (word, vector) in read(stream, needs, advance):
                if not np.isfinite(vector).all():
                    raise self._error(number, word, "holds a value that is not finite")
                yield word, vector

    def _text_rows(
        self, stream: BinaryIO, needs: Callable[[bytes], bool], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, Row]]:
        start = 1 if self.count is None else 2
        row, line = start - 1, b""
        for row, line in enumerate(stream, start):
            # The text before the first space may be the first piece of a word that holds spaces.
            if needs(line[: line.find(b" ")]) and (parsed := self._parse(line, row)) and needs(parsed[0]):
                yield row, parsed
            if (row - start) % _STEP == 0:
                self._parse(line, row)
                advance(min(row - start, _STEP))
        self._parse(line, row)
        count = row - start + 1
        whole = count if line.strip() else count - 1
        if self.count is not None and whole < self.count:
            raise _cut(self.path, f"it ends after {whole:,} of {self.count:,} vectors")
        advance((count - 1) % _STEP + 1)

    def _parse(self, line: bytes, row: int) -> Row | None:
        """Read a row; None if it is blank. Some of GloVe's words hold spaces."""
        fields, size = _fields(line), self.dimension
        if len(fields) > size + 1 and not _is_number(fields[-size - 1]):
            fields[:-size] = [b" ".join(fields[:-size])]
        word, count = fields[0], len(fields) - 1
        if not count and not word:
            return None
        if count < size and not line.endswith(b"\n"):
            raise _cut(self.path, f"row {row} breaks off")
        if count != size:
            raise self._error(row, word, f"has {count} values where the file has {size}")
        try:
            with np.errstate(over="ignore"):
                return word, np.fromiter(map(float, fields[1:]), np.float32, size)
        except ValueError as error:
            raise self._error(row, word, f"is no list of numbers ({error})") from None

    def _binary_rows(
        self, stream: BinaryIO, needs: Callable[[bytes], bool], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, Row]]:
        size, count = 4 * self.dimension, self.count or 0
        block, position, counted = b"", 0, 0
        for number in range(count):
            space = block.find(b" ", position)
            while space < 0 or len(block) <= space + size:
                more = stream.read(_BLOCK)
                if not more:
                    raise _cut(self.path, f"it ends after {number:,} of {count:,} vectors")
                advance(number - counted)
                block, position, counted = block[position:] + more, 0, number
                space = block.find(b" ")
            # word2vec ends each vector with a line feed, gensim does not.
            word = block[position:space].lstrip(b"\n")
            if needs(word):
                vector = np.frombuffer(block, "<f4", self.dimension, space + 1).astype(np.float32)
                yield number + 2, (word, vector)
            position = space + 1 + size
        advance(count - counted)
        if (block[position:] + stream.read(_BLOCK)).strip(b"\n"):
            what = f"bytes are left over after {count:,} vectors of {self.dimension} values"
            raise DataError(what, file=self.path, row=1, hint="the header line does not fit the file")

    def _error(self, row: int, word: bytes, what: str) -> DataError:
        return DataError(f"the vector of {word.decode(errors='replace')!r} {what}", file=self.path, row=row)


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open a file, gzipped or not; what cannot be read is a ``DataError``."""
    try:
        with path.open("rb", buffering=0) as plain:
            gzipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with io.BufferedReader(gzip.GzipFile(fileobj=plain) if gzipped else plain, _BUFFER) as stream:
                yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _cut(path, f"the gzip stream breaks off ({error})") from error
    except OSError as error:
        hint = "word vectors are one file: give its path in student.vectors"
        raise DataError(f"cannot read the word vectors: {error.strerror}", file=path, hint=hint) from error


def _fields(line: bytes) -> list[bytes]:
    """Return a word and its numbers, whatever number of spaces stands between them."""
    fields = line.rstrip().split(b" ")
    return [fields[0], *filter(None, fields[1:])] if b"" in fields[1:] else fields


def _ends_in_numbers(fields: list[bytes], dimension: int) -> bool:
    """Tell a row of text from bytes by its last few fields: the row itself may be cut or of the wrong size."""
    values = fields[1:][-min(dimension, 4) :]
    return bool(values) and all(map(_is_number, values))


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cut(path: Path, what: str) -> DataError:
    return DataError(f"the word vectors are cut: {what}", file=path, hint="the file is not whole: get it again")
