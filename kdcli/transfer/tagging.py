"""Texts cut into words, each with its part of speech: the first pass of ``transfer lite``.

The tagged words are one table with a row for each word: ``column`` and ``row`` say of which text it is, ``word``,
``gap`` (the white space that follows it, so that a text can be put together again as it was) and ``tag`` what it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli import registry

ROWS = 4096
"""Rows of a part."""

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
    def of(cls, tagged: pl.DataFrame, first: int, texts: int) -> TaggedWords:
        """Take the tagged words of the ``texts`` rows from ``first`` on, all of one column."""
        counts = np.bincount(tagged["row"].to_numpy() - first, minlength=texts)
        (words, vocabulary), (gaps, spaces), (tags, names) = (_ids(tagged[name]) for name in ("word", "gap", "tag"))
        return cls(
            np.concatenate([[0], np.cumsum(counts)]), words, gaps, tags, vocabulary, spaces.to_list(), names.to_list()
        )


def _ids(values: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    different = values.unique(maintain_order=True)
    return values.cast(pl.Enum(different)).to_physical().to_numpy().astype(np.int32), different


@dataclass(frozen=True)
class TagPart:
    """Makes a part: the tagged words of ``ROWS`` texts."""

    texts: Path
    tagger: str
    words: Literal["treebank", "whitespace"]
    max_words: int  # of a text; 0 = no limit
    rows: int  # of a part

    def __call__(self, part: int, path: Path) -> None:
        """Write part ``part`` to ``path``."""
        tagger = registry.load("taggers", self.tagger)
        frame = pl.scan_parquet(self.texts).slice(part * self.rows, self.rows).collect()
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

    ``whitespace`` cuts at white space alone, ``treebank`` by the Penn Treebank rules too, as NLTK's
    ``NLTKWordTokenizer`` does, but without changing a character. Chinese and Japanese characters are words of their
    own either way: nothing stands between the words there.
    """
    found, gaps = _split(text, words)
    if not _UNSPACED.search(text):
        return found, gaps
    pieces = [_UNSPACED_WORDS.findall(word) for word in found]
    between = [[""] * (len(own) - 1) + [gap] for own, gap in zip(pieces, gaps, strict=True)]
    return list(chain.from_iterable(pieces)), list(chain.from_iterable(between))


def _split(text: str, words: Literal["treebank", "whitespace"]) -> tuple[Sequence[str], Sequence[str]]:
    if words == "treebank" and not _PLAIN.fullmatch(text):
        spans = _treebank_spans(text)
        if spans:
            starts_of_next = [*(start for start, _ in spans[1:]), spans[-1][1]]
            gaps = [text[end:start] for (_, end), start in zip(spans, starts_of_next, strict=True)]
            return [text[start:end] for start, end in spans], gaps
    simple = text.split()
    if " ".join(simple) == text.rstrip():
        return simple, [" "] * len(simple)
    found = _WORD.findall(text)
    return [word for word, _ in found], [gap for _, gap in found]


def _treebank_spans(text: str) -> list[tuple[int, int]]:
    """Find the words of a text, or nothing where NLTK does not recognise its own words in it again."""
    try:
        return list(_tokenizer().span_tokenize(text))
    except ValueError:
        return []


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
