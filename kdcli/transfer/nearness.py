"""How near texts are to those of a task, and the nearest of many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from kdcli.api import Reporter
from kdcli.errors import DataError

ROWS = 4096
"""Texts that are given out at a time."""

Bits = Callable[[Sequence[str]], NDArray[np.float64]]
"""Gives the bits that each text takes, ``float64 [texts]``."""

Nearness = Callable[[Sequence[str]], NDArray[np.float64]]
"""Gives each text a number, ``float64 [texts]``; the greater, the nearer. A pair is one text with a tab."""


@dataclass(frozen=True)
class TfidfNearness:
    """The cosine of a text's TF-IDF vector and the centroid of the task's.

    Attributes:
        vectorizer: Fitted on the task's texts.
        centroid: ``float64 [terms]``, of length 1.
    """

    vectorizer: Any
    centroid: NDArray[np.float64]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the cosines, 0 to 1; a text without a word of the task's has 0."""
        vectors = self.vectorizer.transform(texts)
        return np.asarray(vectors @ self.centroid, np.float64)


def tfidf_nearness(task_texts: Sequence[str]) -> TfidfNearness:
    """Learn the words of a task: those of two letters or more, in lower case, each text's counts as 1 + log.

    English function words are left out. With them the centroid is mostly theirs, and so are the nearest texts: the
    long ones, whatever they are about. Word pairs make that worse.

    Args:
        task_texts: The training texts, those of a pair joined.

    Raises:
        DataError: There is no such word in them.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    try:
        vectors = vectorizer.fit_transform(task_texts)
    except ValueError as error:
        hint = "order them otherwise: transfer.corpus.order_by=none or lm"
        what = "the training texts hold no words that texts could be ordered by"
        raise DataError(what, key="transfer.corpus.order_by", hint=hint) from error
    mean = np.asarray(vectors.mean(axis=0), np.float64).ravel()
    return TfidfNearness(vectorizer, mean / np.linalg.norm(mean))


def lm_nearness(bits: Bits) -> Nearness:
    """Take a language model's bits per character, fewer being nearer (so the number is negative).

    Args:
        bits: A generator's, fine-tuned on the task; the texts it is asked about are not blank.
    """

    def nearness(texts: Sequence[str]) -> NDArray[np.float64]:
        characters = np.array([len(text) for text in texts], np.float64)
        return np.negative(np.asarray(bits(texts), np.float64) / characters)

    return nearness


def nearest(
    batches: Iterable[pa.RecordBatch],
    nearness: Nearness,
    count: int,
    waiting: IO[bytes],
    reporter: Reporter,
    *,
    total: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Find the texts nearest to the task; all are read before the first is given.

    Args:
        batches: The text columns. Texts hold no tab.
        nearness: Says how near each is.
        count: How many are wanted.
        waiting: An empty file where the texts wait for their turn, so that they need not stay in memory.
        reporter: Told of the progress.
        total: The number of texts, if it is known.

    Returns:
        The nearest first; of equally near ones, the earlier.
    """
    near, lengths = [np.zeros(0)], [np.zeros(0, np.int64)]
    schema = pa.schema([])
    with reporter.progress("order", total, unit="texts") as progress:
        for batch in batches:
            schema = batch.schema
            if texts := joined(batch.columns):
                near.append(nearness(texts))
                data = [text.encode() for text in texts]
                lengths.append(np.array([len(text) for text in data], np.int64))
                waiting.write(b"".join(data))
                progress.advance(len(texts))
    order = np.argsort(-np.concatenate(near), kind="stable")[:count]
    return _take(waiting, np.concatenate(lengths), order, schema)


def _take(
    waiting: IO[bytes], lengths: NDArray[np.int64], order: NDArray[np.int64], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    ends = np.cumsum(lengths)
    for first in range(0, len(order), ROWS):
        rows = order[first : first + ROWS]
        texts = []
        for end, length in zip(ends[rows].tolist(), lengths[rows].tolist(), strict=True):
            waiting.seek(end - length)
            texts.append(waiting.read(length).decode().split("\t"))
        yield pa.record_batch([pa.array(column, pa.string()) for column in zip(*texts, strict=True)], schema)


def joined(columns: Sequence[pa.Array | pa.ChunkedArray]) -> list[str]:
    """Make one text of each row, with tabs between its columns."""
    texts: list[str] = pc.binary_join_element_wise(*columns, pa.scalar("\t")).to_pylist()
    return texts
