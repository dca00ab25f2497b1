"""How varied and how new made texts are: the report at the end of ``kd transfer heavy``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.transfer.keys import Keys, keys, normal_keys

EXAMPLES = 20
SCORED = 2000
"""Samples whose bits are taken, at most."""

_ROWS = 65_536
_HELD = 1_000_000
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FEWEST = (0, 3, 5, 9, 13, 17, 25, 33, 49, 65)
BINS = (*(f"{low}-{following - 1}" for low, following in pairwise(_FEWEST)), f"{_FEWEST[-1]}+")
"""The words of a text, in the bins of the histograms."""


@dataclass(frozen=True)
class Novelty:
    """What the samples are like, beside the training texts.

    Words are what white space separates; the length of a pair is that of both its texts. ``distinct_n`` is the number
    of different n-grams over the number of all (Li et al. 2016, section 5, divide by that of the words), 0 where there
    are none; an n-gram does not go beyond its text. The more text, the lower it is: sets of different size compare
    only by the ``equal_`` ones, which are of the first ``equal_words`` words of each.

    Attributes:
        samples: Their number.
        words: Words in all samples.
        distinct_1, distinct_2, distinct_3: Of all samples.
        train_distinct_1, train_distinct_2, train_distinct_3: Of all training texts.
        equal_words: Words in the samples or in the training texts, whichever have fewer.
        equal_distinct_1, equal_distinct_2, equal_distinct_3: Of as many words of the samples.
        equal_train_distinct_1, equal_train_distinct_2, equal_train_distinct_3: Of as many words of the training texts.
        in_train: Share of the samples that are training texts but for white space, before any were dropped.
        mean_length, train_mean_length: Words of a sample, and of a training text.
        lengths, train_lengths: Share of the samples, and of the training texts, in each of ``BINS``.
        bits_per_character: Of ``scored`` samples drawn at random, under the generator, or None if it was not asked.
            The bits are those of the ends too, the characters are not.
        scored: See ``bits_per_character``.
        examples: Samples drawn at random; the texts of a pair stand around a ``|``.
    """

    samples: int
    words: int
    distinct_1: float
    distinct_2: float
    distinct_3: float
    train_distinct_1: float
    train_distinct_2: float
    train_distinct_3: float
    equal_words: int
    equal_distinct_1: float
    equal_distinct_2: float
    equal_distinct_3: float
    equal_train_distinct_1: float
    equal_train_distinct_2: float
    equal_train_distinct_3: float
    in_train: float
    mean_length: float
    train_mean_length: float
    lengths: dict[str, float]
    train_lengths: dict[str, float]
    bits_per_character: float | None
    scored: int
    examples: list[str]


def novelty(
    *,
    samples: Iterable[pa.RecordBatch],
    train: pa.Table,
    task: Task,
    seed: int,
    raw: int | None = None,
    raw_in_train: int | None = None,
    bits: Callable[[Sequence[str]], NDArray[np.float64]] | None = None,
    reporter: Reporter | None = None,
) -> Novelty:
    """Compare samples with the training texts.

    The samples are read once. In memory stay the hashes of all different n-grams and the samples drawn.

    Args:
        samples: Batches that hold the task's text columns; how they are cut makes no difference.
        train: The training set, with the same columns.
        task: The task.
        seed: Of the samples drawn.
        raw: With ``raw_in_train``, of how many; by default of the samples given and those.
        raw_in_train: How many of the samples were training texts before any were dropped. If None, none were dropped,
            and those given are looked up.
        bits: Gives the bits of each text, its end included: ``[texts]``. A pair is one text with a tab.
        reporter: Told of the progress.
    """
    reporter = reporter or QuietReporter()
    train_texts = list(_texts(train.to_batches(_ROWS), task))
    train_keys = np.concatenate([np.zeros(0, np.uint64), *(normal_keys(texts.columns) for texts in train_texts)])
    training = _Survey()
    for texts in train_texts:
        training.add(_cut(texts))
    made, first, drawn = _Survey(), _Diversity(limit=training.diversity.words), _Drawn(seed)
    copies = 0
    with reporter.progress("novelty report", unit="texts") as progress:
        for texts in _texts(samples, task):
            words = _cut(texts)
            made.add(words)
            first.add(words)
            drawn.add(texts)
            if raw_in_train is None:
                copies += int(np.isin(normal_keys(texts.columns), train_keys).sum())
            progress.advance(texts.num_rows)
    first_of_train = _Diversity(limit=first.words)
    for texts in train_texts:
        first_of_train.add(_cut(texts))
    if raw_in_train is None:
        raw = made.texts
    else:
        copies = raw_in_train
        raw = made.texts + copies if raw is None else raw
    scored = ["\t".join(row) for row in drawn.rows] if bits else []
    return Novelty(
        samples=made.texts,
        words=made.diversity.words,
        **made.diversity.shares("distinct"),
        **training.diversity.shares("train_distinct"),
        equal_words=first.words,
        **first.shares("equal_distinct"),
        **first_of_train.shares("equal_train_distinct"),
        in_train=_ratio(copies, raw),
        mean_length=_ratio(made.diversity.words, made.texts),
        train_mean_length=_ratio(training.diversity.words, training.texts),
        lengths=made.lengths(),
        train_lengths=training.lengths(),
        bits_per_character=float(np.sum(bits(scored))) / sum(map(len, scored)) if bits and any(scored) else None,
        scored=len(scored),
        examples=[" | ".join(row) for row in drawn.rows[:EXAMPLES]],
    )


@dataclass(frozen=True)
class _Words:
    """The words of some texts, as hashes.

    Attributes:
        hashes: ``uint64 [words]``.
        owners: ``int64 [words]`` which text each is of, ascending; the two of a pair count as two.
        lengths: ``int64 [rows]`` the number of words.
    """

    hashes: Keys
    owners: NDArray[np.int64]
    lengths: NDArray[np.int64]


def _texts(batches: Iterable[pa.RecordBatch], task: Task) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        columns = [pc.fill_null(batch[name].cast(pa.string()), "") for name in task.columns]
        yield pa.record_batch(columns, list(task.columns))


def _cut(texts: pa.RecordBatch) -> _Words:
    columns = (column.to_pylist() for column in texts.columns)
    # The two texts of a pair one after the other, so that the first words are those of the first rows.
    # Not by Arrow's kernel, which reads beyond the buffer and so leaves white space at its end (apache/arrow#37757).
    cut = [text.split() for row in zip(*columns, strict=True) for text in row]
    counts = np.fromiter(map(len, cut), np.int64, len(cut))
    words = pa.array(chain.from_iterable(cut), pa.large_string()).dictionary_encode()
    hashes = keys([words.dictionary])[words.indices.to_numpy()]
    return _Words(hashes, np.repeat(np.arange(len(cut)), counts), counts.reshape(texts.num_rows, -1).sum(axis=1))


class _Survey:
    """What is counted of all texts of a set."""

    def __init__(self) -> None:
        self.diversity = _Diversity()
        self.texts = 0
        self._counts = np.zeros(len(BINS), np.int64)

    def add(self, words: _Words) -> None:
        self.diversity.add(words)
        self.texts += len(words.lengths)
        bins = np.searchsorted(_FEWEST, words.lengths, side="right") - 1
        self._counts += np.bincount(bins, minlength=len(BINS))

    def lengths(self) -> dict[str, float]:
        return {words: _ratio(int(count), self.texts) for words, count in zip(BINS, self._counts, strict=True)}


class _Diversity:
    """The distinct n-grams of one, two and three words among the first ``limit`` words that are added."""

    def __init__(self, limit: int | None = None) -> None:
        self.words = 0
        self._limit = limit
        self._kinds = (_Distinct(), _Distinct(), _Distinct())

    def add(self, words: _Words) -> None:
        left = None if self._limit is None else self._limit - self.words
        hashes, owners = words.hashes[:left], words.owners[:left]
        self.words += len(hashes)
        grams = hashes
        for n, distinct in enumerate(self._kinds, 1):
            if n > 1:
                grams = grams[:-1] * _STEP + hashes[n - 1 :]
            distinct.add(grams[owners[: len(grams)] == owners[n - 1 :]])

    def shares(self, name: str) -> dict[str, float]:
        return {f"{name}_{n}": _ratio(distinct.count(), distinct.all) for n, distinct in enumerate(self._kinds, 1)}


class _Distinct:
    """Counts different hashes. They are held sorted, and new ones merged in when they are as many again."""

    def __init__(self) -> None:
        self.all = 0
        self._held = np.zeros(0, np.uint64)
        self._new: list[Keys] = []

    def add(self, hashes: Keys) -> None:
        self.all += len(hashes)
        self._new.append(_distinct(hashes))
        if sum(map(len, self._new)) > max(_HELD, len(self._held)):
            self._merge()

    def count(self) -> int:
        self._merge()
        return len(self._held)

    def _merge(self) -> None:
        self._held = _distinct(np.concatenate([self._held, *self._new]))
        self._new = []


def _distinct(hashes: Keys) -> Keys:
    ranked = np.sort(hashes)  # np.unique hashes them first, which takes longer
    return ranked[:1] if len(ranked) < 2 else ranked[np.append(True, ranked[1:] != ranked[:-1])]


class _Drawn:
    """Draws up to ``SCORED`` of the rows added, in random order: those with the lowest random numbers."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
        self._numbers = np.zeros(0)
        self.rows: list[tuple[str, ...]] = []

    def add(self, texts: pa.RecordBatch) -> None:
        numbers = np.append(self._numbers, self._random.random(texts.num_rows))
        lowest = np.argsort(numbers)[:SCORED]
        held = len(self.rows)
        new = lowest[lowest >= held]
        columns = (column.to_pylist() for column in texts.take(pa.array(new - held)).columns)
        rows = dict(enumerate(self.rows)) | dict(zip(new.tolist(), zip(*columns, strict=True), strict=True))
        self._numbers, self.rows = numbers[lowest], [rows[place] for place in lowest.tolist()]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
