"""Student and teacher side by side: speed, latency, size and memory, on the same texts, one after the other.

Each model is measured in a process of its own. It imports this file, so what is large is imported in functions.
"""

import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kdcli import registry
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import KdError
from kdcli.files import write_json
from kdcli.parts import processes, usable_cores
from kdcli.run import is_run, student_folder, teacher_of

if TYPE_CHECKING:
    from kdcli.config.schema import Settings, TaskSettings
    from kdcli.teacher.model import TeacherSource

Kind = Literal["pytorch", "numpy", "onnx", "int8", "teacher"]
Columns = Sequence[Sequence[str]]
Logits = Callable[[Columns], Any]

BATCHES = (1, 32, 512)
LARGE = 512  # texts of a teacher's batch on a GPU; on the CPU it does best with the smaller one of its own
TEXTS = 16_384  # the most texts, drawn at random, that the models get
_FORMS: dict[Kind, str] = {"pytorch": "PyTorch", "numpy": "NumPy", "onnx": "ONNX", "int8": "int8"}
_NAMES = {kind: f"student, {form}" for kind, form in _FORMS.items()}


@dataclass(frozen=True)
class BenchSubject:
    """A model to measure, and how to load it; precision and source are the teacher's."""

    name: str
    kind: Kind
    place: str  # its folder, or a teacher's hub name
    task: Task
    device: str = "cpu"
    precision: str = "fp32"
    source: "TeacherSource | None" = None


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time of a call with one text, from text to logits, in milliseconds."""

    p50: float
    p95: float
    p99: float
    calls: int


@dataclass(frozen=True)
class Measurement:
    """The speed and the size of a model; a megabyte is 10^6 bytes."""

    name: str
    kind: Kind
    place: str
    device: str
    per_second: dict[int, float]  # texts, from text to logits, by the number of texts in a call
    latency: Latency
    parameters: int | None  # None where the form does not show them
    parameters_without_embeddings: int | None
    megabytes: float  # of the weights on disk
    peak_megabytes: float  # the most that its process held resident: Python, libraries, model, texts, computing
    gpu_peak_megabytes: float | None
    load_seconds: float  # from the start of the imports to a model that is ready


@dataclass(frozen=True)
class BenchReport:
    """The result of ``kd bench``."""

    task: str
    texts: int
    words: float  # the mean length of the texts, both of a pair
    source: str  # of the texts
    machine: dict[str, str]
    seconds: float
    models: list[Measurement]  # the teacher, if there is one, is the last

    @property
    def teacher(self) -> Measurement | None:
        """The teacher's measurement."""
        return self.models[-1] if self.models[-1].kind == "teacher" else None


def bench(
    *,
    student: Path,
    teacher: str | None = None,
    onnx: Path | None = None,
    settings: "Settings",
    profiled: bool = True,
    table: Path | None = None,
    seconds: float = 3.0,
    reporter: Reporter = QuietReporter(),
) -> BenchReport:
    """Measure a student in all its forms, and a teacher, each in a process of its own.

    A model is named by its folder or its run, the teacher also by its hub name; ``onnx`` is what ``kd export onnx`` has
    written. The texts are those of ``table``, else of dev, or without a profile (``profiled``) the embedded sample's.
    PyTorch computes on the settings' device, NumPy and ONNX on the CPU. Each batch size is timed for ``seconds``, but
    one call at least. A model that does not fit into memory is a ``KdError``.
    """
    from kdcli.models.device import resolve
    from kdcli.student.student import load_student
    from kdcli.tasks.split import table_settings
    from kdcli.tasks.statistics import count_words

    folder, device = student_folder(student), resolve(settings.device)
    loaded = load_student(folder)
    task = loaded.task
    subjects = student_forms(folder, loaded.config["plugin"], task, onnx, device)
    if teacher is not None:
        from kdcli.teacher.model import TeacherSource

        big = TeacherSource.of(settings, teacher_of(teacher))
        subjects.append(BenchSubject("teacher", "teacher", big.model, task, device, settings.precision, big))
    reading = table_settings(task, settings.task, folder, profiled=profiled)
    columns, source = _texts(task, reading, table, settings.seed, reporter)
    models: list[Measurement] = []
    with reporter.progress("bench", len(subjects), "models") as progress:
        for subject in subjects:
            one = _alone(measure, subject, columns, seconds)
            if one.parameters is None:  # the other forms of the student have those of the first, the module
                every, without = models[0].parameters, models[0].parameters_without_embeddings
                one = replace(one, parameters=every, parameters_without_embeddings=without)
            models.append(one)
            progress.advance(measured=subject.name)
    texts, words = len(columns[0]), float(count_words(columns).mean())
    return BenchReport(task.name, texts, words, source, _machine(device), seconds, models)


def keep(report: BenchReport, student: Path) -> Path | None:
    """Write ``bench.json`` into the student's run, whose report shows it; return None for a student's own folder."""
    if not is_run(student):
        return None
    write_json(student / "bench.json", asdict(report))
    return student / "bench.json"


def student_forms(
    folder: Path, plugin: str, task: Task, onnx: Path | None = None, device: str = "cpu"
) -> list[BenchSubject]:
    """Return the forms of a student that there are; an ``onnx`` folder that cannot be read is an error."""
    subjects = [BenchSubject(_NAMES["pytorch"], "pytorch", str(folder), task, device)]
    if hasattr(registry.load("students", plugin), "fast"):
        subjects.append(BenchSubject(_NAMES["numpy"], "numpy", str(folder), task))
    if onnx is not None:
        from kdcli.export.onnx import INT8, load_onnx

        load_onnx(onnx)
        subjects.append(BenchSubject(_NAMES["onnx"], "onnx", str(onnx), task))
        if (onnx / INT8).is_file():
            subjects.append(BenchSubject(_NAMES["int8"], "int8", str(onnx), task))
    return subjects


def _texts(
    task: Task, settings: "TaskSettings", table: Path | None, seed: int, reporter: Reporter
) -> tuple[list[list[str]], str]:
    from kdcli.config.schema import TaskSettings
    from kdcli.tasks.split import SAMPLE, load_table, load_tables, task_from

    if table is not None:
        rows, source = load_table(table, settings, task, reporter, labels=False), str(table)
    else:
        if not settings.data_dir:
            settings = TaskSettings(name="sample", labels=("0", "1"), data_dir=SAMPLE)
        name, rows = next(iter(load_tables(settings, task_from(settings), "dev", reporter).items()))
        source = f"{name} of {settings.data_dir}"
    order = np.random.default_rng(seed).permutation(len(rows))[:TEXTS]  # the first of them are like all
    columns = [rows[name].gather(order).to_list() for name in rows.columns if name.startswith("sentence")]
    if len(columns) < len(task.columns):  # of the sample: a pair is a text and the one after it
        columns.append(columns[0][1:] + columns[0][:1])
    return columns, source


def _alone(work: Callable[..., Any], subject: BenchSubject, *more: Any) -> Any:
    try:
        with processes(1) as pool:
            return pool.submit(work, subject, *more).result()
    except BrokenProcessPool as error:
        hint = "it may not fit into memory; leave out --teacher, or take --precision bf16"
        raise KdError(f"the process that measured {subject.name} was killed", hint=hint) from error


def _machine(device: str) -> dict[str, str]:
    lines = info.read_text().splitlines() if (info := Path("/proc/cpuinfo")).exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    found = {"processor": [*names, platform.processor() or platform.machine()][0], "cores": str(usable_cores())}
    if device.startswith("cuda"):
        import torch

        found["gpu"] = torch.cuda.get_device_name(device)
    libraries = [name for name in ("torch", "numpy", "onnxruntime") if find_spec(name)]
    return {**found, "python": platform.python_version(), **{name: version(name) for name in libraries}}


def measure(subject: BenchSubject, columns: Columns, seconds: float) -> Measurement:
    """Load a model, warm it up and time it on fresh texts, for ``seconds`` or until they end.

    Each batch size has texts of its own, none is timed twice, and a student is loaded anew for each, with empty caches.
    """
    with redirect_stdout(sys.stderr):  # this process shares the parent's stdout, which is for the result
        begin = time.perf_counter()
        logits, megabytes, parameters = _load(subject)
        loaded = time.perf_counter() - begin
        rates: dict[int, float] = {}
        times: dict[int, list[float]] = {}
        for number, batch in enumerate(BATCHES):
            if number and subject.kind != "teacher":
                logits = _load(subject)[0]
            texts = [column[number :: len(BATCHES)] or column for column in columns]
            rates[batch], times[batch] = timed(logits, texts, batch, seconds)
        gpu_peak = None
        if subject.device.startswith("cuda"):
            import torch

            gpu_peak = torch.cuda.max_memory_allocated(subject.device) / 1e6
    p50, p95, p99 = (1000 * float(value) for value in np.percentile(times[1], [50, 95, 99]))
    latency, memory = Latency(p50, p95, p99, len(times[1])), (peak_memory() / 1e6, gpu_peak)
    what = subject.name, subject.kind, subject.place, subject.device
    return Measurement(*what, rates, latency, *parameters, megabytes, *memory, loaded)


def cold_start(subject: BenchSubject) -> float:
    """Return the seconds from the first import to the first answer, in a process of its own."""
    return float(_alone(_start, subject))


def _start(subject: BenchSubject) -> float:
    with redirect_stdout(sys.stderr):
        begin = time.perf_counter()
        _load(subject)[0]([["a text"]] * len(subject.task.columns))
    return time.perf_counter() - begin


def timed(logits: Logits, columns: Columns, batch: int, seconds: float) -> tuple[float, list[float]]:
    """Return texts a second, and the seconds of each call: one batch after another, the first to warm the model up."""
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


def _load(subject: BenchSubject) -> tuple[Logits, float, tuple[int | None, int | None]]:
    """Load a model: its logits, its megabytes, all its parameters and those outside of embeddings, where known."""
    folder, device = Path(subject.place), subject.device
    if subject.kind == "teacher":
        from kdcli.teacher.model import BATCH

        assert subject.source
        teacher = subject.source.load(subject.task, device=device, precision=subject.precision)
        batch = LARGE if device.startswith("cuda") else BATCH
        parameters = teacher.parameters, teacher.parameters_without_embeddings
        return lambda columns: teacher.logits(columns, batch), teacher.megabytes, parameters
    if subject.kind in ("pytorch", "numpy"):
        from kdcli.student.student import WEIGHTS, load_student

        # The NumPy form must not import torch: its memory is measured.
        torch = subject.kind == "pytorch"
        student = load_student(folder, device=device, torch=torch)
        sizes = (student.parameters, student.parameters_without_embeddings) if torch else (None, None)
        return student.logits, (folder / WEIGHTS).stat().st_size / 1e6, sizes
    from kdcli.export.onnx import INT8, MODEL, load_onnx

    file = MODEL if subject.kind == "onnx" else INT8
    return load_onnx(folder, file).logits, (folder / file).stat().st_size / 1e6, (None, None)
