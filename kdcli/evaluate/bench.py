"""Student and teacher side by side: speed, latency, size and memory, on the same texts, one after the other."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdcli import registry
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import Settings, TaskSettings
from kdcli.errors import KdError, MissingError, UsageError
from kdcli.evaluate.measure import BATCHES, BenchSubject, Kind, Measurement, measure
from kdcli.files import atomic
from kdcli.parts import processes, usable_cores
from kdcli.run.paths import is_run, student_folder, teacher_of
from kdcli.student.student import load_student
from kdcli.tasks.split import SAMPLE, load_table, load_tables, table_settings, task_from
from kdcli.tasks.statistics import count_words
from kdcli.teacher.model import TeacherSource

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXTS = 16_384
"""Most texts, drawn at random, that the models get."""
SECONDS = 3.0
_GRAPHS: dict[Kind, str] = {"onnx": "model.onnx", "int8": "model.int8.onnx"}
_NAMES: dict[Kind, str] = {
    "pytorch": "student, PyTorch",
    "numpy": "student, NumPy",
    "onnx": "student, ONNX",
    "int8": "student, int8",
}

FORMS = (".svg", ".png", ".pdf")
_COLOURS = {"pytorch": "#4477aa", "numpy": "#66ccee", "onnx": "#228833", "int8": "#ccbb44", "teacher": "#ee6677"}
"""Paul Tol's bright scheme, distinct for colour-blind eyes too."""


@dataclass(frozen=True)
class Ratio:
    """A model compared with the teacher: above 1, it is so many times faster (by the median latency) or smaller."""

    per_second: dict[int, float]
    latency: float
    parameters: float | None
    megabytes: float | None
    peak_megabytes: float


@dataclass(frozen=True)
class BenchReport:
    """The result of ``kd bench``.

    ``words`` is the mean length of the texts, both of a pair; ``source`` says where they come from. The teacher is the
    last of the models; without one there are no ratios. ``skipped`` says why a form was left out.
    """

    task: str
    texts: int
    words: float
    source: str
    machine: dict[str, str]
    seconds: float
    models: list[Measurement]
    ratios: dict[str, Ratio]
    skipped: dict[str, str]


def bench(
    *,
    student: Path,
    teacher: str | None = None,
    onnx: Path | None = None,
    settings: Settings,
    profiled: bool = True,
    table: Path | None = None,
    device: str = "cpu",
    seconds: float = SECONDS,
    seed: int = 1,
    reporter: Reporter | None = None,
) -> BenchReport:
    """Measure a student in all its forms, and a teacher, each in a process of its own.

    A model is named by its folder or its run, the teacher also by its hub name; ``onnx`` is what ``kd export onnx`` has
    written. The texts are those of ``table``, else of dev, or without a profile (``profiled``) those of the embedded
    sample. PyTorch computes on ``device``, NumPy and ONNX on the CPU. Each batch size is timed for ``seconds``, but one
    call at least.

    Raises:
        KdError: A model does not fit into memory.
    """
    reporter = reporter or QuietReporter()
    folder = student_folder(student)
    loaded = load_student(folder)
    task = loaded.task
    subjects, skipped = _forms(folder, loaded.config["plugin"], onnx, task, device)
    if teacher is not None:
        big = TeacherSource.of(settings, teacher_of(teacher))
        subjects.append(BenchSubject("teacher", "teacher", big.model, task, device, settings.precision, big))
    for name, reason in skipped.items():
        reporter.warn(f"{name} is skipped: {reason}")
    how = table_settings(task, settings.task, folder, profiled=profiled)
    columns, source = _texts(task, how, table, seed, reporter)
    measured = []
    with reporter.progress("bench", len(subjects), "models") as progress:
        for subject in subjects:
            measured.append(_alone(subject, columns, seconds))
            progress.advance(measured=subject.name)
    models = _with_parameters(measured)
    return BenchReport(
        task.name,
        len(columns[0]),
        float(count_words(columns).mean()),
        source,
        _machine(device),
        seconds,
        models,
        {one.name: ratio(one, models[-1]) for one in models[:-1]} if teacher is not None else {},
        skipped,
    )


def keep(report: BenchReport, student: Path) -> Path | None:
    """Write ``bench.json`` into the student's run, whose report shows it; return None for a student's own folder."""
    if not is_run(student):
        return None
    path = student / "bench.json"
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")
    return path


def ratio(model: Measurement, teacher: Measurement) -> Ratio:
    """Compare a model with the teacher."""
    return Ratio(
        {batch: model.per_second[batch] / teacher.per_second[batch] for batch in BATCHES},
        teacher.latency.p50 / model.latency.p50,
        teacher.parameters / model.parameters if teacher.parameters and model.parameters else None,
        teacher.megabytes / model.megabytes if teacher.megabytes else None,
        teacher.peak_megabytes / model.peak_megabytes,
    )


def _forms(
    folder: Path, plugin: str, onnx: Path | None, task: Task, device: str
) -> tuple[list[BenchSubject], dict[str, str]]:
    """Return the forms of a student that can be measured, and why others cannot."""
    subjects = [BenchSubject(_NAMES["pytorch"], "pytorch", str(folder), task, device)]
    skipped: dict[str, str] = {}
    if hasattr(registry.load("students", plugin), "fast"):
        subjects.append(BenchSubject(_NAMES["numpy"], "numpy", str(folder), task))
    if onnx is None:
        return subjects, skipped
    graphs: tuple[Kind, ...] = ("onnx", "int8")
    for kind in graphs:
        if find_spec("onnxruntime") is None:
            skipped[_NAMES[kind]] = "onnxruntime is not installed: pip install 'kdcli[onnx]'"
        elif not (onnx / _GRAPHS[kind]).is_file():
            skipped[_NAMES[kind]] = f"there is no {_GRAPHS[kind]} in {onnx}: `kd export onnx` writes it"
        else:
            subjects.append(BenchSubject(_NAMES[kind], kind, str(onnx), task))
    return subjects, skipped


def _texts(
    task: Task, settings: TaskSettings, table: Path | None, seed: int, reporter: Reporter
) -> tuple[list[list[str]], str]:
    """Return the texts, in an order drawn at random, so that the first of them are like all."""
    if table is not None:
        rows, source = load_table(table, settings, task, reporter, labels=False), str(table)
    elif settings.data_dir:
        name, rows = next(iter(load_tables(settings, task, "dev", reporter).items()))
        source = f"{name} of {settings.data_dir}"
    else:
        single = TaskSettings(name="sample", labels=("0", "1"), data_dir=SAMPLE)
        rows = next(iter(load_tables(single, task_from(single), "dev", reporter).values()))
        source = SAMPLE
    order = np.random.default_rng(seed).permutation(len(rows))[:TEXTS]
    if source == SAMPLE:
        texts = rows["sentence"].gather(order).to_list()
        # A pair is a text and the one after it.
        return [texts[number:] + texts[:number] for number in range(len(task.columns))], source
    return [rows[column].gather(order).to_list() for column in task.columns], source


def _alone(subject: BenchSubject, columns: Sequence[Sequence[str]], seconds: float) -> Measurement:
    """Measure in a process of its own, whose memory nothing else has touched."""
    with processes(1) as pool:
        try:
            return pool.submit(measure, subject, columns, seconds).result()
        except BrokenProcessPool as error:
            hint = "it may not fit into memory; leave out --teacher, or take --precision bf16"
            raise KdError(f"the process that measured {subject.name} was killed", hint=hint) from error


def _with_parameters(models: Sequence[Measurement]) -> list[Measurement]:
    """Add the number of parameters to the other forms of the student; it is the module's."""
    module = models[0]
    every, without = module.parameters, module.parameters_without_embeddings
    return [
        replace(one, parameters=every, parameters_without_embeddings=without) if one.parameters is None else one
        for one in models
    ]


def _machine(device: str) -> dict[str, str]:
    described = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        described = names[0] if names else described
    gpu = {}
    if device.startswith("cuda"):
        import torch

        gpu = {"gpu": torch.cuda.get_device_name(device)}
    libraries = [name for name in ("torch", "numpy", "onnxruntime") if find_spec(name)]
    return {
        "processor": described,
        "cores": str(usable_cores()),
        **gpu,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def check_plot(path: Path) -> None:
    """Check that a plot can be drawn, before hours of measuring."""
    if path.suffix not in FORMS:
        raise UsageError(f"a plot is {', '.join(FORMS)}, not {path.name!r}", hint="for example --plot bench.svg")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingError("a plot needs matplotlib", hint="pip install matplotlib") from error


def plot(report: BenchReport, path: Path) -> None:
    """Draw sentences per second by batch, and latency at batch 1, both on logarithmic scales."""
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.6 + 0.45 * len(report.models)), layout="constrained")
    speed, latency = figure.subplots(1, 2, width_ratios=[3, 2])
    _speeds(speed, report.models)
    _latencies(latency, report.models)
    figure.suptitle(f"{report.task}: {report.machine['processor']}, {report.machine['cores']} cores", fontsize=10)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _speeds(axes: Axes, models: Sequence[Measurement]) -> None:
    height = 0.8 / len(BATCHES)
    for row, model in enumerate(models):
        for number, batch in enumerate(BATCHES):
            place, value = row + (number - 1) * height, model.per_second[batch]
            axes.barh(place, value, height * 0.9, color=_COLOURS[model.kind], alpha=0.4 + 0.3 * number)
            axes.annotate(
                f"{value:,.0f}  (batch {batch})" if value >= 10 else f"{value:.2g}  (batch {batch})",
                (value, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axes.set_xscale("log")
    rates = [rate for model in models for rate in model.per_second.values()]
    axes.set_xlim(10 ** np.floor(np.log10(min(rates) / 2)), max(rates) * 8)
    axes.set_xlabel("sentences per second")
    _rows(axes, models, names=True)


def _latencies(axes: Axes, models: Sequence[Measurement]) -> None:
    for row, model in enumerate(models):
        taken = model.latency
        axes.plot([taken.p50, taken.p99], [row, row], color=_COLOURS[model.kind], linewidth=2)
        for marker, value in zip("o|x", (taken.p50, taken.p95, taken.p99), strict=True):
            axes.plot(value, row, marker, color=_COLOURS[model.kind], markersize=7)
    axes.set_xscale("log")
    axes.set_xlabel("ms for one text: p50 o, p95 |, p99 x")
    _rows(axes, models, names=False)


def _rows(axes: Axes, models: Sequence[Measurement], *, names: bool) -> None:
    axes.set_yticks(range(len(models)), [model.name for model in models] if names else [""] * len(models))
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
