"""What the tables of a task are like, and whether a profile can run on them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, KdError
from kdcli.tables.forms import shown
from kdcli.tables.read import read_table
from kdcli.tables.spans import Places
from kdcli.tasks.contents import read_contents
from kdcli.tasks.counting import Finding, LabelCounter, ScoreCounter
from kdcli.tasks.data_report import Character, DataReport, LabelCount, Labels, Overlap, Scores, TableReport, Words
from kdcli.tasks.labels import spelling_of
from kdcli.tasks.split import Split, split_files, table_name
from kdcli.tasks.detect import recognise
from kdcli.tasks.repeats import Common, Repeats, common, repeats
from kdcli.tasks.verdict import judge, problem_of

_BINS = 10
_MOST = 20
_CONTROLS = {"\0": "NULL", "\r": "CARRIAGE RETURN", "\x1b": "ESCAPE", "\x7f": "DELETE", "\x85": "NEXT LINE"}
"""Names of controls, for which Unicode has none."""

_Example = TypeVar("_Example", Repeats, Common)


def check_data(settings: TaskSettings, task: Task, reporter: Reporter, *, max_words: int = 128) -> DataReport:
    """Read all tables of a task, and tell what they are like and what is wrong with them.

    Args:
        settings: Where the data lie, and how.
        task: The task.
        reporter: Told of the layouts, and of how it goes.
        max_words: The longest text that the student reads whole, in words.

    Returns:
        The report; it names all errors that could be found.

    Raises:
        DataError: There is no data folder.
        ProfileError: The settings name a layout that does not exist.
    """
    errors: list[KdError] = []
    tables: list[_Table] = []
    for split in ("train", "dev", "test"):
        files = split_files(settings, split)
        if not files and _needs(split, settings):
            there = ", ".join(sorted(path.name for path in Path(settings.data_dir).expanduser().iterdir())[:20])
            hint = f"it is {split}.tsv, .csv, .jsonl or .parquet, or one of these with .gz; the folder holds {there}"
            errors.append(DataError(f"there is no {split} table", file=settings.data_dir, hint=hint))
        for path in files:
            try:
                tables.append(_Table(path, split, settings, task, reporter))
            except DataError as error:
                errors.append(error)
    errors += [error for table in tables for error in table.errors()]
    reports = [table.report(max_words) for table in tables]
    overlaps = [_overlap(first, second) for first, second in combinations(tables, 2) if first.split != second.split]
    problems = [problem_of(error) for error in errors] + judge(reports, overlaps, settings, task, max_words)
    problems.sort(key=lambda problem: problem.level)
    fit = all(problem.level != "error" for problem in problems)
    return DataReport(task.name, settings.data_dir, fit, max_words, reports, overlaps, problems)


def _needs(split: Split, settings: TaskSettings) -> bool:
    """Tell whether a split must be there; a task that another's student predicts has nothing but texts to predict."""
    return (split == "test") == bool(settings.student_of)


class _Table:
    """A table that has been read."""

    def __init__(self, path: Path, split: Split, settings: TaskSettings, task: Task, reporter: Reporter) -> None:
        self.path, self.split, self.settings, self.task = path, split, settings, task
        self.name = table_name(path, split)
        self.labelled = split != "test"
        self.shape = recognise(path, settings, task)
        reporter.info(f"{path.name}: {self.shape}")
        self.contents = read_contents(path, self.shape, settings, task, reporter, labelled=self.labelled)

    def errors(self) -> list[KdError]:
        """Return what is wrong with the table as a whole."""
        found: list[KdError] = [] if self.contents.error is None else [self.contents.error]
        if self.labelled and self.shape.label is None:
            column = self.settings.label_column
            what = f"there is no column {column!r}" if column else "there is no label column"
            hint = "name it with --label-col, or task.label_column"
            found.append(DataError(what, file=self.path, hint=hint, key=column or None))
        return found

    def report(self, max_words: int) -> TableReport:
        """Return what it is like."""
        contents = self.contents
        texts, counted = contents.texts, contents.labels
        repeated, conflicts = (self.with_texts(each, each.example) for each in repeats(contents.keys))
        there = self.shape.label is not None and len(contents.keys.rows) > 0
        return TableReport(
            name=self.name,
            file=str(self.path),
            layout=str(self.shape),
            whole=contents.error is None,
            rows=len(contents.keys.rows),
            dropped=contents.dropped,
            bad_rows=contents.bad_rows,
            first_bad_row=contents.first_bad_row,
            labels=_labels(counted, self.task) if there and isinstance(counted, LabelCounter) else None,
            scores=_scores(counted, self.task) if there and isinstance(counted, ScoreCounter) else None,
            words={
                column: _words(words, max_words)
                for column, words in zip(self.shape.texts, texts.words, strict=False)
                if len(words)
            },
            empty=texts.empty,
            edges=texts.edges,
            breaks=texts.breaks,
            characters=_characters(texts.characters),
            repeated=repeated,
            conflicts=conflicts,
        )

    def with_texts(self, found: _Example, example: tuple[int, int] | None) -> _Example:
        """Read the texts of an example, of whose rows the second is one of this table."""
        if example is None:
            return found
        columns, shape = list(self.shape.texts), self.shape
        reader = read_table(self.path, header=shape.header, columns=columns, bad_rows="skip", form=shape.form)
        for rows, batch in reader.numbered():
            if rows[-1] >= example[1]:
                row = batch.slice(int(np.searchsorted(rows, example[1])), 1)
                return replace(found, shown=" | ".join(shown(row[name][0].as_py()) for name in columns))
        return found


def _overlap(first: _Table, second: _Table) -> Overlap:
    found = common(first.contents.keys, second.contents.keys)
    share = found.rows / max(len(second.contents.keys.rows), 1)
    return Overlap(first.name, second.name, share, second.with_texts(found, found.example))


def _words(counts: Places, max_words: int) -> Words:
    """Describe lengths, of which ``counts`` tells how often each occurs."""
    lengths = np.arange(len(counts))
    upto = np.cumsum(counts)

    def quantile(share: float) -> float:
        # Between the two nearest, as NumPy does it.
        place = share * (upto[-1] - 1)
        low, high = np.searchsorted(upto, [int(place), int(np.ceil(place))], side="right")
        return float(low + (high - low) * (place - int(place)))

    there = np.flatnonzero(counts)
    median, p95, p99 = map(quantile, (0.5, 0.95, 0.99))
    mean = float(counts @ lengths / upto[-1])
    return Words(int(there[0]), median, mean, p95, p99, int(there[-1]), int(counts[max_words + 1 :].sum()))


def _labels(counter: LabelCounter, task: Task) -> Labels:
    found = {label: finding for label, finding in counter.found.items() if label is not None}
    written = spelling_of(pa.array(list(found), pa.string()), task)
    total = sum(finding.count for finding in found.values()) or 1
    outside = sorted((label for label in found if label not in written), key=lambda label: -found[label].count)

    def count(written: str, label: str, name: str = "") -> LabelCount:
        number = found.get(written, Finding()).count
        return LabelCount(label, name, number, number / total)

    return Labels(
        known=list(map(count, written, task.labels, task.names or [""] * len(task.labels))),
        others=[count(label, label) for label in outside[:_MOST]],
        outside=sum((found[label] for label in outside), start=Finding()),
        missing=counter.found.get(None, Finding()),
    )


def _scores(counter: ScoreCounter, task: Task) -> Scores | None:
    values = counter.values
    low, high, mean = (values.min(), values.max(), values.mean()) if len(values) else (np.nan, np.nan, np.nan)
    limits = task.score_range or ((low, high) if len(values) else (0.0, 1.0))
    histogram, edges = np.histogram(values, _BINS, limits)
    numbers = float(low), float(mean), float(high)
    found = counter.wrong, counter.first_wrong, counter.missing
    return Scores(*numbers, edges.tolist(), histogram.tolist(), *found)


def _characters(found: Mapping[str, Finding]) -> list[Character]:
    """List characters, the most frequent first."""
    return [
        Character(
            f"U+{ord(one):04X}",
            unicodedata.name(one, _CONTROLS.get(one, "control character")),
            found[one].count,
            found[one].first_row,
        )
        for one in sorted(found, key=lambda one: (-found[one].count, one))
    ]
