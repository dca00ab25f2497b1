"""``kd bench``: the speed, size and memory of a student, beside its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, RUN, Request, command, option

if TYPE_CHECKING:
    from kdcli.evaluate.bench import BenchReport, Ratio

NOTE = (
    "From text to logits, warmed up, each model in a process of its own. Memory is the largest resident size of that "
    "process: Python, the libraries, the model, the texts."
)

Onnx = Annotated[Path | None, option(FILES, "--onnx", "The student as `kd export onnx` wrote it.", "FOLDER")]
Plot = Annotated[Path | None, option(FILES, "--plot", "Draw it: an .svg, .png or .pdf file.", "FILE")]
Seconds = Annotated[
    float, option(RUN, "--seconds", "Time for each batch size of each model; one call at least.", "SECONDS", "3", min=0)
]


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
    ui.show(report, lambda _: _described(report, plot))


def _described(report: BenchReport, plot: Path | None) -> RenderableType:
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
