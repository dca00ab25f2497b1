"""``kd data check``: the tables of a task in numbers, and whether a profile can run on them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import Request, command
from kdcli.errors import DataError

if TYPE_CHECKING:
    from kdcli.tasks.check_report import DataReport, TableReport

STYLES = {"error": "bold red", "warning": "yellow"}
SELDOM = (
    *("rows dropped for their labels", "rows that cannot be read", "rows with other labels"),
    *("with white space at an end", "with a tab or a line end", "non-printing characters"),
)
"""Shown only where they occur."""


@command(
    "kd data check --profile sst2 --data-dir data/SST-2",
    "kd data check --profile custom --data-dir data --text-col review --label-col stars",
    options=("profile", "task"),
)
def check(request: Request) -> None:
    """Describe a task's tables.

    The exit code is 4 if the profile cannot run on them; all reasons are reported at once.
    """
    from kdcli.tasks.check import check_data
    from kdcli.tasks.task import task_from

    settings = request.load("demo", uses=()).settings
    with ui.reporting("kd data check") as reporter:
        report = check_data(settings.task, task_from(settings.task), reporter, max_words=settings.student.max_length)
    ui.show(report, _described)
    if not report.fit:
        raise typer.Exit(DataError.exit_code)


def _described(report: DataReport) -> RenderableType:
    parts: list[RenderableType] = []
    if report.tables:
        parts.append(ui.panel(report.task, _files(report), Text(), _statistics(report)))
    if report.overlaps:
        parts.append(ui.panel("texts that two tables share", _overlaps(report)))
    if report.problems:
        parts.append(_problems(report))
    errors = sum(problem.level == "error" for problem in report.problems)
    last = f"the profile cannot run on these tables: {errors} error{'s' * (errors > 1)}"
    parts.append(Text("the profile can run on these tables", "green") if report.fit else Text(last, STYLES["error"]))
    return Group(*parts)


def _files(report: DataReport) -> Table:
    table = ui.columns("", "", "")
    table.show_header = False
    for each in report.tables:
        broken = "" if each.whole else "; read in part"
        table.add_row(Text(each.name, "bold"), Text(each.file), Text(each.layout + broken, "dim"))
    return table


def _statistics(report: DataReport) -> Table:
    table = ui.columns("", *(each.name for each in report.tables), numbers=len(report.tables))
    values = [_values(each, report.max_words) for each in report.tables]
    for name in dict.fromkeys(name for of_table in values for name in of_table):
        row = [of_table.get(name, "") for of_table in values]
        if name not in SELDOM or set(row) - {"0", ""}:
            table.add_row(Text(name, "dim"), *map(Text, row))
    return table


def _values(table: TableReport, max_words: int) -> dict[str, str]:
    """Return the statistics of a table, by name."""
    numbers = {
        "rows": table.rows,
        "rows dropped for their labels": sum(table.dropped.values()),
        "rows that cannot be read": table.bad_rows,
    }
    texts = {
        f"longer than {max_words} words": sum(words.longer for words in table.words.values()),
        "empty": table.empty.count,
        "with white space at an end": table.edges.count,
        "with a tab or a line end": table.breaks.count,
        "non-printing characters": sum(one.count for one in table.characters),
        "rows that repeat a text": table.repeated.rows,
        "texts with several labels": table.conflicts.texts,
    }
    described = {**_labels(table), **_scores(table), **_words(table)}
    return {**_numbers(numbers), **described, **_numbers(texts)}


def _labels(table: TableReport) -> dict[str, str]:
    if table.labels is None:
        return {}
    shown = {
        f"label {one.label}{f' ({one.name})' if one.name else ''}": f"{one.count:,}  {one.share:6.1%}"
        for one in table.labels.known
    }
    return shown | {"rows with other labels": f"{table.labels.outside.count:,}"}


def _scores(table: TableReport) -> dict[str, str]:
    scores = table.scores
    if scores is None:
        return {}
    shown = {"scores": f"{scores.min:g} to {scores.max:g}", "scores: mean": f"{scores.mean:.3g}"}
    bins = zip(pairwise(scores.edges), scores.histogram, strict=True)
    return shown | {f"scores from {low:.3g} to {high:.3g}": f"{count:,}" for (low, high), count in bins}


def _words(table: TableReport) -> dict[str, str]:
    shown = {}
    for column, words in table.words.items():
        shown[f"{column}: words"] = f"{words.min:,} to {words.max:,}"
        shown[f"{column}: median, mean"] = f"{words.median:g}, {words.mean:.1f}"
        shown[f"{column}: 95 %, 99 % have at most"] = f"{words.p95:.0f}, {words.p99:.0f}"
    return shown


def _numbers(values: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{value:,}" for name, value in values.items()}


def _overlaps(report: DataReport) -> Table:
    table = ui.columns("rows of", "with texts of", "rows", "share", "but for case and space", numbers=3)
    for each in report.overlaps:
        found = each.found
        table.add_row(each.second, each.first, f"{found.rows:,}", f"{each.share:.1%}", f"{found.alike:,}")
    return table


def _problems(report: DataReport) -> Table:
    table = ui.columns("", "", "")
    table.show_header = False
    for each in report.problems:
        place = Path(each.file).name if each.file else each.key or ""
        row = "" if each.row is None else f", row {each.row:,}"
        table.add_row(Text(each.level, STYLES[each.level]), Text(place, "bold"), Text(each.what + row))
        if each.hint:
            table.add_row("", "", Text(f"hint: {each.hint}", "cyan"))
    return table
