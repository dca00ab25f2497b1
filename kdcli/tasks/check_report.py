"""The report of ``kd data check``: what was found, and which of it is an error or a warning.

All classes hold values that JSON can hold; rows are counted from 1 with the header as row 1.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

from kdcli.api import Task
from kdcli.config.schema import TaskSettings
from kdcli.tables.read import shown

_RARE = 0.2  # a class is rare below this part of an even share: 10 % of two classes


@dataclass(frozen=True)
class Finding:
    """Something found in a table: how often, and the first row with it."""

    count: int = 0
    first_row: int | None = None

    def __add__(self, other: Self) -> Self:
        """Return both together."""
        rows = [row for row in (self.first_row, other.first_row) if row is not None]
        return type(self)(self.count + other.count, min(rows, default=None))


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
    """The labels of a table: the task's in its order, at most twenty others, rows with others, and rows without one.

    ``none`` are rows of a multi-label task that have none of its labels, and say so.
    """

    known: Sequence[LabelCount]
    others: Sequence[LabelCount]
    outside: Finding
    missing: Finding
    none: Finding


@dataclass(frozen=True)
class Scores:
    """The scores of a table; wrong ones are no number in the task's range."""

    min: float
    mean: float
    max: float
    wrong: Finding
    first_wrong: str
    missing: Finding


@dataclass(frozen=True)
class Repeats:
    """Rows of one table that share their texts: how many texts, how many (or how many further) rows, two of them."""

    texts: int = 0
    rows: int = 0
    example: tuple[int, int] | None = None


@dataclass(frozen=True)
class TableReport:
    """The findings in one table.

    ``whole``: it could be read to its end. ``rows`` are those that are neither dropped for their labels nor bad.
    ``targets`` are the different labels, or scores, of the rows whose texts all have words. ``breaks`` are texts with
    a tab or a line end, ``edges`` begin or end with white space, ``characters`` have some that do not print. The texts
    of ``repeated`` rows are those of another row; in ``conflicts`` with another label, score or set of labels.
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
    characters: Finding
    repeated: Repeats
    conflicts: Repeats
    targets: int


@dataclass(frozen=True)
class Overlap:
    """Rows of a second table whose texts are in a first one; ``alike`` ignores case and white space.

    ``share`` is of the second's rows. The example is a row of each table.
    """

    first: str
    second: str
    rows: int
    alike: int
    share: float
    example: tuple[int, int] | None = None


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
    """The findings in the tables of a task; ``fit``: the profile can run on them; errors come before warnings."""

    task: str
    folder: str
    fit: bool
    max_words: int
    tables: Sequence[TableReport] = ()
    overlaps: Sequence[Overlap] = ()
    problems: Sequence[Problem] = ()

    @property
    def errors(self) -> list[Problem]:
        """The problems with which the profile cannot run."""
        return [problem for problem in self.problems if problem.level == "error"]


def find_problems(
    tables: Sequence[TableReport], overlaps: Sequence[Overlap], settings: TaskSettings, task: Task, max_words: int
) -> list[Problem]:
    """Find the problems of tables, in the order of the tables."""
    found = [problem for table in tables for problem in _of_table(table, settings, task, max_words)]
    hint = _ready_labels(tables, settings)
    found += [problem for table in tables for problem in _of_answers(table, task, hint)]
    return found + [_of_overlap(overlap, tables) for overlap in overlaps if overlap.alike]


def _of_table(table: TableReport, settings: TaskSettings, task: Task, max_words: int) -> Iterator[Problem]:
    warning = partial(Problem, "warning", file=table.file)
    if table.bad_rows:
        skip = settings.bad_rows == "skip"
        what = f"{_many(table.bad_rows, 'row')} cannot be read, the first is {table.first_bad_row}"
        hint = "they are skipped" if skip else "correct them, or skip them: task.bad_rows=skip"
        yield Problem("warning" if skip else "error", what, hint, table.file)
    if not table.rows and table.whole:
        yield Problem("error", "the table has no rows", None, table.file)
    if table.conflicts.texts:
        kind = "scores" if task.is_score else "sets of labels" if task.multi_label else "labels"
        what = f"{_many(table.conflicts.texts, 'text')} repeated with different {kind}"
        what += f", in {table.conflicts.rows:,} rows: {_pair(table.conflicts.example)}"
        yield warning(what, hint=f"a model can learn one of the {kind} at most: correct the others")
    if table.repeated.rows:
        share = table.repeated.rows / table.rows
        what = f"{_many(table.repeated.rows, 'row')} ({share:.1%}) with texts of an earlier one"
        yield warning(f"{what}: {_pair(table.repeated.example)}")
    for found, what, advice in (
        (table.empty, "without a character", None),
        (table.breaks, "with a tab or a line end", "such texts can be in .csv, .parquet and .jsonl, not in .tsv"),
        (table.characters, "with characters that do not print", "they are kept as they are"),
    ):
        if found.count:
            yield warning(f"{_many(found.count, 'text')} {what}", row=found.first_row, hint=advice)
    for column, words in table.words.items():
        if words.longer:
            share = words.longer / table.rows
            what = f"{_many(words.longer, 'text')} ({share:.1%}) longer than {max_words} words, up to {words.max:,}"
            yield warning(what, key=column, hint="the student cuts them at student.max_length, in words")


def _of_answers(table: TableReport, task: Task, hint: str) -> Iterator[Problem]:
    """Find the problems of a table's labels or scores; ``hint`` helps with labels that are none of the task's."""
    labels, scores, found = table.labels, table.scores, table.labels or table.scores
    if found is None:
        return
    kind, missing = "label" if labels else "score", found.missing
    if missing.count and not table.name.startswith("test"):
        level: Literal["warning", "error"] = "warning" if missing.count < table.rows else "error"
        what = f"{_many(missing.count, 'row')} without a {kind}"
        yield Problem(level, what, "they are left out", table.file, missing.first_row)
    if labels and labels.outside.count:
        each = ", ".join(f"{shown(one.label)} ({one.count:,})" for one in labels.others)
        what = f"{_many(labels.outside.count, 'row')} with labels that are none of the task's {', '.join(task.labels)}"
        yield Problem("error", f"{what}: {each}", hint, table.file, labels.outside.first_row)
    elif scores and scores.wrong.count:
        within = f" from {task.score_range[0]:g} to {task.score_range[1]:g}" if task.score_range else ""
        what = f"{_many(scores.wrong.count, 'score')} that is no number{within}, the first is {scores.first_wrong!r}"
        hint = "see task.score_range and task.label_column (--label-col)"
        yield Problem("error", what, hint, table.file, scores.wrong.first_row)
    elif missing.count < table.rows and table.name == "train" and table.targets < 2:
        what = f"every text has the same {kind}" if table.targets else f"no text has a {kind}"
        yield Problem("error", f"{what}: there is nothing to learn", f"two {kind}s at least are needed", table.file)
    there = [one for one in labels.known if one.count] if labels else []
    if labels and (len(there) > 1 or (there and table.name != "train")):
        for one in labels.known:
            if one.share < _RARE / len(labels.known):
                what = f"no row has the label {one.label!r}"
                rare = f"only {_many(one.count, 'row')} ({one.share:.1%}) with the label {one.label!r}"
                yield Problem("warning", rare if one.count else what, None, table.file)


def _ready_labels(tables: Sequence[TableReport], settings: TaskSettings) -> str:
    """Return the line of a profile that makes classes of all labels found."""
    labels = [table.labels for table in tables if table.labels]
    known = list(dict.fromkeys(one.label for each in labels for one in each.known if one.count))
    others = sorted({one.label for each in labels for one in each.others})
    others.sort(key=lambda label: int(label) if label.isdecimal() else math.inf)
    if len(others) > 20:
        return "so many are no classes: name the column with --label-col, or set a score_range and no labels for scores"
    spellings: dict[str, dict[str, None]] = {}
    for label in [*settings.labels, *known, *others]:
        spellings.setdefault(label.strip().casefold(), {})[label] = None
    if alike := [", ".join(map(repr, each)) for each in spellings.values() if len(each) > 1]:
        return f"labels differ only in case or spaces, write each in one way in the tables: {'; '.join(alike)}"
    labels_line, drop_line = (json.dumps(each, ensure_ascii=False) for each in ([*known, *others], others))
    names = " and task.names = []" if settings.names else ""
    return f"if they are classes: task.labels = {labels_line}{names}; to leave them out: task.drop_labels = {drop_line}"


def _of_overlap(found: Overlap, tables: Sequence[TableReport]) -> Problem:
    first, second = found.first, found.second
    file = next(table.file for table in tables if table.name == second)
    what = f"{_many(found.rows or found.alike, 'row')} with texts of {first}"
    if found.alike > found.rows:
        what += f"{f', {found.alike:,}' if found.rows else ''} but for case and white space"
    row, other = reversed(found.example or ())
    hint = f"they make the score on {second} look better than it is: leave them out of {first}"
    return Problem("warning", f"{what}: row {row} is row {other} of {first}", hint, file)


def _pair(rows: tuple[int, int] | None) -> str:
    return f"rows {rows[0]} and {rows[1]}" if rows else ""


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
