"""How near texts are to those of a task, and the nearest of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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


def tfidf_nearness(task_texts: Sequence[str]) -> Nearness:
    """Take the cosine, 0 to 1, of a text's TF-IDF vector and the centroid of the task's.

    Words have two letters or more, in lower case; a text's counts are 1 + log. English function words are left out.
    With them the centroid is mostly theirs, and so are the nearest texts: the long ones, whatever they are about.

    Raises:
        DataError: There is no such word in the task's texts.
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
    centroid = mean / np.linalg.norm(mean)
    return lambda texts: np.asarray(vectorizer.transform(texts) @ centroid, np.float64)


def lm_nearness(bits: Bits) -> Nearness:
    """Take the bits per character of a generator, fewer being nearer (so the number is negative); no text is blank."""
    return lambda texts: -np.asarray(bits(texts), np.float64) / np.array([len(text) for text in texts], np.float64)


def nearest(
    texts: pl.LazyFrame, nearness: Nearness, count: int, total: int, reporter: Reporter
) -> Iterator[pl.DataFrame]:
    """Yield the ``count`` texts nearest to the task, the nearest first; of equally near ones, the earlier.

    ``texts`` are the text columns of ``total`` rows on disk. All are read before the first is given.
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
