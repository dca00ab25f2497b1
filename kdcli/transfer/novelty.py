"""How varied and how new made texts are: the report at the end of ``kd transfer heavy``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.tables.parquet import slices
from kdcli.transfer.cleaning import WORD, excerpts, take

EXAMPLES = 20
SCORED = 2000  # samples whose bits are taken, at most

_ROWS = 65_536
_HELD = 1_000_000
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FEWEST = (0, 3, 5, 9, 13, 17, 25, 33, 49, 65)
BINS = (*(f"{low}-{following - 1}" for low, following in pairwise(_FEWEST)), f"{_FEWEST[-1]}+")
"""The words of a text, in the bins of the histograms."""


@dataclass(frozen=True)
class Novelty:
    """What the samples are like, beside the training texts.

    Words are separated by white space; the length of a pair is that of both its texts. ``distinct_n`` is the number of
    different n-grams over the number of all (Li et al. 2016, section 5, divide by that of the words), 0 where there are
    none; an n-gram does not go beyond its text. The more text, the lower it is: sets of different size compare only by
    the ``equal_`` ones, which are of the first ``equal_words`` words of each.
    """

    samples: int
    words: int  # in all samples
    distinct_1: float
    distinct_2: float
    distinct_3: float
    train_distinct_1: float
    train_distinct_2: float
    train_distinct_3: float
    equal_words: int  # in the samples or in the training texts, whichever have fewer
    equal_distinct_1: float
    equal_distinct_2: float
    equal_distinct_3: float
    equal_train_distinct_1: float
    equal_train_distinct_2: float
    equal_train_distinct_3: float
    in_train: float  # share of the samples that are training texts but for white space, before any were dropped
    mean_length: float  # in words
    train_mean_length: float
    lengths: dict[str, float]  # share of the samples in each of ``BINS``
    train_lengths: dict[str, float]
    bits_per_character: float | None  # of the scored samples; only the bits count the end of each text
    scored: int  # samples drawn at random, whose bits the generator gave
    examples: list[str]  # samples drawn at random; a ``|`` stands between the texts of a pair


def novelty(
    *,
    samples: pl.LazyFrame,
    train: pl.DataFrame,
    task: Task,
    seed: int,
    raw: int,
    raw_in_train: int,
    bits: Callable[[Sequence[str]], NDArray[np.float64]] | None = None,
    reporter: Reporter | None = None,
) -> Novelty:
    """Compare samples with the training texts.

    In memory stay the hashes of all different n-grams and the samples drawn. Before any were dropped there were ``raw``
    samples, of which ``raw_in_train`` were training texts. ``bits`` gives the bits of each text, its end included; a
    pair is one text with a tab.
    """
    texts, samples = train.select(task.columns), samples.select(task.columns)
    training = _TextCounts().all_of(texts)
    made, first = _TextCounts(), _TextCounts(training.words)
    with (reporter or QuietReporter()).progress("novelty report", unit="texts") as progress:
        for frame in slices(samples, _ROWS):
            made.add(frame)
            first.add(frame)
            progress.advance(len(frame))
    first_of_train = _TextCounts(first.words).all_of(texts)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    drawn = take(samples, random.permutation(made.texts)[:SCORED], made.texts)
    scored = drawn.select(pl.concat_str(pl.all(), separator="\t")).to_series().to_list() if bits else []
    characters = sum(map(len, scored))
    return Novelty(
        samples=made.texts,
        words=made.words,
        **made.shares("distinct"),
        **training.shares("train_distinct"),
        equal_words=first.words,
        **first.shares("equal_distinct"),
        **first_of_train.shares("equal_train_distinct"),
        in_train=_ratio(raw_in_train, raw),
        mean_length=_ratio(made.words, made.texts),
        train_mean_length=_ratio(training.words, training.texts),
        lengths=made.lengths(),
        train_lengths=training.lengths(),
        bits_per_character=float(np.sum(bits(scored))) / characters if bits and characters else None,
        scored=len(scored),
        examples=excerpts(drawn.head(EXAMPLES)),
    )


class _TextCounts:
    """Counts the lengths of texts, and the distinct n-grams (n = 1, 2, 3) among the first ``limit`` words."""

    def __init__(self, limit: int | None = None) -> None:
        self.texts = self.words = 0
        self._limit = limit
        self._bins = np.zeros(len(BINS), np.int64)
        self._all = [0, 0, 0]  # n-grams, n = 1, 2, 3
        self._different: list[list[pl.Series]] = [[], [], []]  # the hashes of each frame's

    def add(self, frame: pl.DataFrame) -> None:
        """Count some rows; the two texts of a pair follow each other, so that the first words are of the first rows."""
        left = None if self._limit is None else self._limit - self.words
        if left == 0:
            return
        texts = frame.select(pl.concat_list(pl.all())).to_series().explode(empty_as_null=False)
        words = texts.str.extract_all(WORD)
        counts = words.list.len().to_numpy().astype(np.int64)
        lengths = counts.reshape(len(frame), frame.width).sum(axis=1)
        self.texts += len(frame)
        self._bins += np.bincount(np.searchsorted(_FEWEST, lengths, side="right") - 1, minlength=len(BINS))
        hashes = words.explode(empty_as_null=False).hash().to_numpy()[:left]  # compared in this process alone
        owners = np.repeat(np.arange(len(counts)), counts)[:left]
        self.words += len(hashes)
        grams = hashes
        for n, different in enumerate(self._different):
            if n:
                grams = grams[:-1] * _STEP + hashes[n:]
            inside = grams[owners[: len(grams)] == owners[n:]]
            self._all[n] += len(inside)
            different.append(pl.Series(inside).unique())
            if sum(map(len, different[1:])) > max(_HELD, len(different[0])):  # as many again as are held
                different[:] = [pl.concat(different).unique()]

    def all_of(self, texts: pl.DataFrame) -> _TextCounts:
        for frame in texts.iter_slices(_ROWS):
            self.add(frame)
        return self

    def shares(self, name: str) -> dict[str, float]:
        counts = [pl.concat(different).n_unique() if different else 0 for different in self._different]
        return {f"{name}_{n}": _ratio(*of_n) for n, of_n in enumerate(zip(counts, self._all, strict=True), 1)}

    def lengths(self) -> dict[str, float]:
        return {words: _ratio(int(count), self.texts) for words, count in zip(BINS, self._bins, strict=True)}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
