"""Texts cut into words, each with its part of speech: the first pass of ``transfer lite``.

A part of this pass is an Arrow file with three list columns for each text column: the words, their tags, and the
white space that follows each word, so that a text can be put together again as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdcli import registry

ROWS = 4096
"""Rows of a part."""

Split = tuple[Sequence[str], Sequence[str]]
"""The words of a text, and the white space after each."""

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


@dataclass(frozen=True)
class Words:
    """The words of one text column of a part, as ids.

    Attributes:
        offsets: ``int64 [texts + 1]`` where the words of each text begin.
        words: ``int32 [words]`` ids in ``vocabulary``.
        gaps: ``int32 [words]`` ids in ``spaces``: what stands between a word and the next.
        tags: ``int32 [words]`` ids in ``tag_names``.
        vocabulary: The different words.
        spaces: The different gaps: one space mostly, or nothing.
        tag_names: The different tags.
    """

    offsets: NDArray[np.int64]
    words: NDArray[np.int32]
    gaps: NDArray[np.int32]
    tags: NDArray[np.int32]
    vocabulary: pa.StringArray
    spaces: pa.StringArray
    tag_names: list[str]


@dataclass(frozen=True)
class TagPart:
    """Makes a part: the words and tags of one record batch of ``texts``.

    Attributes:
        texts: An Arrow file, each batch with the text columns of a part.
        tagger: The tagger plugin's name.
        words: How texts are cut into words.
    """

    texts: Path
    tagger: str
    words: Literal["treebank", "whitespace"]

    def __call__(self, part: int, path: Path) -> None:
        """Write part ``part`` to ``path``.

        Raises:
            PluginError: The tagger cannot be loaded, fails, or gives other than one tag a word.
            MissingError: The tagger's data is not there.
        """
        tagger = registry.load("taggers", self.tagger)
        columns: dict[str, pa.Array] = {}
        with pa.memory_map(str(self.texts)) as file:
            batch = pa.ipc.open_file(file).get_batch(part)
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                cut = [split(text, self.words) for text in column.to_pylist()]
                words = [words for words, _ in cut]
                with registry.blaming("taggers", self.tagger, "tag"):
                    tags = tagger.tag(words)
                if not _are_tags(tags, words):
                    raise registry.breach("taggers", self.tagger, "does not give one tag a word, each a string")
                counts = [len(of_text) for of_text in words]
                columns[f"{name}.words"] = _lists(counts, words)
                columns[f"{name}.gaps"] = _lists(counts, (gaps for _, gaps in cut))
                columns[f"{name}.tags"] = _lists(counts, tags)
        tagged = pa.record_batch(columns)
        with pa.ipc.new_file(str(path), tagged.schema) as writer:
            writer.write_batch(tagged)


def read_words(path: Path, column: str) -> Words:
    """Read one text column of a part."""
    with pa.OSFile(str(path)) as file:
        batch = pa.ipc.open_file(file).get_batch(0)
    words, gaps, tags = (batch[f"{column}.{name}"].values for name in ("words", "gaps", "tags"))
    return Words(
        offsets=batch[f"{column}.words"].offsets.to_numpy().astype(np.int64),
        words=words.indices.to_numpy(),
        gaps=gaps.indices.to_numpy(),
        tags=tags.indices.to_numpy(),
        vocabulary=words.dictionary,
        spaces=gaps.dictionary,
        tag_names=tags.dictionary.to_pylist(),
    )


def split(text: str, words: Literal["treebank", "whitespace"]) -> Split:
    """Cut a text into words; white space before the first is left out.

    Args:
        text: Any text.
        words: ``whitespace`` cuts at white space alone; ``treebank`` by the Penn Treebank rules too, as NLTK's
            ``NLTKWordTokenizer`` does, but without changing a character.
    """
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
    """Return whether a tagger has answered as it should: it may be anybody's."""
    return (
        isinstance(tags, list | tuple)
        and all(isinstance(of_text, list | tuple) for of_text in tags)
        and [len(of_text) for of_text in tags] == [len(words) for words in texts]
        and all(isinstance(tag, str) for tag in chain.from_iterable(tags))
    )


def _lists(counts: Sequence[int], values: Iterable[Iterable[str]]) -> pa.ListArray:
    """Make a list column of dictionary-encoded strings."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    flat = pa.array(list(chain.from_iterable(values)), pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), flat.dictionary_encode())
