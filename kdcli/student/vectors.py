"""The word vectors that a student begins with: read from a file, or made from an encoder.

Published files are read as a stream: word2vec (text or binary), GloVe and fastText.
"""

import gzip
import io
import json
import re
import statistics
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import DataError, first_line
from kdcli.student.vocabulary import CONTINUES

FILE = "vectors.safetensors"
RANGE = 0.25  # words without a vector get one from U(-0.25, 0.25) (Tang et al. 2019, section 4.2).
_LOWER = pl.col("word").str.to_lowercase()
Row: TypeAlias = tuple[bytes, NDArray[np.float32]]  # a word (UTF-8) and its vector, ``float32 [dimension]``
FORMS = "word2vec (text or binary), GloVe and fastText .vec files are read, each also as .gz, and .parquet"
_STEP = 1 << 16
_BUFFER = 1 << 18
_BLOCK = 1 << 20
_SAMPLE_ROWS = 20
_BOM = b"\xef\xbb\xbf"
_MAGIC = {b"PK\x03\x04": "a zip archive", b"\xba\x16\x4f\x2f": "a fastText model"}


@dataclass(frozen=True)
class Vectors:
    """The word vectors that a student begins with; a word that the source does not have gets a random one."""

    matrix: NDArray[np.float32]  # [vocabulary, dimension], the padding's zero
    source: str
    found: int  # words that it has a vector for


@dataclass(frozen=True)
class WordVectors:
    """The vectors of a list of words, ``float32 [words, dimension]``, zeros where it is not ``found [words]``."""

    matrix: NDArray[np.float32]
    found: NDArray[np.bool_]


def make_vectors(
    words: list[str], *, source: str, dimension: int, seed: int, device: str, reporter: Reporter
) -> Vectors:
    """Find or make a vector for each word of a vocabulary, the padding first; a word without one gets a random one.

    The source is a vector file, which has a dimension of its own, or an encoder's folder or hub name. A file without a
    vector for any word is a ``DataError``.
    """
    file = Path(source).expanduser()
    if file.is_file():
        read = read_vectors(file, words, reporter=reporter)
        matrix, found, kind = read.matrix, read.found, "file"
        if not found.any():
            raise DataError("no word of the vocabulary has a vector in this file", file=source)
    else:
        from kdcli.student.encoder_vectors import encoder_vectors

        matrix = encoder_vectors(source, words, dimension, device=device, reporter=reporter)
        found, kind = np.ones(len(words), np.bool_), "encoder"
    random = np.random.Generator(np.random.Philox(key=[seed, 0])).uniform(-RANGE, RANGE, matrix.shape)
    matrix = np.where(found[:, None], matrix, random.astype(np.float32))
    matrix[0] = 0
    return Vectors(matrix, f"{kind} {source}", int(found.sum()))


def words_with_vectors(source: str, reporter: Reporter) -> Iterator[str]:
    """Give words that have vectors, the most frequent first: a student can read those that its training set lacks."""
    path = Path(source).expanduser()
    if not path.is_file():
        from kdcli.student.encoder_vectors import encoder_words

        return encoder_words(source, reporter)
    if path.suffix == ".parquet":
        return iter(_collect(path, lambda rows: rows.select("word"))["word"])
    rows = VectorFile(path).rows(lambda word: True, lambda count: None)
    return (word.decode(errors="replace") for word, _ in rows)


def pieces_with_vectors(source: str, reporter: Reporter) -> Iterator[str]:
    """Give the pieces that words can be cut into, of an encoder, or of a Parquet file that has such pieces."""
    path = Path(source).expanduser()
    if path.is_file():
        words = list(words_with_vectors(source, reporter)) if path.suffix == ".parquet" else []
        inside = [word for word in words if word.startswith(CONTINUES)]
        return iter([word for word in words if len(word) == 1 and word.isalnum()] + inside if inside else [])
    from kdcli.student.encoder_vectors import encoder_pieces

    return encoder_pieces(source, reporter)


def save_vectors(vectors: Vectors, folder: Path) -> None:
    """Write the vectors into an encoded set."""
    metadata = {"kd": json.dumps({"source": vectors.source, "found": vectors.found})}
    (folder / FILE).write_bytes(save({"vectors": vectors.matrix}, metadata))


def load_vectors(folder: Path) -> Vectors | None:
    """Read the vectors of an encoded set, or None where it has none."""
    if not (folder / FILE).exists():
        return None
    with safe_open(folder / FILE, "numpy") as file:
        metadata = json.loads(file.metadata()["kd"])
        return Vectors(file.get_tensor("vectors"), metadata["source"], metadata["found"])


def read_vectors(path: Path, wanted: Sequence[str], *, reporter: Reporter = QuietReporter()) -> WordVectors:
    """Read the vectors of the wanted words from a file: ``VectorFile``, or Parquet with the columns word and vector.

    A word is looked up as written, else in any case (``iphone`` as ``iPhone``). Of a word that the file holds several
    times the first vector counts: files begin with the frequent ones. Of the other rows only a few are parsed, so a
    fault in one of them may go unnoticed. A file that is missing, cut or of another form, or that holds a vector of the
    wrong size or with NaN, is a ``DataError``.
    """
    written = [word.encode() for word in wanted]
    places: dict[bytes, list[int]] = {}
    for index, word in enumerate(wanted):
        for key in {case.encode().lower() for case in (word.lower(), word.upper())}:  # bytes fold ASCII alone
            places.setdefault(key, []).append(index)
    rank = [2] * len(wanted)  # 0: found as written, 1: in another case, 2: not yet

    def served(word: bytes) -> list[int]:
        return [index for index in places.get(word.lower(), ()) if (word != written[index]) < rank[index]]

    file = None if path.suffix == ".parquet" else VectorFile(path)
    count = file.count if file else None
    with reporter.progress(f"vectors of {path.name}", count, "words") as progress:
        if file:
            dimension, rows = file.dimension, file.rows(lambda word: bool(served(word)), progress.advance)
        else:
            dimension, rows = _parquet_rows(path, [word.lower() for word in wanted])
        matrix = np.zeros((len(wanted), dimension), np.float32)
        for found, vector in rows:
            for index in served(found):
                matrix[index], rank[index] = vector, int(found != written[index])
    if cased := rank.count(1):
        reporter.info(f"{path.name}: {cased:,} words were found in another case")
    return WordVectors(matrix, np.array(rank, int) < 2)


def _parquet_rows(path: Path, words: list[str]) -> tuple[int, Iterator[Row]]:
    """Return the size of a vector, and the rows of these words."""
    # The first row gives the size, even if none of the words is there.
    found = _collect(path, lambda rows: pl.concat([rows.head(1), rows.filter(_LOWER.is_in(words))]))
    sizes = found["vector"].list.len().fill_null(0).unique().to_list()
    if len(sizes) != 1 or not sizes[0]:
        raise DataError(f"the vectors have no common size: {sizes}", file=path, key="vector")
    matrix = found["vector"].explode().fill_null(np.nan).to_numpy().reshape(len(found), sizes[0])
    wrong = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(wrong):
        what = f"the vector of {found['word'][int(wrong[0])]!r} holds a value that is not finite"
        raise DataError(what, file=path, key="vector")
    return sizes[0], zip((word.encode() for word in found["word"][1:]), matrix[1:], strict=True)


def _collect(path: Path, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
    word, vector = pl.col("word").cast(pl.String), pl.col("vector").cast(pl.List(pl.Float32))
    try:
        return query(pl.scan_parquet(path).select(word, vector)).collect(engine="streaming")
    except (OSError, pl.exceptions.PolarsError) as error:
        what = f"a Parquet file of word vectors has the columns word and vector: {first_line(error)}"
        raise DataError(what, file=path, hint="write it again, or name the text file of the vectors") from error


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
