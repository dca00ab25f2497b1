"""``kd bench``: the speed, size and memory of a student, beside its teacher."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, RUN, Request, command, option

if TYPE_CHECKING:
    from kdcli.evaluate.bench import BenchReport, Measurement

NOTE = (
    "From text to logits, warmed up, each model in a process of its own. Memory is the largest resident size of that "
    "process: Python, the libraries, the model, the texts."
)

Onnx = Annotated[Path | None, option(FILES, "--onnx", "The student as `kd export onnx` wrote it.", "FOLDER")]
Seconds = Annotated[
    float, option(RUN, "--seconds", "Time for each batch size of each model; one call at least.", "SECONDS", "3", min=0)
]


@command(
    "kd bench --student runs/sst2",
    "kd bench --student runs/sst2/student --onnx student-onnx",
    options=("student", "teacher", "input", "profile", "texts", "seed", "device", "precision", "offline"),
    required=("student",),
    about={"input": "Texts: .parquet .tsv .csv .jsonl .txt, also .gz."},
)
def bench(request: Request, *, onnx: Onnx = None, seconds: Seconds = 3.0) -> None:
    """A run folder stands for its student, its teacher and its dev texts, and its report shows the figures. Without
    texts, those of the embedded sample are taken.
    """
    from kdcli.evaluate.bench import bench as run, keep
    from kdcli.run import own_teacher, profile_of

    student = request.student
    assert student is not None
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
            seconds=seconds,
            reporter=reporter,
        )
    if (kept := keep(report, student)) is not None:
        ui.info(f"{kept} is written: `kd report {student}` shows it")
    ui.show(report, _described)


def _described(report: "BenchReport") -> RenderableType:
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    texts = f"{report.texts:,} texts of {report.source}, {report.words:.1f} words each; {machine}"
    figures = {model.name: _figures(model, report.teacher) for model in report.models}
    return Group(ui.columns(figures), Text(), Text(texts), Text(NOTE, "dim"))


def _figures(model: "Measurement", teacher: "Measurement | None") -> dict[str, object]:
    """Return the figures of a model by name, and how many times better than the teacher's they are."""
    figures: dict[str, object] = {
        **{f"sentences/s, batch {batch}": _number(value) for batch, value in model.per_second.items()},
        **{f"{name} ms": _number(getattr(model.latency, name)) for name in ("p50", "p95", "p99")},
        "parameters": model.parameters or None,
        "without embeddings": model.parameters_without_embeddings if model.parameters else None,
        "MB on disk": f"{model.megabytes:.1f}" if model.megabytes else None,
        "peak MB": round(model.peak_megabytes),
        "peak MB on the GPU": None if model.gpu_peak_megabytes is None else round(model.gpu_peak_megabytes),
        "ready after s": f"{model.load_seconds:.2f}",
    }
    if teacher is None or model is teacher:
        return figures
    for batch, value in model.per_second.items():
        figures[f"faster than the teacher, batch {batch}"] = f"{_number(value / teacher.per_second[batch])}x"
    figures["shorter latency"] = f"{_number(teacher.latency.p50 / model.latency.p50)}x"
    sizes = {"fewer parameters": "parameters", "smaller on disk": "megabytes", "less memory": "peak_megabytes"}
    for title, name in sizes.items():
        if getattr(model, name) and getattr(teacher, name):
            figures[title] = f"{_number(getattr(teacher, name) / getattr(model, name))}x"
    return figures


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
