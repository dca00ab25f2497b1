"""``kd data check``: what the tables of a task are like, and whether a profile can run on them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, KdError
from kdcli.tables.read import ROW_NUMBER, shown
from kdcli.tasks.check_counts import TableCounts
from kdcli.tasks.check_report import (
    Character,
    Common,
    DataReport,
    Finding,
    LabelCount,
    Labels,
    Overlap,
    Problem,
    Repeats,
    Scores,
    TableReport,
    Words,
    find_problems,
)
from kdcli.tasks.detect import detect
from kdcli.tasks.labels import spelling_of
from kdcli.tasks.split import SPLITS, Split, missing_label_column, missing_split, split_files, table_name

_BINS = 10
_MOST = 20
_CONTROLS = {"\0": "NULL", "\r": "CARRIAGE RETURN", "\x1b": "ESCAPE", "\x7f": "DELETE", "\x85": "NEXT LINE"}
"""Names of controls, for which Unicode has none."""

_Example = TypeVar("_Example", Repeats, Common)


def check_data(settings: TaskSettings, task: Task, reporter: Reporter, *, max_words: int = 128) -> DataReport:
    """Read all tables of a task, describe them and find their problems.

    ``max_words`` is the longest text that the student reads whole, in words.

    Returns:
        The report, with all errors that could be found.

    Raises:
        DataError: There is no data folder.
        ProfileError: The settings name a layout that does not exist.
    """
    errors: list[KdError] = []
    tables: list[_Table] = []
    for split in SPLITS:
        files = split_files(settings, split)
        # A task that another's student predicts needs nothing but texts to predict.
        if not files and (split == "test") == bool(settings.student_of):
            errors.append(missing_split(settings, split))
        for path in files:
            try:
                tables.append(_Table(path, split, settings, task, reporter))
            except DataError as error:
                errors.append(error)
    errors += [error for table in tables for error in table.errors()]
    reports = [table.report(max_words) for table in tables]
    overlaps = [_overlap(first, second) for first, second in combinations(tables, 2) if first.split != second.split]
    problems = [Problem("error", one.what, one.hint, one.file, one.row, one.key) for one in errors]
    problems += find_problems(reports, overlaps, settings, task, max_words)
    problems.sort(key=lambda problem: problem.level)
    fit = all(problem.level != "error" for problem in problems)
    return DataReport(task.name, settings.data_dir, fit, max_words, reports, overlaps, problems)


class _Table:
    """A table and its counts."""

    def __init__(self, path: Path, split: Split, settings: TaskSettings, task: Task, reporter: Reporter) -> None:
        self.path, self.split, self.settings, self.task = path, split, settings, task
        self.name = table_name(path, split)
        self.labelled = split != "test"
        self.layout = detect(path, settings, task)
        reporter.info(f"{path.name}: {self.layout}")
        self.counts = TableCounts(path, self.layout, settings, task, reporter, labelled=self.labelled)

    def errors(self) -> list[KdError]:
        """Return the errors of the table as a whole."""
        found: list[KdError] = [] if self.counts.error is None else [self.counts.error]
        if self.labelled and self.layout.label is None:
            found.append(missing_label_column(self.path, self.settings))
        return found

    def report(self, max_words: int) -> TableReport:
        """Describe the table."""
        counts, keys = self.counts, self.counts.keys
        repeated, conflicts = (self.with_texts(each, each.example) for each in _repeats(keys))
        labelled = self.layout.label is not None and len(keys) > 0
        columns = zip(self.layout.texts, counts.words, strict=True)
        return TableReport(
            name=self.name,
            file=str(self.path),
            layout=str(self.layout),
            whole=counts.error is None,
            rows=len(keys),
            dropped=counts.dropped,
            bad_rows=counts.bad_rows,
            first_bad_row=counts.first_bad_row,
            labels=_labels(counts.labels, self.task, int(keys["label"].is_not_null().sum()))
            if labelled and not self.task.is_score
            else None,
            scores=_scores(counts, self.task) if labelled and self.task.is_score else None,
            words={column: _words(words, max_words) for column, words in columns if len(words)},
            empty=counts.empty,
            edges=counts.edges,
            breaks=counts.breaks,
            characters=_characters(counts.characters),
            repeated=repeated,
            conflicts=conflicts,
            targets=counts.targets,
        )

    def with_texts(self, found: _Example, example: tuple[int, int] | None) -> _Example:
        """Add the texts of an example, whose second row is one of this table."""
        if example is None:
            return found
        texts = self.layout.texts
        for batch in self.layout.open(self.path, texts, "skip").batches():
            row = batch.filter(pl.col(ROW_NUMBER) == example[1])
            if len(row):
                return replace(found, shown=" | ".join(shown(row[0, name]) for name in texts))
        return found


def _repeats(keys: pl.DataFrame) -> tuple[Repeats, Repeats]:
    """Find the rows whose texts another row has, and those of them whose texts have several labels."""
    hashes = keys["exact"].sort()
    members = keys.filter(pl.col("exact").is_in(hashes.filter(hashes == hashes.shift()).implode()))
    if members.is_empty():
        return Repeats(), Repeats()
    label = pl.col("label").drop_nulls()
    groups = members.group_by("exact", maintain_order=True).agg(
        pl.len(), first=pl.col("row").first(), second=pl.col("row").get(1), several=label.n_unique() > 1
    )
    repeated = Repeats(len(groups), len(members) - len(groups), (groups[0, "first"], groups[0, "second"]))
    conflicts = groups.filter("several")
    if conflicts.is_empty():
        return repeated, Repeats()
    rows = members.filter((pl.col("exact") == conflicts[0, "exact"]) & pl.col("label").is_not_null())
    other = rows.filter(pl.col("label") != rows[0, "label"])
    example = (rows[0, "row"], other[0, "row"])
    return repeated, Repeats(len(conflicts), int(conflicts["len"].sum()), example)


def _overlap(first: _Table, second: _Table) -> Overlap:
    one, two = first.counts.keys, second.counts.keys
    # Equal texts have equal folded hashes: few rows of the first table are left.
    one = one.filter(pl.col("folded").is_in(two["folded"].implode()))
    alike = two.filter(pl.col("folded").is_in(one["folded"].implode()))
    exact = alike.filter(pl.col("exact").is_in(one["exact"].implode()))
    found = Common(len(exact), len(alike))
    if found.alike:
        key, row = ("exact", exact.row(0, named=True)) if found.rows else ("folded", alike.row(0, named=True))
        example = (one.filter(pl.col(key) == row[key])[0, "row"], row["row"])
        found = second.with_texts(replace(found, example=example), example)
    return Overlap(first.name, second.name, found.rows / max(len(two), 1), found)


def _words(counts: NDArray[np.int64], max_words: int) -> Words:
    """Describe lengths, given the number of texts of each length."""
    lengths = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    median, p95, p99 = np.quantile(lengths, [0.5, 0.95, 0.99]).tolist()
    longer = int(counts[max_words + 1 :].sum())
    return Words(int(lengths[0]), median, float(lengths.mean()), p95, p99, int(lengths[-1]), longer)


def _labels(counts: Mapping[str | None, Finding], task: Task, labelled: int) -> Labels:
    found = {label: finding for label, finding in counts.items() if label}
    spelling = spelling_of(pl.Series(list(found), dtype=pl.String), task)
    written = {label: name for name, label in spelling.items()}
    total = labelled or 1
    outside = sorted((label for label in found if label not in spelling), key=lambda label: -found[label].count)

    def count(written: str, label: str, name: str = "") -> LabelCount:
        number = found.get(written, Finding()).count
        return LabelCount(label, name, number, number / total)

    names = task.names or [""] * len(task.labels)
    return Labels(
        known=[count(written[label], label, name) for label, name in zip(task.labels, names, strict=True)],
        others=[count(label, label) for label in outside[:_MOST]],
        outside=sum((found[label] for label in outside), start=Finding()),
        missing=counts.get(None, Finding()),
        none=counts.get("", Finding()),
    )


def _scores(counts: TableCounts, task: Task) -> Scores:
    values = np.concatenate(counts.scores)
    low, high, mean = (values.min(), values.max(), values.mean()) if len(values) else (np.nan, np.nan, np.nan)
    limits = task.score_range or ((float(low), float(high)) if len(values) else (0.0, 1.0))
    histogram, edges = np.histogram(values, _BINS, limits)
    numbers = float(low), float(mean), float(high)
    found = counts.wrong, counts.first_wrong, counts.missing
    return Scores(*numbers, edges.tolist(), histogram.tolist(), *found)


def _characters(found: Mapping[str, Finding]) -> list[Character]:
    """List characters, the most frequent first."""
    return [
        Character(
            f"U+{ord(one):04X}", unicodedata.name(one, _CONTROLS.get(one, "control character")), of.count, of.first_row
        )
        for one, of in sorted(found.items(), key=lambda item: (-item[1].count, item[0]))
    ]
