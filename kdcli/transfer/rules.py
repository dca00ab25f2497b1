"""The three rules of ``transfer lite`` on flat arrays of words (Tang et al. 2019, section "Method")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
        choice = pa.concat_arrays([words.vocabulary, pa.array([MASK]), unigrams.words])
        self._mask = len(words.vocabulary)
        self._drawn = self._mask + 1
        self._choice = len(choice)
        self.usual = {"", " "}.issuperset(words.spaces.to_pylist())
        """Whether the words stand with one space between them, or none."""
        behind = ["", *words.spaces.to_pylist()]
        more = pc.binary_join_element_wise(choice, " ", "") if self.usual else pa.array(behind, pa.string())
        self._pieces = pa.concat_arrays([choice, more]).cast(pa.large_string())
        self._spaced = np.array([len(choice) if space == " " else 0 for space in behind], dtype=np.int32)

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
        if not edited.all():
            uniform[~edited[text]] = 1
        masked = uniform < rules.p_mask
        drawn = np.flatnonzero(~masked & (uniform < rules.p_mask + rules.p_pos))
        ids = words.words[token]
        ids[masked] = self._mask
        if len(drawn):
            # Given that it fell between p_mask and p_mask + p_pos, the number is uniform there: it draws the word too.
            again = (uniform[drawn] - rules.p_mask) / rules.p_pos
            ids[drawn] = self._drawn + self.unigrams.draw(words.tags[token[drawn]], words.tag_names, again)
        behind = words.gaps[token] + 1
        behind[ends[sizes > 0] - 1] = 0
        return Rewritten(
            texts=self._join(ids, behind, ends),
            words=len(token),
            touched={
                "masked": text[masked],
                "replaced": text[drawn],
                "cut": np.flatnonzero(sizes < self.lengths[rows]),
            },
        )

    def _join(self, ids: NDArray[np.int32], behind: NDArray[np.int32], ends: Indexes) -> pa.StringArray:
        """Join the words of each text and what stands behind them.

        Args:
            ids: ``[words]`` of all texts, ids among the pieces.
            behind: ``[words]`` 0 for nothing, else one more than an id in ``spaces``.
            ends: ``[texts]`` where the words of each text end.
        """
        if self.usual:  # half the work: a word with a space behind is one piece
            pieces, pieces_a_word = ids + self._spaced[behind], 1
        else:
            pieces, pieces_a_word = np.stack([ids, self._choice + behind], axis=1).ravel(), 2
        # What is taken lies one behind the other already: the texts need other ends, not another copy.
        _, places, data = self._pieces.take(pa.array(pieces)).buffers()
        bounds = np.frombuffer(places, dtype=np.int64)[np.concatenate([[0], ends * pieces_a_word])]
        texts = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(bounds), data)
        return texts.cast(pa.string())


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
