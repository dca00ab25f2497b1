"""How varied and how new made texts are: the report at the end of ``kd transfer heavy``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Progress, QuietReporter, Reporter, Task
from kdcli.tables.parquet import slices
from kdcli.transfer.cleaning import WORD, excerpts, take

EXAMPLES = 20
SCORED = 2000  # samples whose bits are taken, at most

_ROWS = 65_536
_HELD = 1_000_000
_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Novelty:
    """What the samples are like, beside the training texts.

    Words are separated by white space; the length of a pair is that of both its texts. ``distinct_n`` is the number of
    different n-grams over the number of all (Li et al. 2016, section 5, divide by that of the words), 0 where there are
    none; an n-gram does not go beyond its text. The more text, the lower it is, so it is that of the first
    ``equal_words`` words of samples and training texts.
    """

    samples: int
    words: int  # in all samples
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
    reporter: Reporter = QuietReporter(),
) -> Novelty:
    """Compare samples with the training texts.

    In memory stay the hashes of all different n-grams and the samples drawn. Before any were dropped there were ``raw``
    samples, of which ``raw_in_train`` were training texts. ``bits`` gives the bits of each text, its end included; a
    pair is one text with a tab.
    """
    texts, samples = train.select(task.columns), samples.select(task.columns)
    (count, words), (train_count, train_words) = map(_sizes, (samples, texts.lazy()))
    equal = min(words, train_words)
    with reporter.progress("novelty report", 2 * equal, "words") as progress:
        found, of_train = (_distinct(each, equal, progress) for each in (samples, texts.lazy()))
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    drawn = take(samples, random.permutation(count)[:SCORED], count)
    scored = drawn.select(pl.concat_str(pl.all(), separator="\t")).to_series().to_list() if bits else []
    characters = sum(map(len, scored))
    return Novelty(
        samples=count,
        words=words,
        equal_words=equal,
        **{f"equal_distinct_{n}": share for n, share in enumerate(found, 1)},
        **{f"equal_train_distinct_{n}": share for n, share in enumerate(of_train, 1)},
        in_train=_ratio(raw_in_train, raw),
        mean_length=_ratio(words, count),
        train_mean_length=_ratio(train_words, train_count),
        bits_per_character=float(np.sum(bits(scored))) / characters if bits and characters else None,
        scored=len(scored),
        examples=excerpts(drawn.head(EXAMPLES)),
    )


def _sizes(texts: pl.LazyFrame) -> tuple[int, int]:
    """Return the number of rows, and of their words."""
    words = pl.sum_horizontal(pl.all().str.count_matches(WORD).cast(pl.Int64)).sum()
    rows, total = texts.select(pl.len(), words.alias("words")).collect().row(0)
    return rows, total


def _distinct(texts: pl.LazyFrame, most: int, progress: Progress) -> list[float]:
    """Return the share of different n-grams, n = 1, 2, 3, among all of the first ``most`` words.

    The two texts of a pair follow each other, so that the first words are of the first rows.
    """
    left, total = most, [0, 0, 0]
    different: list[list[pl.Series]] = [[], [], []]  # the hashes of each frame's
    for frame in slices(texts, _ROWS):
        words = frame.select(pl.concat_list(pl.all())).to_series().explode(empty_as_null=False).str.extract_all(WORD)
        counts = words.list.len().to_numpy().astype(np.int64)
        hashes = words.explode(empty_as_null=False).hash().to_numpy()[:left]  # compared in this process alone
        owners = np.repeat(np.arange(len(counts)), counts)[:left]
        left -= len(hashes)
        grams = hashes
        for n, found in enumerate(different):
            if n:
                grams = grams[:-1] * _STEP + hashes[n:]
            inside = grams[owners[: len(grams)] == owners[n:]]
            total[n] += len(inside)
            found.append(pl.Series(inside).unique())
            if sum(map(len, found[1:])) > max(_HELD, len(found[0])):  # as many again as are held
                found[:] = [pl.concat(found).unique()]
        progress.advance(len(hashes))
        if not left:
            break
    return [_ratio(pl.concat(found).n_unique() if found else 0, of) for found, of in zip(different, total, strict=True)]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
