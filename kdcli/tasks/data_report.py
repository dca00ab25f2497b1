"""What ``kd data check`` finds, as values that JSON can hold; rows are counted from 1 with the header as row 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kdcli.tasks.counting import Finding
from kdcli.tasks.repeats import Common, Repeats

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Words:
    """The lengths of the texts of a column, in words: what is between white space.

    Attributes:
        min: Of the shortest.
        median: Half of them are no longer.
        mean: Their mean.
        p95: 95 % of them are no longer.
        p99: 99 % of them are no longer.
        max: Of the longest.
        longer: How many texts are longer than the student reads.
    """

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
    """The labels of a table of classes.

    Attributes:
        known: The task's labels, in its order.
        others: Labels that are none of the task's, the most frequent first, and no more than twenty.
        outside: The rows with such labels.
        missing: The rows without a label.
    """

    known: Sequence[LabelCount]
    others: Sequence[LabelCount]
    outside: Finding
    missing: Finding


@dataclass(frozen=True)
class Scores:
    """The scores of a table.

    Attributes:
        min: The lowest.
        mean: Their mean.
        max: The highest.
        edges: The limits of ten bins over the task's range, or over the scores' own.
        histogram: How many scores each bin has.
        wrong: Scores that are no number in the task's range.
        first_wrong: The first of these.
        missing: The rows without a score.
    """

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
class TableReport:
    """What a table is like.

    Attributes:
        name: What it is called: ``train``, ``dev``, ``dev_matched``.
        file: The file.
        layout: How it was read.
        whole: Whether it could be read to its end.
        rows: Its rows, but for those that are dropped or cannot be read.
        dropped: How many rows were dropped for their labels, by label.
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
    """What two tables have in common.

    Attributes:
        first: The name of one.
        second: The name of the other.
        share: The share of the second's rows whose texts the first one has.
        found: The rows, counted in the second table.
    """

    first: str
    second: str
    share: float
    found: Common


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, or may be.

    Attributes:
        level: ``error`` if the profile cannot run on these tables, else ``warning``.
        what: What.
        hint: What to do about it.
        file: The file it is in.
        row: The row of that file.
        key: The column or setting it is about.
    """

    level: Level
    what: str
    hint: str | None = None
    file: str | None = None
    row: int | None = None
    key: str | None = None


@dataclass(frozen=True)
class DataReport:
    """What the tables of a task are like.

    Attributes:
        task: The task's name.
        folder: The folder of the tables.
        fit: Whether the profile can run on them.
        max_words: The longest text that the student reads whole, in words.
        tables: The tables that could be read.
        overlaps: What they have in common, two by two.
        problems: What is wrong, errors first.
    """

    task: str
    folder: str
    fit: bool
    max_words: int
    tables: Sequence[TableReport] = ()
    overlaps: Sequence[Overlap] = ()
    problems: Sequence[Problem] = field(default=())
