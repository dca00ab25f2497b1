"""The word vectors that a student begins with: read from a file, or made from an encoder."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import DataError, first_line
from kdcli.student.vector_file import Row, VectorFile
from kdcli.student.vocabulary import CONTINUES

FILE = "vectors.safetensors"
RANGE = 0.25  # words without a vector get one from U(-0.25, 0.25) (Tang et al. 2019, section 4.2).
_LOWER = pl.col("word").str.to_lowercase()


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
    matrix = np.where(found[:, None], matrix, random).astype(np.float32)
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
