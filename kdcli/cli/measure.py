"""What kd measures: ``kd eval`` scores a student, ``kd bench`` times it, ``kd report`` shows a run on one page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, RUN, Request, command, option
from kdcli.errors import UsageError

if TYPE_CHECKING:
    from kdcli.evaluate.bench import BenchReport, Ratio
    from kdcli.evaluate.evaluate import EvalReport, TableEvaluation
    from kdcli.tasks.statistics import Comparison, Difference, Evaluation

MOST_CLASSES = 12
"""Larger confusion matrices are shown with ``--json`` alone."""

OF_MODELS = ("agrees with the teacher", "mean confidence", "ECE")

Against = Annotated[
    Path | None, option(FILES, "--against", "Another student, or run: test whether they differ.", "FOLDER")
]
Split = Annotated[Literal["dev", "test"], option(FILES, "--split", "Split of the data folder.", default="dev")]

NOTE = (
    "From text to logits, warmed up, each model in a process of its own. Memory is the largest resident size of that "
    "process: Python, the libraries, the model, the texts."
)

Onnx = Annotated[Path | None, option(FILES, "--onnx", "The student as `kd export onnx` wrote it.", "FOLDER")]
Plot = Annotated[Path | None, option(FILES, "--plot", "Draw it: an .svg, .png or .pdf file.", "FILE")]
Seconds = Annotated[
    float, option(RUN, "--seconds", "Time for each batch size of each model; one call at least.", "SECONDS", "3", min=0)
]
Runs = Annotated[list[Path], typer.Argument(help="Run folders; one may be half done.", metavar="RUN")]


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
    ui.show(report, _evaluation)


def _evaluation(report: EvalReport) -> RenderableType:
    folders = ui.names_and_values(**report.models)
    note = "metrics x 100, with 95 % intervals of a bootstrap; ECE: 15 bins of equal width (Guo et al. 2017)"
    panels = [_table(name, table, report) for name, table in report.tables.items()]
    return Group(folders, *panels, Text(note, "dim"))


def _table(name: str, table: TableEvaluation, report: EvalReport) -> Panel:
    parts: list[RenderableType] = [_metrics(table, report.f1), Text(), _lengths(table, report)]
    if report.labels and len(report.labels) <= MOST_CLASSES:
        named = [f"{label} {name}".strip() for label, name in zip_longest(report.labels, report.names, fillvalue="")]
        for model, evaluation in table.models.items():
            parts += [Text(), _confusion(model, evaluation, named)]
    for comparison in table.comparisons:
        parts += [Text(), _comparison(comparison), *map(Text, _in_words(comparison))]
    return ui.panel(f"{name}: {table.rows:,} rows", *parts)


def _metrics(table: TableEvaluation, f1: str) -> Table:
    names = list(next(iter(table.models.values())).metrics)
    rows: dict[str, dict[str, object]] = {name: {} for name in (*names, *OF_MODELS)}
    for model, one in table.models.items():
        for name, measured in one.metrics.items():
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


@command(
    "kd bench --student runs/sst2",
    "kd bench --student runs/sst2/student --onnx student-onnx --plot bench.svg",
    options=("student", "teacher", "input", "force", "profile", "texts", "seed", "device", "precision", "offline"),
    required=("student",),
    about={"input": "Texts: .parquet .tsv .csv .jsonl .txt, also .gz."},
)
def bench(request: Request, *, onnx: Onnx = None, plot: Plot = None, seconds: Seconds = 3.0) -> None:
    """Time the student and the teacher.

    A run folder stands for its student, its teacher and its dev texts, and its report shows the figures. Without texts,
    those of the embedded sample are taken.
    """
    from kdcli.evaluate.bench import bench as run
    from kdcli.evaluate.bench import keep
    from kdcli.files import check_output
    from kdcli.models.device import resolve
    from kdcli.report import plots
    from kdcli.run.paths import own_teacher, profile_of

    student = request.student
    assert student is not None
    if plot is not None:
        plots.check_plot(plot)
        check_output(plot, [student, *filter(None, [request.input])], force=request.force)
    own = profile_of(student)
    settings = request.load_for_model(own)
    with ui.reporting("bench") as reporter:
        report = run(
            student=student,
            teacher=request.teacher or own_teacher(student),
            onnx=onnx,
            settings=settings,
            profiled=bool(request.profile or own),
            table=request.input,
            device=resolve(settings.device),
            seconds=seconds,
            seed=settings.seed,
            reporter=reporter,
        )
    if (kept := keep(report, student)) is not None:
        ui.info(f"{kept} is written: `kd report {student}` shows it")
    if plot is not None:
        plots.bench(report, plot)
    ui.show(report, lambda _: _timing(report, plot))


def _timing(report: BenchReport, plot: Path | None) -> RenderableType:
    speeds = [
        {
            "model": model.name,
            **{f"sentences/s, batch {batch}": _number(value) for batch, value in model.per_second.items()},
            **{f"{name} ms": _number(getattr(model.latency, name)) for name in ("p50", "p95", "p99")},
        }
        for model in report.models
    ]
    sizes = [
        {
            "model": model.name,
            "parameters": model.parameters or None,
            "without embeddings": model.parameters_without_embeddings if model.parameters else None,
            "MB on disk": f"{model.megabytes:.1f}" if model.megabytes else None,
            "peak MB": round(model.peak_megabytes),
            "ready after s": f"{model.load_seconds:.2f}",
            **({"peak MB on the GPU": round(model.gpu_peak_megabytes)} if model.gpu_peak_megabytes is not None else {}),
        }
        for model in report.models
    ]
    parts: list[RenderableType] = [ui.records(speeds), Text(), ui.records(sizes)]
    if report.ratios:
        parts += [Text(), ui.records([_ratio(name, one) for name, one in report.ratios.items()])]
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    parts += [Text(), Text(f"{report.texts:,} texts of {report.source}, {report.words:.1f} words each; {machine}")]
    parts += [Text(f"plot: {plot}")] if plot else []
    return Group(*parts, Text(NOTE, "dim"))


def _ratio(name: str, one: Ratio) -> dict[str, object]:
    values = {
        **{f"faster, batch {batch}": value for batch, value in one.per_second.items()},
        "shorter latency": one.latency,
        "fewer parameters": one.parameters,
        "smaller on disk": one.megabytes,
        "less memory": one.peak_megabytes,
    }
    times = {column: None if value is None else f"{_number(value)}x" for column, value in values.items()}
    return {"against the teacher": name, **times}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@command(
    "kd report runs/sst2",
    "kd report runs/sst2 runs/sst2-heavy --output sst2.html",
    options=("output", "force"),
    about={"output": "The page: an .html file.|RUN/report.html"},
)
def report(request: Request, *, runs: Runs) -> None:
    """Write one HTML page.

    Several runs are compared on one page, by default report.html. A page of kd's own is replaced without --force,
    another file is not.
    """
    from kdcli.report.page import write_report

    with ui.reporting("report") as reporter:
        written = write_report(runs, output=request.output, force=request.force, reporter=reporter)
    ui.show(written)
