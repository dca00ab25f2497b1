"""How near texts are to those of a task, and the nearest of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter
from kdcli.errors import DataError
from kdcli.tables.parquet import slices
from kdcli.transfer.dedupe import take

ASKED = 4096
"""Texts whose nearness is computed together."""
ROWS = 262_144
"""Texts that are read together when they are put in order."""

Bits = Callable[[Sequence[str]], NDArray[np.float64]]
"""Gives the bits that each text takes, ``float64 [texts]``."""

Nearness = Callable[[Sequence[str]], NDArray[np.float64]]
"""Gives each text a number, ``float64 [texts]``; the greater, the nearer. A pair is one text with a tab."""


@dataclass(frozen=True)
class TfidfNearness:
    """The cosine of a text's TF-IDF vector and the centroid of the task's."""

    vectorizer: Any  # fitted on the task's texts
    centroid: NDArray[np.float64]  # ``float64 [terms]``, of length 1

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the cosines, 0 to 1; a text without a word of the task's has 0."""
        return np.asarray(self.vectorizer.transform(texts) @ self.centroid, np.float64)


def tfidf_nearness(task_texts: Sequence[str]) -> TfidfNearness:
    """Learn the words of a task: those of two letters or more, in lower case, each text's counts as 1 + log.

    English function words are left out. With them the centroid is mostly theirs, and so are the nearest texts: the
    long ones, whatever they are about. Word pairs make that worse.

    Args:
        task_texts: The training texts, those of a pair joined.

    Raises:
        DataError: There is no such word in them.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second

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
        bits: A generator's, fine-tuned on the task; the texts it gets are not blank.
    """

    def nearness(texts: Sequence[str]) -> NDArray[np.float64]:
        characters = np.array([len(text) for text in texts], np.float64)
        return np.negative(np.asarray(bits(texts), np.float64) / characters)

    return nearness


def nearest(
    texts: pl.LazyFrame, nearness: Nearness, count: int, total: int, reporter: Reporter
) -> Iterator[pl.DataFrame]:
    """Find the texts nearest to the task; all are read before the first is given.

    Args:
        texts: The text columns, on disk.
        nearness: Says how near each is.
        count: How many are wanted.
        total: The number of texts.
        reporter: Shows the progress.

    Yields:
        The nearest first; of equally near ones, the earlier.
    """
    near = [np.zeros(0)]
    with reporter.progress("order", total, unit="texts") as progress:
        for frame in slices(texts, ASKED):
            near.append(nearness(joined(frame)))
            progress.advance(len(frame))
    order = np.argsort(-np.concatenate(near), kind="stable")[:count]
    for first in range(0, len(order), ROWS):
        yield take(texts, order[first : first + ROWS], total)


def joined(texts: pl.DataFrame) -> list[str]:
    """Make one text of each row, with tabs between its columns."""
    return texts.select(pl.concat_str(pl.all(), separator="\t")).to_series().to_list()
