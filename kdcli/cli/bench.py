"""``kd bench``: the speed, size and memory of a student, beside its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, RUN, Request, command, option

if TYPE_CHECKING:
    from kdcli.evaluate.bench import BenchReport
    from kdcli.evaluate.measure import Measurement

NOTE = (
    "From text to logits, warmed up, each model in a process of its own. Memory is the largest resident size of that "
    "process: Python, the libraries, the model, the texts."
)

Onnx = Annotated[
    Path | None, option(FILES, "--onnx", help="The student as `kd export onnx` wrote it.", metavar="FOLDER")
]
Plot = Annotated[Path | None, option(FILES, "--plot", help="Draw it: an .svg, .png or .pdf file.", metavar="FILE")]
Seconds = Annotated[
    float,
    option(
        RUN,
        "--seconds",
        help="Seconds that each batch size of each model is timed; one call at least.",
        default="3",
        min=0,
        metavar="SECONDS",
    ),
]


@command(
    "kd bench --student runs/sst2",
    "kd bench --student runs/sst2/student --onnx student-onnx --plot bench.svg",
    options=("student", "teacher", "input", "force", "profile", "texts", "seed", "device", "precision", "offline"),
    required=("student",),
)
def bench(request: Request, *, onnx: Onnx = None, plot: Plot = None, seconds: Seconds = 3.0) -> None:
    """Time the student and the teacher.

    A run folder stands for its student, its teacher and its dev texts, and its report shows the figures. Without texts,
    those of the embedded sample are taken.
    """
    from kdcli.evaluate.bench import bench as run
    from kdcli.evaluate.bench import check_plot, keep
    from kdcli.evaluate.bench import plot as draw
    from kdcli.models.device import resolve
    from kdcli.run.paths import own_teacher, profile_of

    student = request.student
    assert student is not None
    if plot is not None:
        check_plot(plot)
        ui.refuse_existing(plot, request.force)
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
        draw(report, plot)
    ui.show(report, lambda _: _described(report, plot))


def _described(report: BenchReport, plot: Path | None) -> RenderableType:
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    parts: list[RenderableType] = [_speeds(report), Text(), _sizes(report)]
    if report.ratios:
        parts += [Text(), _ratios(report)]
    parts += [Text(), Text(f"{report.texts:,} texts of {report.source}, {report.words:.1f} words each; {machine}")]
    parts += [Text(f"plot: {plot}")] if plot else []
    return Group(*parts, Text(NOTE, "dim"))


def _speeds(report: BenchReport) -> Table:
    batches = list(report.models[0].per_second)
    names = [*(f"sentences/s, batch {batch}" for batch in batches), "p50 ms", "p95 ms", "p99 ms"]
    shown = ui.columns("model", *names, numbers=len(names))
    for model in report.models:
        latency = model.latency
        times = [_number(value) for value in (latency.p50, latency.p95, latency.p99)]
        shown.add_row(Text(model.name, "bold"), *(_number(model.per_second[batch]) for batch in batches), *times)
    return shown


def _sizes(report: BenchReport) -> Table:
    names = ["parameters", "without embeddings", "MB on disk", "peak MB", "ready after s"]
    gpu = any(model.gpu_peak_megabytes is not None for model in report.models)
    shown = ui.columns("model", *names, *(["peak MB on the GPU"] if gpu else []), numbers=len(names) + gpu)
    for model in report.models:
        shown.add_row(Text(model.name, "bold"), *_size(model), *([_maybe(model.gpu_peak_megabytes)] if gpu else []))
    return shown


def _size(model: Measurement) -> list[str]:
    counts = [_maybe(model.parameters), _maybe(model.parameters_without_embeddings)]
    return [*counts, f"{model.megabytes:.1f}", f"{model.peak_megabytes:,.0f}", f"{model.load_seconds:.2f}"]


def _ratios(report: BenchReport) -> Table:
    batches = list(report.models[0].per_second)
    names = [*(f"faster, batch {batch}" for batch in batches), "shorter latency", "fewer parameters"]
    names += ["smaller on disk", "less memory"]
    shown = ui.columns("against the teacher", *names, numbers=len(names))
    for name, one in report.ratios.items():
        values = [*one.per_second.values(), one.latency, one.parameters, one.megabytes, one.peak_megabytes]
        shown.add_row(Text(name, "bold"), *("" if value is None else f"{_number(value)}x" for value in values))
    return shown


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _maybe(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
