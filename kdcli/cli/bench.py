"""``kd bench``: how fast, how small and how frugal a student is, beside its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcli.cli import flags, ui

if TYPE_CHECKING:
    from kdcli.evaluate.bench import BenchReport
    from kdcli.evaluate.measure import Measurement

app = typer.Typer()

NOTE = (
    "From text to logits, warmed up, each model in a process of its own. Memory is the most that this process held "
    "resident: Python, the libraries, the model, the texts."
)


@app.command(
    epilog=flags.example(
        "kd bench --student runs/sst2",
        "kd bench --student runs/sst2/student --onnx student-onnx --plot bench.svg",
    )
)
def bench(
    student: flags.StudentOrRun,
    teacher: flags.TeacherOrRun = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            "--onnx",
            help="What `kd export onnx` has written of the student.",
            show_default=False,
            metavar="FOLDER",
            rich_help_panel=flags.FILES,
        ),
    ] = None,
    input_: flags.MaybeInput = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Draw it too: an .svg, .png or .pdf file.",
            show_default=False,
            metavar="FILE",
            rich_help_panel=flags.FILES,
        ),
    ] = None,
    force: flags.Force = False,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            help="Seconds that each batch size of each model is timed; one call at least.",
            min=0,
            metavar="SECONDS",
            rich_help_panel=flags.RUN,
        ),
    ] = 3.0,
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    seed: flags.Seed = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    offline: flags.Offline = False,
) -> None:
    """Time the student (PyTorch, NumPy, ONNX, int8) and the teacher on the same texts, one after the other.

    A run folder stands for its student, its teacher and its dev texts, and its report shows the figures. Without texts,
    those of the embedded sample are taken.
    """
    from kdcli.evaluate.bench import bench as run
    from kdcli.evaluate.bench import keep
    from kdcli.models.device import resolve
    from kdcli.run.places import own_teacher

    if plot is not None:
        _check(plot, force)
    named = profile or flags.own_profile(student)
    values = {**flags.tables(data_dir, text_col, text2_col, None), "seed": seed}
    settings = flags.load_for_model(named, set_, {**values, "device": device, "precision": precision})
    with ui.reporting("bench") as reporter:
        report = run(
            student=student,
            teacher=teacher or own_teacher(student),
            onnx=onnx,
            settings=settings,
            profiled=named is not None,
            table=input_,
            device=resolve(settings.device),
            seconds=seconds,
            seed=settings.seed,
            reporter=reporter,
        )
    if (kept := keep(report, student)) is not None:
        ui.info(f"{kept} is written: `kd report {student}` shows it")
    if plot is not None:
        from kdcli.evaluate.bench_plot import plot as draw

        draw(report, plot)
    ui.show(report, lambda _: _described(report, plot))


def _check(plot: Path, force: bool) -> None:
    from kdcli.errors import DataError
    from kdcli.evaluate.bench_plot import check_plot

    check_plot(plot)
    if plot.exists() and not force:
        raise DataError("the output exists already", file=plot, hint="--force overwrites it")


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
