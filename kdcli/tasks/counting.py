"""What the texts and labels of a table are like: counted a block at a time, for all its texts at once.

A text is looked at more closely only if it is not plain. A plain one consists of printable ASCII characters, begins
with no white space, and has one space between its words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.tables.forms import Numbers
from kdcli.tables.spans import Hashes, Places, Spans, combine, count_within, hash_texts
from kdcli.tasks.labels import encode_labels

_SPACE, _LAST_PRINTABLE = b" ~"
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\xa0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffd"
NON_PRINTING = f"[{_CONTROLS}]"
"""Controls but for TAB and LF, no-break and zero-width ones, those of direction, and what stands for a lost one."""
_BREAKS = "[\t\n\r]"
_STRANGE = f"[\t\n{_CONTROLS}\u1680\u2000-\u200a\u202f\u205f\u3000]|  |^ "
"""Non-printing characters, and all white space but a single space behind something."""


@dataclass(frozen=True)
class Finding:
    """Something found in a table.

    Attributes:
        count: How often.
        first_row: The first row with it, None where there is none; rows are counted from 1 with the header as row 1.
    """

    count: int = 0
    first_row: int | None = None

    @classmethod
    def where(cls, rows: Numbers, true: NDArray[np.bool_]) -> Finding:
        """Count what is true, ``bool [..., rows]``."""
        count = int(np.count_nonzero(true))
        return cls(count, int(rows[true.reshape(-1, len(rows)).any(0)].min())) if count else cls()

    def __add__(self, other: Finding) -> Finding:
        """Return what both have found."""
        firsts = [row for row in (self.first_row, other.first_row) if row is not None]
        return Finding(self.count + other.count, min(firsts, default=None))


@dataclass(frozen=True)
class TextCounts:
    """What some texts are like.

    Attributes:
        words: How many have so many words, ``int64 [longest + 1]``, for each column.
        empty: Those without any character.
        edges: Those that begin or end with white space.
        breaks: Those with a tab or a line end.
        characters: The non-printing characters in them.
    """

    words: Sequence[Places] = ()
    empty: Finding = Finding()
    edges: Finding = Finding()
    breaks: Finding = Finding()
    characters: Mapping[str, Finding] = field(default_factory=dict)

    def __add__(self, other: TextCounts) -> TextCounts:
        """Return what both have counted."""
        none = np.zeros(0, np.int64)
        return TextCounts(
            [_sum(*pair) for pair in zip_longest(self.words, other.words, fillvalue=none)],
            self.empty + other.empty,
            self.edges + other.edges,
            self.breaks + other.breaks,
            {
                each: self.characters.get(each, Finding()) + other.characters.get(each, Finding())
                for each in {**self.characters, **other.characters}
            },
        )


def count_texts(rows: Sequence[Numbers], blocks: Sequence[Spans]) -> tuple[TextCounts, Hashes, Hashes]:
    """Count what some texts are like.

    Args:
        rows: The numbers of their rows, for each block.
        blocks: The texts, in pieces that fit into the processor's cache.

    Returns:
        The counts, a hash of each row's texts, and one that does not depend on case and white space (``uint64 [rows]``
        both): letters are lower-cased one by one, runs of white space are one space, and there is none at the ends.
    """
    numbers = np.concatenate(rows)
    look = _Look(*(np.concatenate(parts, axis=1) for parts in zip(*map(_look, blocks), strict=True)))
    closer = TextCounts() if look.plain.all() else _look_closely(numbers, blocks, look)
    words = [np.bincount(column) for column in look.words]
    plain = TextCounts(words, Finding.where(numbers, look.empty), Finding.where(numbers, look.edges))
    return plain + closer, combine(look.exact), combine(look.folded)


class _Look(NamedTuple):
    """A first look at some texts; all arrays are ``[columns, rows]``.

    Attributes:
        plain: Whether each is plain. If not, ``words``, ``edges`` and ``folded`` are wrong.
        words: How many words it has.
        empty: Whether it has no character.
        edges: Whether it begins or ends with white space.
        exact: A hash of it.
        folded: A hash that does not depend on case and white space.
    """

    plain: NDArray[np.bool_]
    words: Places
    empty: NDArray[np.bool_]
    edges: NDArray[np.bool_]
    exact: Hashes
    folded: Hashes


def _look(spans: Spans) -> _Look:
    data, begins, ends = spans.data, spans.begins, spans.ends
    space = data <= _SPACE
    starts = np.zeros(len(data), bool)
    np.greater(space[:-1], space[1:], out=starts[1:])
    starts[begins] = ~space[begins]
    # Below the space the difference wraps around.
    odd = data - np.uint8(_SPACE) > _LAST_PRINTABLE - _SPACE
    odd[1:] |= space[1:] & space[:-1]
    words, unusual = count_within([starts, odd], begins, ends)
    empty = begins == ends
    plain = (unusual == 0) & (empty | ~space[begins])
    # Whole tables have a space behind each text; such texts are plain all the same.
    trailing = (data[ends - 1] == _SPACE) & ~empty
    exact, folded = hash_texts(Spans(data, begins, ends - trailing))
    return _Look(plain, words, empty, trailing, exact + trailing, folded)


def _look_closely(rows: Numbers, blocks: Sequence[Spans], look: _Look) -> TextCounts:
    """Put right what is wrong for texts that are not plain, and count what only they may hold."""
    places = np.nonzero(~look.plain)
    ends = np.cumsum([block.begins.shape[1] for block in blocks])
    texts = pa.concat_arrays(
        block.texts(column, np.flatnonzero(~plain))
        for column, of_column in enumerate(look.plain)
        for block, plain in zip(blocks, np.split(of_column, ends[:-1]), strict=True)
    )
    normal = pc.utf8_rtrim(texts, " ")
    strange = pc.match_substring_regex(texts, _STRANGE)
    found = TextCounts()
    if strange.true_count:
        here = places[0][as_numpy(strange)], places[1][as_numpy(strange)]
        some = texts.filter(strange)
        trimmed = pc.utf8_trim_whitespace(some)
        words = pc.utf8_split_whitespace(trimmed)
        normal = pc.replace_with_mask(normal, strange, pc.binary_join(words, " "))
        look.words[here] = as_numpy(pc.if_else(pc.equal(trimmed, ""), 0, pc.list_value_length(words)))
        look.edges[here] = as_numpy(pc.not_equal(some, trimmed))
        found = _count_strange(rows[here[1]], some)
    look.folded[places] = hash_texts(Spans.of([pc.utf8_lower(normal)]))[0][0]
    return found


def _count_strange(rows: Numbers, texts: pa.StringArray) -> TextCounts:
    breaks = Finding.where(rows, as_numpy(pc.match_substring_regex(texts, _BREAKS)))
    counts = Counter(re.findall(NON_PRINTING, "".join(texts.to_pylist())))
    firsts = {each: int(rows[as_numpy(pc.match_substring(texts, each))].min()) for each in counts}
    return TextCounts(breaks=breaks, characters={each: Finding(counts[each], firsts[each]) for each in counts})


class LabelCounter:
    """Counts labels.

    Attributes:
        found: Each label as the table writes it, None for none.
    """

    def __init__(self) -> None:
        self.found: dict[str | None, Finding] = {}
        self._codes: dict[str | None, int] = {}

    def add(self, rows: Numbers, labels: pa.StringArray) -> NDArray[np.float64]:
        """Count some labels, and give each a number; NaN where there is none."""
        encoded = pc.dictionary_encode(labels, null_encoding="encode")
        names, places = encoded.dictionary.to_pylist(), as_numpy(encoded.indices)
        counts, firsts = np.bincount(places, minlength=len(names)), np.zeros(len(names), np.int64)
        # From the last to the first, so that the first stays.
        firsts[places[::-1]] = rows[::-1]
        for name, count, first in zip(names, counts.tolist(), firsts.tolist(), strict=True):
            self.found[name] = self.found.get(name, Finding()) + Finding(count, first)
            self._codes.setdefault(name, len(self._codes))
        codes = np.array([np.nan if name is None else self._codes[name] for name in names], np.float64)
        return codes.take(places)


class ScoreCounter:
    """Checks scores, and keeps those that are right.

    Attributes:
        missing: Rows without a score.
        wrong: Scores that are no number in the task's range.
        first_wrong: The first of these.
    """

    def __init__(self, task: Task) -> None:
        self.missing = self.wrong = Finding()
        self.first_wrong = ""
        self._task = task
        self._values = [np.zeros(0)]

    @property
    def values(self) -> NDArray[np.float64]:
        """The scores that are right."""
        return np.concatenate(self._values)

    def add(self, rows: Numbers, scores: pa.StringArray) -> NDArray[np.float64]:
        """Check some scores; NaN stands for one that is missing or wrong."""
        there = as_numpy(scores.is_valid())
        self.missing += Finding.where(rows, ~there)
        values = np.full(len(rows), np.nan)
        texts = scores.drop_null()
        try:
            values[there] = encode_labels(texts, self._task, file="")
        except DataError:
            values[there] = [self._value(text) for text in texts.to_pylist()]
            wrong = there & np.isnan(values)
            self.first_wrong = self.first_wrong or scores[int(wrong.argmax())].as_py()
            self.wrong += Finding.where(rows, wrong)
        self._values.append(values[~np.isnan(values)])
        return values

    def _value(self, text: str) -> float:
        try:
            return float(encode_labels(pa.array([text]), self._task, file="")[0])
        except DataError:
            return np.nan


def _sum(first: Places, second: Places) -> Places:
    short, long = sorted((first, second), key=len)
    total = long.copy()
    total[: len(short)] += short
    return total


def as_numpy(values: pa.Array) -> NDArray[Any]:
    """Return numbers or truth values, none of them null; ``to_numpy`` would import pandas, where it is installed."""
    truth = pa.types.is_boolean(values.type)
    return np.from_dlpack(values.cast(pa.uint8())).view(bool) if truth else np.from_dlpack(values)
