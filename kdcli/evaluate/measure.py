"""Measure the speed and the size of one model, in a process that does nothing else."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdcli.api import Task

Kind = Literal["pytorch", "numpy", "onnx", "int8", "teacher"]
Columns = Sequence[Sequence[str]]
Logits = Callable[[Columns], Any]

BATCHES = (1, 32, 512)
LARGE = 512
"""Texts of a teacher's batch on a GPU; on the CPU it does best with the smaller one of its own."""


@dataclass(frozen=True)
class BenchSubject:
    """A model to measure, and how to load it.

    ``place`` is its folder, or a teacher's hub name; precision and longest input (word pieces) are the teacher's.
    """

    name: str
    kind: Kind
    place: str
    task: Task
    device: str = "cpu"
    precision: str = "fp32"
    max_length: int = 128


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time of a call with one text, from text to logits, in milliseconds."""

    p50: float
    p95: float
    p99: float
    calls: int


@dataclass(frozen=True)
class Measurement:
    """The speed and the size of a model.

    Texts ``per_second`` are by the number of texts in a call, from text to logits. Parameters are None where the form
    does not show them. ``megabytes`` (10^6 bytes) are the weights on disk, ``peak_megabytes`` the most memory that its
    process held resident: Python, libraries, model, texts and what computing takes. ``load_seconds`` go from the start
    of the imports to a model that is ready.
    """

    name: str
    kind: Kind
    place: str
    device: str
    per_second: dict[int, float]
    latency: Latency
    parameters: int | None
    parameters_without_embeddings: int | None
    megabytes: float
    peak_megabytes: float
    gpu_peak_megabytes: float | None
    load_seconds: float


@dataclass(frozen=True)
class _Loaded:
    logits: Logits
    megabytes: float
    parameters: tuple[int | None, int | None] = (None, None)


def measure(subject: BenchSubject, columns: Columns, seconds: float) -> Measurement:
    """Load a model, warm it up and time it on fresh texts.

    Each batch size has texts of its own, of which none is timed twice, and a student is loaded anew for each, so that
    what it keeps of words and texts is empty. It is timed for ``seconds``, or until its texts end.
    """
    with redirect_stdout(sys.stderr):  # this process shares the parent's stdout, which is for the result
        begin = time.perf_counter()
        model = _load(subject)
        loaded = time.perf_counter() - begin
        rates: dict[int, float] = {}
        times: dict[int, list[float]] = {}
        for number, batch in enumerate(BATCHES):
            if number and subject.kind != "teacher":
                model = _load(subject)
            texts = [column[number :: len(BATCHES)] or column for column in columns]
            rates[batch], times[batch] = timed(model.logits, texts, batch, seconds)
    p50, p95, p99 = (1000 * float(value) for value in np.percentile(times[1], [50, 95, 99]))
    return Measurement(
        subject.name,
        subject.kind,
        subject.place,
        subject.device if subject.kind in ("pytorch", "teacher") else "cpu",
        rates,
        Latency(p50, p95, p99, len(times[1])),
        *model.parameters,
        model.megabytes,
        peak_memory() / 1e6,
        _gpu_peak(subject),
        loaded,
    )


def timed(logits: Logits, columns: Columns, batch: int, seconds: float) -> tuple[float, list[float]]:
    """Call a model on one batch of texts after another, the first to warm it up.

    Returns:
        Texts a second, and how long each call took (seconds); the last batch may be smaller.
    """
    rows = len(columns[0])
    warm = min(batch, rows // 2)
    if warm:
        logits([column[:warm] for column in columns])
    taken: list[float] = []
    for begin in range(warm, rows, batch):
        texts = [column[begin : begin + batch] for column in columns]
        start = time.perf_counter()
        logits(texts)
        taken.append(time.perf_counter() - start)
        if sum(taken) >= seconds:
            break
    return min(batch * len(taken), rows - warm) / sum(taken), taken


def peak_memory() -> int:
    """Return the most memory that this process has held resident, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage counts what the parent held when it started this process (Linux keeps it across exec).
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _load(subject: BenchSubject) -> _Loaded:
    folder, device = Path(subject.place), subject.device
    if subject.kind == "teacher":
        from kdcli.teacher.model import BATCH, load_teacher

        limits: dict[str, Any] = {"max_length": subject.max_length, "precision": subject.precision}
        teacher = load_teacher(subject.place, subject.task, device=device, **limits)
        batch = LARGE if device.startswith("cuda") else BATCH
        parameters = teacher.parameters, teacher.parameters_without_embeddings
        return _Loaded(lambda columns: teacher.logits(columns, batch), teacher.megabytes, parameters)
    if subject.kind in ("pytorch", "numpy"):
        from kdcli.student.student import WEIGHTS, load_student

        # The NumPy form must not import torch: its memory is measured.
        torch = subject.kind == "pytorch"
        student = load_student(folder, device=device, torch=torch)
        sizes = (student.parameters, student.parameters_without_embeddings) if torch else (None, None)
        return _Loaded(student.logits, (folder / WEIGHTS).stat().st_size / 1e6, sizes)
    from kdcli.export.onnx_student import INT8, MODEL, load_onnx

    file = MODEL if subject.kind == "onnx" else INT8
    return _Loaded(load_onnx(folder, file).logits, (folder / file).stat().st_size / 1e6)


def _gpu_peak(subject: BenchSubject) -> float | None:
    if subject.kind not in ("pytorch", "teacher") or not subject.device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(subject.device) / 1e6
