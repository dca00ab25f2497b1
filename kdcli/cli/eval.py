"""``kd eval``: how good a student is, how sure that is, and whether it is better than another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kdcli.cli import flags, ui
from kdcli.errors import UsageError

if TYPE_CHECKING:
    from kdcli.evaluate.evaluate import EvalReport, TableEvaluation
    from kdcli.tasks.statistics import Evaluation
    from kdcli.tasks.statistics import Comparison, Difference

app = typer.Typer()

MOST_CLASSES = 12
"""Larger confusion matrices are shown with ``--json`` alone."""


@app.command(
    "eval",
    epilog=flags.example(
        "kd eval --student runs/sst2",
        "kd eval --student runs/sst2/student --against runs/sst2/baseline --profile sst2 --data-dir data/SST-2",
        "kd eval --student runs/sst2/student --input mine.tsv --json",
    ),
)
def eval_(
    student: flags.StudentOrRun,
    teacher: flags.TeacherOrRun = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            help="Another student's folder, or run: tests whether they differ.",
            show_default=False,
            rich_help_panel=flags.FILES,
        ),
    ] = None,
    input_: flags.MaybeInput = None,
    split: Annotated[
        Literal["dev", "test"],
        typer.Option("--split", help="Tables of the data folder to evaluate on.", rich_help_panel=flags.FILES),
    ] = "dev",
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    label_col: flags.LabelCol = None,
    seed: flags.Seed = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    offline: flags.Offline = False,
) -> None:
    """Score a student on labelled texts: metrics with 95 % intervals, confusion, calibration, by length of the texts.

    Beside a teacher: their agreement. Against another student: a paired significance test. A run folder stands for its
    student, its teacher and its profile.
    """
    from kdcli.evaluate.evaluate import evaluate_models
    from kdcli.models.device import resolve
    from kdcli.run.places import own_teacher

    named = profile or (flags.own_profile(student) if input_ is None or data_dir is not None else None)
    if named is None and input_ is None:
        hint = "add --input TABLE, --profile NAME with --data-dir FOLDER, or name a run folder"
        raise UsageError("eval needs labelled texts", hint=hint)
    values = {**flags.tables(data_dir, text_col, text2_col, label_col), "seed": seed}
    settings = flags.load_for_model(named, set_, {**values, "device": device, "precision": precision})
    with ui.reporting("eval") as reporter:
        report = evaluate_models(
            student=student,
            teacher=teacher or own_teacher(student),
            against=against,
            settings=settings,
            profiled=named is not None,
            table=input_,
            split=split,
            device=resolve(settings.device),
            seed=settings.seed,
            reporter=reporter,
        )
    ui.show(report, _described)


def _described(report: EvalReport) -> RenderableType:
    places = ui.columns("", "")
    places.show_header = False
    for name, place in report.models.items():
        places.add_row(Text(name, "bold"), Text(place))
    note = "metrics x 100, with 95 % intervals of a bootstrap; ECE: 15 bins of equal width (Guo et al. 2017)"
    panels = [_table(name, table, report) for name, table in report.tables.items()]
    return Group(places, *panels, Text(note, "dim"))


def _table(name: str, table: TableEvaluation, report: EvalReport) -> Panel:
    parts: list[RenderableType] = [_metrics(table, report.metric), Text(), _lengths(table, report.metric)]
    if report.labels and len(report.labels) <= MOST_CLASSES:
        labels = [f"{label} {name}" for label, name in zip(report.labels, report.names, strict=True)]
        for model, evaluation in table.models.items():
            parts += [Text(), _confusion(model, evaluation, labels or list(report.labels))]
    for comparison in table.comparisons:
        parts += [Text(), _comparison(comparison), *map(Text, _in_words(comparison))]
    return Panel(Group(*parts), title=f"{name}: {table.rows:,} rows", title_align="left", expand=False)


def _metrics(table: TableEvaluation, metric: str) -> Table:
    shown = ui.columns("", *table.models, numbers=len(table.models))
    evaluations = list(table.models.values())
    for name in evaluations[0].metrics:
        measured = [one.metrics[name] for one in evaluations]
        cells = [f"{_percent(one.value)} ({_percent(one.low)} to {_percent(one.high)})" for one in measured]
        shown.add_row(Text(name, "bold" if name == metric else "dim"), *cells)
    if any(one.agreement is not None for one in evaluations):
        agreed = [None if one.agreement is None else one.agreement for one in evaluations]
        shown.add_row(Text("agrees with the teacher", "dim"), *map(_percent, agreed))
    if all(one.calibration for one in evaluations):
        found = [one.calibration for one in evaluations if one.calibration]
        shown.add_row(Text("mean confidence", "dim"), *(_percent(one.confidence) for one in found))
        shown.add_row(Text("ECE", "dim"), *(_percent(one.ece) for one in found))
    return shown


def _lengths(table: TableEvaluation, metric: str) -> Table:
    shown = ui.columns("words", "rows", *(f"{name} {metric}" for name in table.models), numbers=1 + len(table.models))
    for bins in zip(*(one.lengths for one in table.models.values()), strict=True):
        words = f"{bins[0].shortest:,} to {bins[0].longest:,}"
        shown.add_row(Text(words, "dim"), f"{bins[0].rows:,}", *(_percent(one.metrics[metric]) for one in bins))
    return shown


def _confusion(model: str, evaluation: Evaluation, labels: list[str]) -> Table:
    shown = ui.columns(f"{model}: label", *(f"answer {label}" for label in labels), numbers=len(labels))
    for label, counts in zip(labels, evaluation.confusion or [], strict=True):
        shown.add_row(Text(label, "dim"), *(f"{count:,}" for count in counts))
    return shown


def _comparison(comparison: Comparison) -> Table:
    shown = ui.columns(f"{comparison.first} - {comparison.second}", "difference", "p", "test", numbers=2)
    shown.columns[1].justify = "right"
    shown.columns[3].justify = "left"
    for name, one in comparison.metrics.items():
        span = f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
        shown.add_row(Text(name, "dim"), span, _p(one.p), one.test)
    return shown


def _in_words(comparison: Comparison) -> Iterator[str]:
    from kdcli.tasks.statistics import LEVEL

    first, second = comparison.first, comparison.second
    if comparison.only_first_right is not None:
        yield (
            f"{comparison.only_first_right:,} rows are right in {first} alone, "
            f"{comparison.only_second_right:,} in {second} alone."
        )
    sure = [name for name, one in comparison.metrics.items() if one.p < LEVEL]
    for name in sure:
        yield f"{name}: {_better(comparison.metrics[name], first, second)}"
    if len(sure) < len(comparison.metrics):
        unsure = ", ".join(name for name in comparison.metrics if name not in sure)
        yield f"{unsure}: these rows do not show that either is better (p at least {LEVEL:g}); more rows might."


def _better(difference: Difference, first: str, second: str) -> str:
    better = first if difference.difference > 0 else second
    chance = f"{100 * difference.p:.1f} %" if difference.p >= 0.001 else "less than 0.1 %"
    return f"{better} is better: were they equally good, chance would make such a difference in {chance} of cases."


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
