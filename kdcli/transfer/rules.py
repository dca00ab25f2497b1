"""The three rules of ``transfer lite`` on flat arrays of words (Tang et al. 2019, section "Method")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdcli.api import MASK
from kdcli.transfer.tagging import Words
from kdcli.transfer.unigrams import Unigrams

RULES = {"masked": "words_masked", "replaced": "words_replaced", "cut": "texts_cut"}
"""What the rules do to a text, and what is counted of it."""

Indexes = NDArray[np.int64]


@dataclass(frozen=True)
class Rules:
    """How often each rule applies.

    Attributes:
        p_mask: Probability that a word becomes ``[MASK]``.
        p_pos: Probability that a word becomes one of the same part of speech.
        p_ngram: Probability that only a random n-gram of the text is kept.
        shortest: Smallest n of that n-gram.
        longest: Largest n.
    """

    p_mask: float
    p_pos: float
    p_ngram: float
    shortest: int
    longest: int


@dataclass(frozen=True)
class Rewritten:
    """Texts after the rules.

    Attributes:
        texts: ``[N]`` the texts.
        words: The number of words they have.
        touched: For each of ``RULES``, the indexes of the texts it changed, ascending: once for each word masked or
            replaced (perhaps by itself), once for each text of which an n-gram is left.
    """

    texts: pa.StringArray
    words: int
    touched: dict[str, Indexes]


class Rewriter:
    """Applies the rules to the texts of one column of a part.

    Args:
        words: The column's words.
        unigrams: The words of each part of speech.
        rules: How often each rule applies.
    """

    def __init__(self, words: Words, unigrams: Unigrams, rules: Rules) -> None:
        self.words = words
        self.unigrams = unigrams
        self.rules = rules
        self.lengths = np.diff(words.offsets)
        pieces = [words.vocabulary, pa.array([MASK, ""]), words.spaces, unigrams.words]
        self._pieces = pa.concat_arrays([piece.cast(pa.large_string()) for piece in pieces])
        self._mask = len(words.vocabulary)
        self._nothing = self._mask + 1
        self._spaces = self._mask + 2
        self._drawn = self._spaces + len(words.spaces)

    def rewrite(self, rows: Indexes, edited: NDArray[np.bool_], random: np.random.Generator) -> Rewritten:
        """Make a new text from each row; the n-gram is chosen first, so that nothing is drawn for words it drops.

        Args:
            rows: ``[N]`` indexes of texts.
            edited: ``[N]`` whether the rules apply; the other texts stay as they are.
            random: Where the random numbers come from.
        """
        rules, words = self.rules, self.words
        starts, sizes = windows(self.lengths[rows], edited, rules, random)
        ends = np.cumsum(sizes)
        text = np.repeat(np.arange(len(rows)), sizes)
        token = np.arange(len(text)) + (words.offsets[rows] + starts - ends + sizes)[text]
        uniform = random.random(len(token))
        uniform[~edited[text]] = 1
        masked = uniform < rules.p_mask
        drawn = np.flatnonzero(~masked & (uniform < rules.p_mask + rules.p_pos))
        pieces = np.empty((len(token), 2), dtype=np.int32)
        pieces[:, 0] = words.words[token]
        pieces[masked, 0] = self._mask
        if len(drawn):
            # Given that it fell between p_mask and p_mask + p_pos, the number is uniform there: it draws the word too.
            again = (uniform[drawn] - rules.p_mask) / rules.p_pos
            pieces[drawn, 0] = self._drawn + self.unigrams.draw(words.tags[token[drawn]], words.tag_names, again)
        pieces[:, 1] = words.gaps[token] + self._spaces
        pieces[ends[sizes > 0] - 1, 1] = self._nothing
        return Rewritten(
            texts=_join(self._pieces.take(pa.array(pieces.ravel())), np.concatenate([[0], 2 * ends])),
            words=len(token),
            touched={
                "masked": text[masked],
                "replaced": text[drawn],
                "cut": np.flatnonzero(sizes < self.lengths[rows]),
            },
        )


def windows(
    lengths: Indexes, edited: NDArray[np.bool_], rules: Rules, random: np.random.Generator
) -> tuple[Indexes, Indexes]:
    """Choose the words of each text that are kept: all of them, or an n-gram with any of its possible starts.

    Returns:
        ``[N]`` first words and ``[N]`` numbers of words.
    """
    chance, size, place = random.random((3, len(lengths)))
    n = rules.shortest + (size * (rules.longest - rules.shortest + 1)).astype(np.int64)
    sizes = np.where(edited & (chance < rules.p_ngram), np.minimum(n, lengths), lengths)
    return (place * (lengths - sizes + 1)).astype(np.int64), sizes


def _join(pieces: pa.LargeStringArray, offsets: Indexes) -> pa.StringArray:
    """Join runs of strings without a copy: their bytes lie one after the other already."""
    _, places, data = pieces.buffers()
    ends = np.frombuffer(places, dtype=np.int64)[offsets]
    texts = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(ends), data)
    return texts.cast(pa.string())
