"""``kd eval``: the scores of a student, their intervals, and whether it is better than another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, Request, command, option
from kdcli.errors import UsageError

if TYPE_CHECKING:
    from kdcli.evaluate.evaluate import EvalReport, TableEvaluation
    from kdcli.tasks.statistics import Comparison, Difference, Evaluation

MOST_CLASSES = 12
"""Larger confusion matrices are shown with ``--json`` alone."""

OF_MODELS = ("agrees with the teacher", "mean confidence", "ECE")

Against = Annotated[
    Path | None, option(FILES, "--against", "Another student, or run: test whether they differ.", "FOLDER")
]
Split = Annotated[Literal["dev", "test"], option(FILES, "--split", "Split of the data folder.", default="dev")]


@command(
    "kd eval --student runs/sst2",
    "kd eval --student runs/sst2/student --against runs/sst2/baseline --profile sst2 --data-dir data/SST-2",
    "kd eval --student runs/sst2/student --input mine.tsv --json",
    options=("student", "teacher", "input", "profile", "task", "seed", "device", "precision", "offline"),
    required=("student",),
    about={"input": "Labelled texts: .parquet .tsv .csv .jsonl, also .gz."},
)
def eval_(request: Request, *, against: Against = None, split: Split = "dev") -> None:
    """Score a student on labelled texts.

    Beside a teacher: their agreement. Against another student: a paired significance test. A run folder stands for its
    student, its teacher and its profile.
    """
    from kdcli.evaluate.evaluate import evaluate_models
    from kdcli.models.device import resolve
    from kdcli.run.paths import own_teacher, profile_of

    student, table = request.student, request.input
    assert student is not None
    own = profile_of(student) if table is None or request.flags["task.data_dir"] is not None else None
    profiled = bool(request.profile or own)
    if not profiled and table is None:
        hint = "add --input TABLE, --profile NAME with --data-dir FOLDER, or name a run folder"
        raise UsageError("eval needs labelled texts", hint=hint)
    settings = request.load_for_model(own)
    with ui.reporting("eval") as reporter:
        report = evaluate_models(
            student=student,
            teacher=request.teacher or own_teacher(student),
            against=against,
            settings=settings,
            profiled=profiled,
            table=table,
            split=split,
            device=resolve(settings.device),
            seed=settings.seed,
            reporter=reporter,
        )
    ui.show(report, report_view)


def report_view(report: EvalReport) -> RenderableType:
    """Show all scores of all tables."""
    folders = ui.names_and_values(**report.models)
    note = "metrics x 100, with 95 % intervals of a bootstrap; ECE: 15 bins of equal width (Guo et al. 2017)"
    panels = [_table(name, table, report) for name, table in report.tables.items()]
    return Group(folders, *panels, Text(note, "dim"))


def _table(name: str, table: TableEvaluation, report: EvalReport) -> Panel:
    parts: list[RenderableType] = [_metrics(table, report.f1), Text(), _lengths(table, report)]
    if all(one.labels and (one.confusion is None or name == "teacher") for name, one in table.models.items()):
        parts += [Text(), _labels(table)]
    if report.labels and len(report.labels) <= MOST_CLASSES:
        named = [f"{label} {name}".strip() for label, name in zip_longest(report.labels, report.names, fillvalue="")]
        for model, evaluation in table.models.items():
            parts += [Text(), _confusion(model, evaluation, named)] if evaluation.confusion else []
    for comparison in table.comparisons:
        parts += [Text(), _comparison(comparison), *map(Text, _in_words(comparison))]
    share = table.unanswered / (table.rows + table.unanswered)
    without = f", {table.unanswered:,} ({share:.1%}) without an answer are left out" if table.unanswered else ""
    return ui.panel(f"{name}: {table.rows:,} rows{without}", *parts)


def _metrics(table: TableEvaluation, f1: str) -> Table:
    names = list(next(iter(table.models.values())).metrics)
    if f1 == "macro f1":  # of more than two classes the two are one
        names.remove("macro_f1")
    rows: dict[str, dict[str, object]] = {name: {} for name in (*names, *OF_MODELS)}
    for model, one in table.models.items():
        for name in names:
            measured = one.metrics[name]
            low, high = _percent(measured.low), _percent(measured.high)
            rows[name][model] = f"{_percent(measured.value)} ({low} to {high})"
        found = (one.agreement, *((one.calibration.confidence, one.calibration.ece) if one.calibration else ()))
        for name, value in zip(OF_MODELS, found, strict=False):
            if value is not None:
                rows[name][model] = _percent(value)
    return ui.records([{"metric": f1 if name == "f1" else name, **row} for name, row in rows.items() if row])


def _lengths(table: TableEvaluation, report: EvalReport) -> Table:
    metric = report.metric
    title = report.f1 if metric == "f1" else metric
    rows = [
        {
            "words": f"{bins[0].shortest:,} to {bins[0].longest:,}",
            "rows": bins[0].rows,
            **{f"{name} {title}": _percent(one.metrics[metric]) for name, one in zip(table.models, bins, strict=True)},
        }
        for bins in zip(*(one.lengths for one in table.models.values()), strict=True)
    ]
    return ui.records(rows)


def _confusion(model: str, evaluation: Evaluation, labels: list[str]) -> Table:
    answers = [f"answer {label}" for label in labels]
    rows = zip(labels, evaluation.confusion or [], strict=True)
    return ui.records([{f"{model}: label": label, **dict(zip(answers, row, strict=True))} for label, row in rows])


def _labels(table: TableEvaluation) -> Table:
    """Show the F1 of each label, of one model precision and recall too; and the threshold of a multi-label model."""
    rows = []
    for found in zip(*(one.labels or [] for one in table.models.values()), strict=True):
        row: dict[str, object] = {"label": found[0].label, "rows": found[0].rows}
        for (name, model), one in zip(table.models.items(), found, strict=True):
            if len(found) == 1:
                row |= {"precision": _percent(one.precision), "recall": _percent(one.recall)}
            above = f" (above {one.threshold:.2f})" if model.confusion is None else ""
            row[f"{name} F1"] = f"{_percent(one.f1)}{above}"
        rows.append(row)
    return ui.records(rows)


def _comparison(comparison: Comparison) -> Table:
    rows = [
        {
            f"{comparison.first} - {comparison.second}": name,
            "difference": f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})",
            "p": "< 0.001" if one.p < 0.001 else f"{one.p:.3f}",
            "test": one.test,
        }
        for name, one in comparison.metrics.items()
    ]
    return ui.records(rows)


def _in_words(comparison: Comparison) -> Iterator[str]:
    from kdcli.tasks.statistics import LEVEL

    first, second = comparison.first, comparison.second
    if (only := comparison.only_first_right) is not None:
        yield f"{only:,} rows are right in {first} alone, {comparison.only_second_right:,} in {second} alone."
    sure = {name: one for name, one in comparison.metrics.items() if one.p < LEVEL}
    yield from (f"{name}: {_better(one, first, second)}" for name, one in sure.items())
    if unsure := ", ".join(name for name in comparison.metrics if name not in sure):
        yield f"{unsure}: these rows do not show that either is better (p at least {LEVEL:g}); more rows might."


def _better(difference: Difference, first: str, second: str) -> str:
    better = first if difference.difference > 0 else second
    chance = f"{100 * difference.p:.1f} %" if difference.p >= 0.001 else "less than 0.1 %"
    return f"{better} is better: were they equally good, chance would make such a difference in {chance} of cases."


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
