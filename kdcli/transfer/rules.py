"""The three rules of ``transfer lite`` on flat arrays of words (Tang et al. 2019, section "Method")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import MASK
from kdcli.transfer.tagging import TaggedWords

Indexes = NDArray[np.int64]


@dataclass(frozen=True)
class Rules:
    """How often each rule applies."""

    p_mask: float  # probability that a word becomes ``[MASK]``
    p_pos: float  # probability that a word becomes one of the same part of speech
    p_ngram: float  # probability that only a random n-gram of the text is kept
    shortest: int  # smallest n of that n-gram
    longest: int  # largest n


class Unigrams:
    """For each tag, its words and how often; ``counts`` has columns tag, word, count, the rows of a tag together."""

    def __init__(self, counts: pl.DataFrame) -> None:
        self.words = counts["word"]
        self._upto = np.cumsum(counts["count"].to_numpy().astype(np.int64))
        of_tags = counts.group_by("tag", maintain_order=True).agg(pl.col("count").sum())
        bounds = [0, *of_tags["count"].cum_sum()]
        self._bounds = dict(zip(of_tags["tag"], pairwise(bounds), strict=True))

    def draw(self, tags: NDArray[np.integer[Any]], tag_names: Sequence[str], uniform: NDArray[np.float64]) -> Indexes:
        """Draw a word of each tag by its unigram distribution, from numbers in [0, 1): ``[N]`` ids in ``words``."""
        low, high = np.array([self._bounds[name] for name in tag_names], dtype=np.int64).reshape(-1, 2).T
        # The minimum: a product of a number below 1 can still round up to the count.
        occurrence = np.minimum(low[tags] + (uniform * (high - low)[tags]).astype(np.int64), high[tags] - 1)
        found: Indexes = np.searchsorted(self._upto, occurrence, side="right")
        return found


@dataclass(frozen=True)
class Rewritten:
    """Texts after the rules."""

    texts: pl.Series  # [N]
    words: Indexes  # [N] words of each text
    masked: Indexes  # [N] masked words
    replaced: Indexes  # [N] words that were replaced, perhaps by themselves
    cut: NDArray[np.bool_]  # [N] whether only an n-gram of the text is left


class Rewriter:
    """Applies the rules to the texts of one column."""

    def __init__(self, words: TaggedWords, unigrams: Unigrams, rules: Rules) -> None:
        self.words = words
        self.unigrams = unigrams
        self.rules = rules
        self.lengths = np.diff(words.offsets)
        self.usual = {"", " "}.issuperset(words.spaces)
        """Whether the words stand with one space between them, or none."""
        choice = pl.concat([words.vocabulary, pl.Series([MASK]), unigrams.words])
        self._mask, self._choice = len(words.vocabulary), len(choice)
        # Of the usual texts, a word with the space behind it is one piece: half the work.
        pieces = pl.concat([choice, choice + " " if self.usual else pl.Series(["", *words.spaces])])
        used = set(pieces.str.join("").item())
        self._separator = next(character for character in map(chr, range(1, 0xD800)) if character not in used)
        pieces = pl.concat([pieces, pl.Series([self._separator])])
        self._sizes = pieces.str.len_bytes().to_numpy().astype(np.int32)
        self._starts = np.cumsum(self._sizes, dtype=np.int64) - self._sizes
        self._bytes = np.frombuffer(pieces.str.join("").item().encode(), np.uint8)
        spaced = [len(choice) * (space == " ") for space in words.spaces]
        self._behind = np.array(spaced if self.usual else range(1, len(words.spaces) + 1), np.int32)[words.gaps]

    def rewrite(self, rows: Indexes, edited: NDArray[np.bool_], random: np.random.Generator) -> Rewritten:
        """Make a new text from each of ``rows [N]``; the rules apply where ``edited [N]``, the other texts stay.

        The n-gram is chosen first, so that nothing is drawn for words it drops.
        """
        rules, words, count = self.rules, self.words, len(rows)
        starts, sizes = windows(self.lengths[rows], edited, rules, random)
        ends = np.cumsum(sizes)
        text = np.repeat(np.arange(count, dtype=np.int32), sizes)  # [words] the text that each word is of
        # The place of each word in ``words``.
        token = np.repeat((words.offsets[rows] + starts - ends + sizes).astype(np.int32), sizes)
        token += np.arange(len(token), dtype=np.int32)
        uniform = random.random(len(token))
        if not edited.all():
            uniform[~edited[text]] = 1
        masked = uniform < rules.p_mask
        drawn = np.flatnonzero(~masked & (uniform < rules.p_mask + rules.p_pos))
        ids = words.words[token]
        ids[masked] = self._mask
        if len(drawn):
            # Given that it fell between p_mask and p_mask + p_pos, the number is uniform there: it draws the word too.
            again = (uniform[drawn] - rules.p_mask) / rules.p_pos
            ids[drawn] = self._mask + 1 + self.unigrams.draw(words.tags[token[drawn]], words.tag_names, again)
        behind = self._behind[token]
        behind[ends[sizes > 0] - 1] = 0
        return Rewritten(
            texts=self._join(ids, behind, ends),
            words=sizes,
            masked=np.bincount(text[masked], minlength=count),
            replaced=np.bincount(text[drawn], minlength=count),
            cut=sizes < self.lengths[rows],
        )

    def _join(self, ids: NDArray[np.int32], behind: NDArray[np.int32], ends: Indexes) -> pl.Series:
        """Join the words of each text and what stands behind them.

        The bytes of all texts are gathered at once, a separator after each text, and Polars splits them there: a third
        of the time that it takes to join the words text by text. ``ids [words]`` are pieces; ``behind [words]`` is
        added to the id in usual texts, and else the id of the gap; the words of each text end at ``ends [texts]``.
        """
        if self.usual:
            pieces = ids + behind
        else:
            pieces, ends = np.stack([ids, self._choice + behind], axis=1).ravel(), 2 * ends
        pieces = np.insert(pieces, ends, len(self._sizes) - 1)
        sizes = self._sizes[pieces]
        upto = np.cumsum(sizes, dtype=np.int64)
        width = np.int32 if len(pieces) and upto[-1] + len(self._bytes) < 2**31 else np.int64
        places = np.repeat((self._starts[pieces] - upto + sizes).astype(width), sizes)
        places += np.arange(len(places), dtype=width)
        joined = self._bytes[places].tobytes().decode()
        return pl.Series([joined], dtype=pl.String).str.split(self._separator).explode().head(len(ends))


def windows(
    lengths: Indexes, edited: NDArray[np.bool_], rules: Rules, random: np.random.Generator
) -> tuple[Indexes, Indexes]:
    """Choose the words to keep of each text, as first words ``[N]`` and numbers of words ``[N]``.

    They are all, or an n-gram with any of its possible starts.
    """
    chance, size, place = random.random((3, len(lengths)))
    n = rules.shortest + (size * (rules.longest - rules.shortest + 1)).astype(np.int64)
    sizes = np.where(edited & (chance < rules.p_ngram), np.minimum(n, lengths), lengths)
    return (place * (lengths - sizes + 1)).astype(np.int64), sizes
