"""The findings of ``kd data check``, as values that JSON can hold; rows are counted from 1 with the header as row 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """Something found in a table: how often, and the first row with it."""

    count: int = 0
    first_row: int | None = None

    def __add__(self, other: Finding) -> Finding:
        """Return both together."""
        rows = [row for row in (self.first_row, other.first_row) if row is not None]
        return Finding(self.count + other.count, min(rows, default=None))


@dataclass(frozen=True)
class Words:
    """The lengths of the texts of a column in words; ``longer`` texts are longer than the student reads."""

    min: int
    median: float
    mean: float
    p95: float
    p99: float
    max: int
    longer: int


@dataclass(frozen=True)
class LabelCount:
    """A label, its readable name if it has one, and how many of the labelled rows have it."""

    label: str
    name: str
    count: int
    share: float


@dataclass(frozen=True)
class Labels:
    """The labels of a table: the task's in its order, at most twenty others, rows with others, and rows without one."""

    known: Sequence[LabelCount]
    others: Sequence[LabelCount]
    outside: Finding
    missing: Finding


@dataclass(frozen=True)
class Scores:
    """The scores of a table, in ten bins over the task's range or their own; wrong ones are no number in the range."""

    min: float
    mean: float
    max: float
    edges: Sequence[float]
    histogram: Sequence[int]
    wrong: Finding
    first_wrong: str
    missing: Finding


@dataclass(frozen=True)
class Character:
    """A non-printing character of a table's texts."""

    code: str
    name: str
    count: int
    first_row: int | None


@dataclass(frozen=True)
class Repeats:
    """Rows of one table that share their texts: how many texts, how many (or how many further) rows, two of them."""

    texts: int = 0
    rows: int = 0
    example: tuple[int, int] | None = None
    shown: str = ""


@dataclass(frozen=True)
class Common:
    """Rows of a second table whose texts are in a first one; ``alike`` ignores case and white space.

    The example is a row of the first table and one of the second, with the texts of the latter.
    """

    rows: int
    alike: int
    example: tuple[int, int] | None = None
    shown: str = ""


@dataclass(frozen=True)
class TableReport:
    """The findings in one table.

    Attributes:
        name: Its name: ``train``, ``dev``, ``dev_matched``.
        file: The file.
        layout: The detected layout.
        whole: Whether it could be read to its end.
        rows: Its rows, without those that are dropped or cannot be read.
        dropped: The number of rows dropped for their labels, by label.
        bad_rows: Rows that cannot be read.
        first_bad_row: Where the first of these is, and what is wrong with it.
        labels: Its labels; None for scores, and where there are none.
        scores: Its scores; None for classes, and where there are none.
        words: The lengths of its texts, by column.
        empty: Texts without any character.
        edges: Texts that begin or end with white space.
        breaks: Texts with a tab or a line end.
        characters: The non-printing characters in its texts.
        repeated: Rows whose texts are those of another row.
        conflicts: Those of them whose texts have several labels.
    """

    name: str
    file: str
    layout: str
    whole: bool
    rows: int
    dropped: Mapping[str, int]
    bad_rows: int
    first_bad_row: str
    labels: Labels | None
    scores: Scores | None
    words: Mapping[str, Words]
    empty: Finding
    edges: Finding
    breaks: Finding
    characters: Sequence[Character]
    repeated: Repeats
    conflicts: Repeats


@dataclass(frozen=True)
class Overlap:
    """The texts that two tables share, and the share of the second's rows with texts of the first."""

    first: str
    second: str
    share: float
    found: Common


@dataclass(frozen=True)
class Problem:
    """An ``error``, with which the profile cannot run, or a ``warning``; ``key`` is a column or a setting."""

    level: Literal["error", "warning"]
    what: str
    hint: str | None = None
    file: str | None = None
    row: int | None = None
    key: str | None = None


@dataclass(frozen=True)
class DataReport:
    """The findings in the tables of a task.

    Attributes:
        task: The task's name.
        folder: The folder of the tables.
        fit: Whether the profile can run on them.
        max_words: The longest text that the student reads whole, in words.
        tables: The tables that could be read.
        overlaps: The texts that they share, two by two.
        problems: Errors first, then warnings.
    """

    task: str
    folder: str
    fit: bool
    max_words: int
    tables: Sequence[TableReport] = ()
    overlaps: Sequence[Overlap] = ()
    problems: Sequence[Problem] = ()
