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

import numpy as np

from kdcli import registry
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import Settings, TaskSettings
from kdcli.errors import KdError
from kdcli.evaluate.measure import BATCHES, Kind, Measurement, Subject, measure
from kdcli.evaluate.reading import reading
from kdcli.files import atomic
from kdcli.parts.parts import processes, usable_cores
from kdcli.run.places import is_run, student_folder, teacher_of
from kdcli.student.loaded import read_folder
from kdcli.tasks.split import SAMPLE, load_table, load_tables
from kdcli.tasks.task import task_from

TEXTS = 4096
"""So many of the texts, drawn at random, are gone through."""
SECONDS = 3.0
_GRAPHS: dict[Kind, str] = {"onnx": "model.onnx", "int8": "model.int8.onnx"}
_NAMES: dict[Kind, str] = {
    "pytorch": "student, PyTorch",
    "numpy": "student, NumPy",
    "onnx": "student, ONNX",
    "int8": "student, int8",
}


@dataclass(frozen=True)
class Ratio:
    """A model beside the teacher: above 1, it is so many times faster, smaller or more frugal.

    Attributes:
        per_second: By the number of texts given at once.
        latency: Of the medians.
        parameters: None where they are not known.
        megabytes: Of the weights on disk.
        peak_megabytes: Of the memory held.
    """

    per_second: dict[int, float]
    latency: float
    parameters: float | None
    megabytes: float
    peak_megabytes: float


@dataclass(frozen=True)
class BenchReport:
    """What ``kd bench`` measures.

    Attributes:
        task: The task's name.
        texts: How many were gone through.
        words: Their mean length, in words between white space, both of a pair.
        source: Where they come from.
        machine: Processor, usable cores, GPU if one is used, and the versions that matter.
        seconds: How long each batch size was timed.
        models: The students, then the teacher.
        ratios: By model, against the teacher; empty without one.
        skipped: What was left out, and why.
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

    Args:
        student: A student's folder, or a run's.
        teacher: A teacher's folder, hub name or run.
        onnx: What ``kd export onnx`` has written of the student.
        settings: The texts; the teacher's longest input; the precision.
        profiled: Whether the settings say what the task is, and where its tables lie; otherwise the student does, and
            they say no more than how to read a table.
        table: The texts to go through; by default those of dev, or without a profile those of the embedded sample.
        device: Where PyTorch computes; NumPy and ONNX compute on the CPU.
        seconds: How long each batch size is timed, but one call at least.
        seed: Which of many texts are taken.
        reporter: Shows the progress.

    Raises:
        DataError: A model or the texts cannot be read.
        KdError: A model does not fit into memory.
    """
    reporter = reporter or QuietReporter()
    folder = student_folder(student)
    contents = read_folder(folder)
    subjects, skipped = _forms(folder, contents.config["plugin"], onnx, contents.task, device)
    if teacher is not None:
        length, precision = settings.teacher.max_length, settings.precision
        subjects.append(Subject("teacher", "teacher", teacher_of(teacher), contents.task, device, precision, length))
    for name, reason in skipped.items():
        reporter.warn(f"{name} is left out: {reason}")
    how = reading(contents.task, settings.task, folder, profiled=profiled)
    columns, source = _texts(contents.task, how, table, seed, reporter)
    measured = []
    with reporter.progress("bench", len(subjects), "models") as progress:
        for subject in subjects:
            measured.append(_alone(subject, columns, seconds))
            progress.advance(measured=subject.name)
    models = _with_parameters(measured)
    return BenchReport(
        contents.task.name,
        len(columns[0]),
        float(np.mean([sum(len(text.split()) for text in row) for row in zip(*columns, strict=True)])),
        source,
        _machine(device),
        seconds,
        models,
        {one.name: ratio(one, models[-1]) for one in models[:-1]} if teacher is not None else {},
        skipped,
    )


def keep(report: BenchReport, student: Path) -> Path | None:
    """Write the figures into the run that the student was named by, where the run's report shows them.

    Returns:
        ``bench.json`` in the run folder; None where the student was named by its own folder.
    """
    if not is_run(student):
        return None
    path = student / "bench.json"
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")
    return path


def ratio(model: Measurement, teacher: Measurement) -> Ratio:
    """Set a model beside the teacher."""
    return Ratio(
        {batch: model.per_second[batch] / teacher.per_second[batch] for batch in BATCHES},
        teacher.latency.p50 / model.latency.p50,
        teacher.parameters / model.parameters if teacher.parameters and model.parameters else None,
        teacher.megabytes / model.megabytes,
        teacher.peak_megabytes / model.peak_megabytes,
    )


def _forms(
    folder: Path, plugin: str, onnx: Path | None, task: Task, device: str
) -> tuple[list[Subject], dict[str, str]]:
    """Return the forms of a student that can be measured, and why others cannot."""
    subjects = [Subject(_NAMES["pytorch"], "pytorch", str(folder), task, device)]
    skipped: dict[str, str] = {}
    if hasattr(registry.load("students", plugin), "fast"):
        subjects.append(Subject(_NAMES["numpy"], "numpy", str(folder), task))
    if onnx is None:
        return subjects, skipped
    graphs: tuple[Kind, ...] = ("onnx", "int8")
    for kind in graphs:
        if find_spec("onnxruntime") is None:
            skipped[_NAMES[kind]] = "onnxruntime is not installed: pip install 'kdcli[onnx]'"
        elif not (onnx / _GRAPHS[kind]).is_file():
            skipped[_NAMES[kind]] = f"there is no {_GRAPHS[kind]} in {onnx}: `kd export onnx` writes it"
        else:
            subjects.append(Subject(_NAMES[kind], kind, str(onnx), task))
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
        texts = [rows["sentence"][row].as_py() for row in order.tolist()]
        # A pair is a text and the one after it.
        return [texts[number:] + texts[:number] for number in range(len(task.columns))], source
    return [rows[column].take(order).to_pylist() for column in task.columns], source


def _alone(subject: Subject, columns: Sequence[Sequence[str]], seconds: float) -> Measurement:
    """Measure in a process of its own, whose memory nothing else has touched."""
    with processes(1) as pool:
        try:
            return pool.submit(measure, subject, columns, seconds).result()
        except BrokenProcessPool as error:
            hint = "it may not fit into memory; leave out --teacher, or take --precision bf16"
            raise KdError(f"the process that measured {subject.name} was killed", hint=hint) from error


def _with_parameters(models: Sequence[Measurement]) -> list[Measurement]:
    """Give the other forms of the student the parameters of its module, which they are made from."""
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
