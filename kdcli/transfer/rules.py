"""Texts cut into tagged words, and the three rules of ``transfer lite`` (Tang et al. 2019, section "Method").

The tagged words are one table with a row for each word: ``column`` and ``row`` say of which text it is, ``word``,
``gap`` (the white space that follows it, so that a text can be put together again as it was) and ``tag`` what it is.
The rules work on them as flat arrays.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli import registry
from kdcli.api import MASK

ROWS = 4096  # rows of a part
Indexes = NDArray[np.int64]

# Words that the Penn Treebank rules leave alone when white space stands on both sides, as in SST-2; NLTK's
# tokenizer, some hundred times slower than this expression, gets the texts that hold anything else.
_LETTERS = r"(?![cglwCGLW](?i:annot|imme|onna|otta|emme|anna)\b)\w++"  # the rules cut "can" off "not"
_ALONE = "|".join(
    [
        rf"-?{_LETTERS}(?:(?:-|\\?/){_LETTERS})*+-?",
        rf"(?:{_LETTERS}\.)++(?=\s++\w)",  # "mr.", but not at the end of the text
        r"\d++(?:[.,]\d++)++",
        r"'(?:s|m|d|ll|re|ve)|n't",
        r"\.++|--?|``?|''?|[][(){}<>,:;?!$%#&@*/+=]",
    ]
)
_PLAIN = re.compile(rf"\s*+(?:(?:{_ALONE})(?:\s++|$))*+")
_WORD = re.compile(r"(\S+)(\s*)")
_NO_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED = re.compile(f"[{_NO_SPACES}]")
_UNSPACED_WORDS = re.compile(f"[{_NO_SPACES}]|[^{_NO_SPACES}]+")


@dataclass(frozen=True)
class TaggedWords:
    """The words of one text column, as ids."""

    offsets: NDArray[np.int64]  # [texts + 1], where the words of each text begin
    words: NDArray[np.int32]  # [words], ids in ``vocabulary``
    gaps: NDArray[np.int32]  # [words], ids in ``spaces``: what stands between a word and the next
    tags: NDArray[np.int32]  # [words], ids in ``tag_names``
    vocabulary: pl.Series
    spaces: list[str]
    tag_names: list[str]

    @classmethod
    def of(cls, tagged: pl.DataFrame, first: int, texts: int) -> Self:
        """Take the tagged words of the ``texts`` rows from ``first`` on, all of one column."""
        counts = np.bincount(tagged["row"].to_numpy() - first, minlength=texts)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        (words, vocabulary), (gaps, spaces), (tags, names) = (_ids(tagged[name]) for name in ("word", "gap", "tag"))
        return cls(offsets, words, gaps, tags, vocabulary, spaces.to_list(), names.to_list())


def _ids(values: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    different = values.unique(maintain_order=True)
    return values.cast(pl.Enum(different)).to_physical().to_numpy().astype(np.int32), different


@dataclass(frozen=True)
class TagPart:
    """Makes a part: the tagged words of ``ROWS`` texts."""

    tagger: str
    words: Literal["treebank", "whitespace"]
    max_words: int  # of a text; 0 = no limit
    rows: int  # of a part

    def __call__(self, part: int, path: Path, frame: pl.DataFrame) -> None:
        """Write part ``part``, of its texts, to ``path``."""
        tagger = registry.load("taggers", self.tagger)
        tagged, cut = [], 0
        for number, column in enumerate(frame.iter_columns()):
            words, gaps = zip(*(split(text, self.words) for text in column), strict=True)
            if self.max_words:
                cut += sum(len(of_text) > self.max_words for of_text in words)
                words, gaps = (tuple(of_text[: self.max_words] for of_text in each) for each in (words, gaps))
            with registry.blaming("taggers", self.tagger, "tag"):
                tags = tagger.tag(list(words))
            if not _are_tags(tags, words):
                raise registry.breach("taggers", self.tagger, "does not give one tag a word, each a string")
            rows = np.arange(len(column), dtype=np.uint32) + np.uint32(part * self.rows)
            flat = {
                name: pl.Series(list(chain.from_iterable(values)), dtype=pl.String)
                for name, values in (("word", words), ("gap", gaps), ("tag", tags))
            }
            of_column = pl.DataFrame({"row": rows.repeat([len(of_text) for of_text in words]), **flat})
            tagged.append(of_column.select(pl.lit(number, pl.UInt8).alias("column"), pl.all()))
        pl.concat(tagged).write_parquet(path, compression="lz4", metadata={"cut": str(cut)})


def split(text: str, words: Literal["treebank", "whitespace"]) -> tuple[Sequence[str], Sequence[str]]:
    """Cut a text into its words and the white space after each.

    ``treebank`` cuts as NLTK's ``NLTKWordTokenizer`` does, but without changing a character. Chinese and Japanese
    characters are words of their own either way.
    """
    found, gaps = _split(text, words)
    if not _UNSPACED.search(text):
        return found, gaps
    pieces = [_UNSPACED_WORDS.findall(word) for word in found]
    between = [[""] * (len(own) - 1) + [gap] for own, gap in zip(pieces, gaps, strict=True)]
    return list(chain.from_iterable(pieces)), list(chain.from_iterable(between))


def _split(text: str, words: Literal["treebank", "whitespace"]) -> tuple[Sequence[str], Sequence[str]]:
    if words == "treebank" and not _PLAIN.fullmatch(text):
        spans: list[tuple[int, int]] = []
        with suppress(ValueError):  # NLTK does not recognise its own words in some texts
            spans = list(_tokenizer().span_tokenize(text))
        if spans:
            starts_of_next = [*(start for start, _ in spans[1:]), spans[-1][1]]
            gaps = [text[end:start] for (_, end), start in zip(spans, starts_of_next, strict=True)]
            return [text[start:end] for start, end in spans], gaps
    simple = text.split()
    if " ".join(simple) == text.rstrip():
        return simple, [" "] * len(simple)
    found = _WORD.findall(text)
    return [word for word, _ in found], [gap for _, gap in found]


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer  # importing nltk takes a second

    return NLTKWordTokenizer()


def _are_tags(tags: Any, texts: Sequence[Sequence[str]]) -> bool:
    """Return whether a tagger, which may be anybody's, gives one string for each word."""
    return (
        isinstance(tags, list | tuple)
        and all(isinstance(of_text, list | tuple) for of_text in tags)
        and [len(of_text) for of_text in tags] == [len(words) for words in texts]
        and all(issubclass(kind, str) for kind in set(map(type, chain.from_iterable(tags))))
    )


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
        return np.asarray(np.searchsorted(self._upto, occurrence, side="right"), np.int64)


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
