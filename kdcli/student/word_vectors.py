"""The word vectors that a student begins with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from kdcli.api import Reporter
from kdcli.errors import DataError
from kdcli.student.encoder_vectors import encoder_vectors, encoder_words
from kdcli.student.vectors import read_vectors, words_of

FILE = "vectors.safetensors"
RANGE = 0.25
"""Words without a vector get one from U(-0.25, 0.25) (Tang et al. 2019, section 4.2)."""


@dataclass(frozen=True)
class Vectors:
    """The word vectors that a student begins with.

    Attributes:
        matrix: ``float32 [vocabulary, dimension]``; the padding's, in the first row, is zero.
        source: What they were made from.
        found: Words that have a vector there; the others have a random one.
    """

    matrix: NDArray[np.float32]
    source: str
    found: int


def make_vectors(
    words: list[str], *, source: str, dimension: int, seed: int, device: str, reporter: Reporter
) -> Vectors:
    """Find or make a vector for each word; a word without one gets a random one.

    Args:
        words: The vocabulary, the padding first.
        source: A vector file (also one that `kd data get` has converted), or an encoder's folder or hub name.
        dimension: Size of a vector made from an encoder; a file brings its own.
        seed: Seed of the random ones.
        device: Where an encoder runs.
        reporter: Shows the progress.

    Raises:
        DataError: The file has no vector for any word.
    """
    file = Path(source).expanduser()
    if file.is_file():
        read = read_vectors(file, words, reporter=reporter)
        matrix, found, kind = read.matrix, read.found, "file"
        if not found.any():
            raise DataError("no word of the vocabulary has a vector in this file", file=source)
    else:
        matrix = encoder_vectors(source, words, dimension, device=device, reporter=reporter)
        found, kind = np.ones(len(words), np.bool_), "encoder"
    random = np.random.Generator(np.random.Philox(key=[seed, 0])).uniform(-RANGE, RANGE, matrix.shape)
    matrix = np.where(found[:, None], matrix, random).astype(np.float32)
    matrix[0] = 0
    return Vectors(matrix, f"{kind} {source}", int(found.sum()))


def words_with_vectors(source: str, reporter: Reporter) -> Iterator[str]:
    """Give words that have vectors, the most frequent first: those of a file, or an encoder's own vocabulary.

    A student that begins with vectors can read words that its training set has not: they lie where words like them do.

    Args:
        source: A vector file, or an encoder's folder or hub name.
        reporter: Told when an encoder's files are fetched.
    """
    file = Path(source).expanduser()
    return words_of(file) if file.is_file() else encoder_words(source, reporter)


def save_vectors(vectors: Vectors, folder: Path) -> None:
    """Write the vectors into a folder."""
    metadata = {"kd": json.dumps({"source": vectors.source, "found": vectors.found})}
    (folder / FILE).write_bytes(save({"vectors": vectors.matrix}, metadata))


def load_vectors(folder: Path) -> Vectors | None:
    """Read the vectors of an encoded set, or None where it has none."""
    if not (folder / FILE).exists():
        return None
    with safe_open(folder / FILE, "numpy") as file:
        metadata = json.loads(file.metadata()["kd"])
        return Vectors(file.get_tensor("vectors"), metadata["source"], metadata["found"])
