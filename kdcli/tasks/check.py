"""``kd data check``: what the tables of a task are like, and whether a profile can run on them.

A table is read once. Of each row some numbers stay in memory (hashes, lengths, the label), and no text; all statistics
are those of these numbers.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, KdError
from kdcli.tables import SEPARATOR
from kdcli.tables.read import ROW_NUMBER, as_texts
from kdcli.tasks import check_report, split as splits
from kdcli.tasks.check_report import DataReport, Finding, Repeats
from kdcli.tasks.detect import detect
from kdcli.tasks.labels import LabelColumn, in_order, parse_scores, spelling_of

NON_PRINTING = (
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{a0}\x{ad}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}\x{feff}\x{fffd}]"
)
"""Controls but for TAB, LF and CR, no-break and zero-width ones, those of direction, and the replacement character."""
_ODD = rf"[\s&&[^ ]]|{NON_PRINTING}|  |^ |^$"
"""Texts but those of words with single spaces between them, and perhaps one at the end."""
_FACTORS = np.array([1, 0x9E3779B97F4A7C15], np.uint64)
"""Of the hashes of a pair's texts in their sum, so that their order counts."""
_THREADS = 2
_MOST = 20


def check_data(settings: TaskSettings, task: Task, reporter: Reporter, *, max_words: int = 128) -> DataReport:
    """Read all tables of a task, describe them, and find their problems: all errors that there are.

    ``max_words`` is the longest text that the student reads whole, in words. Only a data folder that is not there
    (``DataError``), or a layout that does not exist (``ProfileError``), is raised.
    """
    errors: list[KdError] = []
    tables: list[_Table] = []
    for split in splits.SPLITS:
        files = splits.split_files(settings, split)
        # A task that another's student predicts needs nothing but texts to predict.
        if not files and (split == "test") == bool(settings.student_of):
            errors.append(splits.missing_split(settings, split))
        for path in files:
            try:
                tables.append(_Table(path, split, settings, task, reporter))
            except DataError as error:
                errors.append(error)
    for table in tables:
        errors += [table.error] if table.error else []
        if table.labelled and table.layout.label is None:
            errors.append(splits.missing_label_column(table.path, settings))
    reports = [table.report(max_words) for table in tables]
    overlaps = [_overlap(first, second) for first, second in combinations(tables, 2) if first.split != second.split]
    problems = [check_report.Problem("error", one.what, one.hint, one.file, one.row, one.key) for one in errors]
    problems += check_report.find_problems(reports, overlaps, settings, task, max_words)
    problems.sort(key=lambda problem: problem.level)
    fit = all(problem.level != "error" for problem in problems)
    return DataReport(task.name, settings.data_dir, fit, max_words, reports, overlaps, problems)


class _Table:
    """The numbers of a table.

    ``rows`` hold of each row its number ``row``, a hash ``exact`` of its texts, a hash ``folded`` that ignores case and
    white space, the words of each text (``words 0``, ``words 1``), and its ``label``: the score, or the label as the
    table writes it; null where there is none. ``odd`` are the texts that are empty, begin or end with white space, or
    have a tab, a line end or a character that does not print. ``wrong`` are the scores that are none. After an
    ``error`` all are of the rows before it.
    """

    def __init__(self, path: Path, split: splits.Split, settings: TaskSettings, task: Task, reporter: Reporter) -> None:
        """Read a table; of a test table no row is dropped, and -1 is no label."""
        self.path, self.split, self.task = path, split, task
        self.name = splits.table_name(path, split)
        self.labelled = split != "test"
        self.layout = detect(path, settings, task)
        self.error: DataError | None = None
        reporter.info(f"{path.name}: {self.layout}")
        texts, label = list(self.layout.texts), self.layout.label
        labels = LabelColumn(path, label, task, reporter, labelled=self.labelled, drop=settings.drop_labels)
        # Only the predictions of a test table need an index.
        index = None if self.labelled else self.layout.index
        nothing = pl.DataFrame(schema={**dict.fromkeys(texts, pl.String), ROW_NUMBER: pl.Int64})
        found = [_numbers(nothing, texts, pl.Series([], dtype=pl.String), task)]
        reader = self.layout.open(path, [*texts, *filter(None, [label, index])], "skip")
        waiting: deque[Future[tuple[pl.DataFrame, dict[str, Finding], pl.DataFrame]]] = deque()
        # Polars and NumPy do not hold the interpreter's lock: threads look at texts while the next ones are read.
        with ThreadPoolExecutor(_THREADS) as threads, reporter.progress(path.name) as progress:
            try:
                for batch in reader.batches():
                    if index is not None:
                        splits.index_texts(batch[index], path)
                    kept, of_kept = labels.read(as_texts(batch, texts, path))
                    waiting.append(threads.submit(_numbers, kept, texts, of_kept, task))
                    if len(waiting) > _THREADS:
                        found.append(waiting.popleft().result())
                    progress.advance(len(kept))
            except DataError as error:
                self.error = error
            found += [each.result() for each in waiting]
        for note in reader.notes:
            reporter.info(f"{path.name}: {note}")
        self.dropped, self.bad = labels.dropped, reader.bad
        rows, odd, wrong = zip(*found, strict=True)
        self.rows, self.wrong = pl.concat(rows), pl.concat(wrong)
        self.odd = {kind: sum((one[kind] for one in odd), start=Finding()) for kind in odd[0]}

    def report(self, max_words: int) -> check_report.TableReport:
        """Describe the table."""
        rows, words = self.rows, pl.col("^words .*$")
        labelled = self.layout.label is not None and len(rows) > 0
        lengths = zip(self.layout.texts, rows.select(words), strict=True)
        worded = rows.filter(pl.all_horizontal(words > 0))
        repeated, conflicts = _repeats(worded)
        return check_report.TableReport(
            name=self.name,
            file=str(self.path),
            layout=str(self.layout),
            whole=self.error is None,
            rows=len(rows),
            dropped=dict(self.dropped),
            bad_rows=self.bad.count,
            first_bad_row=self.bad.first,
            labels=_labels(rows, self.task) if labelled and not self.task.is_score else None,
            scores=_scores(rows, self.wrong) if labelled and self.task.is_score else None,
            words={name: _words(of_text, max_words) for name, of_text in lengths if len(rows)},
            **self.odd,
            repeated=repeated,
            conflicts=conflicts,
            targets=worded["label"].drop_nulls().n_unique(),
        )


def _numbers(
    batch: pl.DataFrame, texts: list[str], label: pl.Series, task: Task
) -> tuple[pl.DataFrame, dict[str, Finding], pl.DataFrame]:
    """Return the numbers of a batch: its rows, its odd texts, and the scores that are none."""
    row, text, normal = batch[ROW_NUMBER].alias("row"), pl.col("text"), pl.col("normal")
    every = pl.concat([pl.DataFrame([row, batch[name].alias("text")]) for name in texts], rechunk=True)
    seen = every.select(
        text.hash().alias("exact"),
        folded=text.str.strip_suffix(" ").str.to_lowercase().hash(),
        odd=text.str.contains(_ODD),
        edges=text.str.ends_with(" "),
        # Right where a text is not odd; as a pattern, a space is found faster than as a literal.
        words=1 + text.str.count_matches(" ") - text.str.ends_with(" ").cast(pl.UInt32),
    )
    places = seen["odd"].arg_true()
    odd = every[places].with_columns(normal=text.str.replace_all(f"{splits.SPACE}+", " ").str.strip_chars(" "))
    odd = odd.select(
        "row",
        folded=normal.str.to_lowercase().hash(),
        words=pl.when(normal == "").then(0).otherwise(normal.str.count_matches(" ", literal=True) + 1),
        empty=text == "",
        edges=text.str.contains(f"^{splits.SPACE}|{splits.SPACE}$"),
        breaks=text.str.contains(r"[\t\n\r]"),
        characters=text.str.contains(NON_PRINTING),
    )
    counts = {kind: _finding(odd.filter(kind)) for kind in ("empty", "edges", "breaks", "characters")}
    counts["edges"] += _finding(every.filter(seen["edges"] & ~seen["odd"]))
    both = seen["exact"], seen["folded"].scatter(places, odd["folded"])
    hashes = [pl.Series(of.name, _FACTORS[: len(texts)] @ of.to_numpy().reshape(len(texts), -1)) for of in both]
    words = seen["words"].scatter(places, odd["words"])
    of_text = [words.slice(number * len(batch), len(batch)).alias(f"words {number}") for number in range(len(texts))]
    wrong = pl.DataFrame([row, label.alias("label")])
    if task.is_score:
        scores, no_score = parse_scores(label, task)
        wrong = wrong.filter(pl.Series(no_score) & label.is_not_null())
        label = pl.Series(scores, dtype=pl.Float64).set(pl.Series(no_score), None)
    else:
        wrong = wrong.clear()
        label = (in_order(label) if task.multi_label else label).cast(pl.Categorical)
    return pl.DataFrame([row, *hashes, label.alias("label"), *of_text]), counts, wrong


def _finding(found: pl.DataFrame) -> Finding:
    """Return how many rows a frame has, and the first of them."""
    return Finding(len(found), found.select(pl.col("row").min()).item())


def _repeats(rows: pl.DataFrame) -> tuple[Repeats, Repeats]:
    """Find the rows whose texts another row has, and those of them whose label is not the same in all these rows."""
    hashes = rows["exact"].sort()
    members = rows.filter(pl.col("exact").is_in(hashes.filter(hashes == hashes.shift()).implode()))
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
    found = members.filter((pl.col("exact") == conflicts[0, "exact"]) & pl.col("label").is_not_null())
    other = found.filter(pl.col("label") != found["label"].first())
    example = (found[0, "row"], other[0, "row"])
    return repeated, Repeats(len(conflicts), int(conflicts["len"].sum()), example)


def _overlap(first: _Table, second: _Table) -> check_report.Overlap:
    one, two = first.rows, second.rows
    # Equal texts have equal folded hashes: few rows of the first table are left.
    one = one.filter(pl.col("folded").is_in(two["folded"].implode()))
    alike = two.filter(pl.col("folded").is_in(one["folded"].implode()))
    exact = alike.filter(pl.col("exact").is_in(one["exact"].implode()))
    example = None
    if len(alike):
        key, row = ("exact", exact.row(0, named=True)) if len(exact) else ("folded", alike.row(0, named=True))
        example = (one.filter(pl.col(key) == row[key])[0, "row"], row["row"])
    return check_report.Overlap(first.name, second.name, len(exact), len(alike), len(exact) / max(len(two), 1), example)


def _words(words: pl.Series, max_words: int) -> check_report.Words:
    low, median, p95, p99, high = np.quantile(words, [0, 0.5, 0.95, 0.99, 1]).tolist()
    mean, longer = float(words.to_numpy().mean()), int((words > max_words).sum())
    return check_report.Words(int(low), median, mean, p95, p99, int(high), longer)


def _labels(rows: pl.DataFrame, task: Task) -> check_report.Labels:
    counts: dict[str | None, Finding] = {}
    for label, *finding in rows.group_by("label", maintain_order=True).agg(pl.len(), pl.col("row").min()).iter_rows():
        for one in label.split(SEPARATOR) if label and task.multi_label else [label]:
            counts[one] = counts.get(one, Finding()) + Finding(*finding)
    found = {label: finding for label, finding in counts.items() if label}
    spelling = spelling_of(pl.Series(list(found), dtype=pl.String), task)
    written = {label: name for name, label in spelling.items()}
    total = int(rows["label"].is_not_null().sum()) or 1
    outside = sorted((label for label in found if label not in spelling), key=lambda label: -found[label].count)

    def count(written: str, label: str, name: str = "") -> check_report.LabelCount:
        number = found.get(written, Finding()).count
        return check_report.LabelCount(label, name, number, number / total)

    names = task.names or [""] * len(task.labels)
    return check_report.Labels(
        known=[count(written[label], label, name) for label, name in zip(task.labels, names, strict=True)],
        others=[count(label, label) for label in outside[:_MOST]],
        outside=sum((found[label] for label in outside), start=Finding()),
        missing=counts.get(None, Finding()),
        none=counts.get("", Finding()),
    )


def _scores(rows: pl.DataFrame, wrong: pl.DataFrame) -> check_report.Scores:
    values = rows["label"].drop_nulls().to_numpy()
    low, mean, high = (values.min(), values.mean(), values.max()) if len(values) else (np.nan, np.nan, np.nan)
    missing = rows.filter(pl.col("label").is_null() & ~pl.col("row").is_in(wrong["row"].implode()))
    first_wrong = str(wrong[0, "label"]) if len(wrong) else ""
    return check_report.Scores(float(low), float(mean), float(high), _finding(wrong), first_wrong, _finding(missing))
