"""The models that predict: a student, a teacher, or a student that defers to it; and its calibration in a run."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.errors import DataError
from kdcli.files import CALIBRATION, atomic, files_sha256, foreign, mark
from kdcli.parts import Loaded
from kdcli.student.deferral import Calibration, Familiar, calibrate, cross_fit, differs, margins, texts_needed
from kdcli.student.student import Student, load_student
from kdcli.tasks.answers import answers, at_half, same, without_thresholds
from kdcli.tasks.labels import encode_labels

if TYPE_CHECKING:
    from kdcli.config.schema import DeferralSettings, Settings
    from kdcli.teacher.model import Teacher

PART_ROWS = 4096  # rows of a part that a teacher reads too


class Model(Protocol):
    """A loaded student or teacher."""

    @property
    def task(self) -> Task:
        """The task that it predicts."""

    def logits(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return ``float32 [rows, task.outputs]`` for the text columns."""


@dataclass(frozen=True)
class PairSpeed:
    """What a student and its teacher did together in one launch; speeds are texts a second."""

    texts: int
    deferred: float  # the share of texts that the teacher answered
    per_second: float  # of the pair
    teacher_per_second: float | None  # of the teacher, on the texts that it answered; None if it answered none


@dataclass
class DeferringStudent:
    """A student as a model that says which texts it defers; a teacher answers those."""

    student: Student
    agree: float | None = None  # by default the target that it was calibrated for
    teacher: "Teacher | None" = None
    counts: Counter[str] = field(default_factory=Counter)  # texts, those deferred, and the seconds of both models

    def __post_init__(self) -> None:
        """Refuse a student that was not calibrated."""
        self.calibration = self.student.calibrated
        self.target = self.calibration.agree if self.agree is None else self.agree

    @property
    def part_rows(self) -> int:
        """The best number of rows to predict a file in; a killed run loses little of the teacher's work."""
        return PART_ROWS if self.teacher else self.student.part_rows

    @property
    def task(self) -> Task:
        """The task of both; the student's thresholds are not the teacher's, and with it they are in the logits."""
        return without_thresholds(self.student.task) if self.teacher else self.student.task

    def logits(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return ``float32 [rows, task.outputs]``: the student's, and the teacher's of the texts that are deferred."""
        return self.answer(columns)[0]

    def answer(self, columns: Sequence[Sequence[str]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the logits, and which texts are deferred, ``bool [rows]``."""
        begin = time.perf_counter()
        logits = self.student.logits(columns)
        deferred = self.student.deferred(columns, logits, self.agree)
        middle = time.perf_counter()
        if self.teacher is not None:
            logits = at_half(logits, self.student.task).astype(np.float32)
            if deferred.any():
                texts = [np.array(column, object)[deferred].tolist() for column in columns]
                logits[deferred] = self.teacher.logits(texts)
        seconds: dict[str, Any] = {"student": middle - begin, "teacher": time.perf_counter() - middle}
        self.counts.update(texts=len(logits), deferred=int(deferred.sum()), **seconds)
        return logits, deferred

    def speed(self) -> PairSpeed | None:
        """Return the share that the teacher answered and the speeds; None of a student alone."""
        texts, deferred = self.counts["texts"], self.counts["deferred"]
        if self.teacher is None or not texts:
            return None
        student, teacher = self.counts["student"], self.counts["teacher"]
        return PairSpeed(texts, deferred / texts, texts / (student + teacher), deferred / teacher if deferred else None)

    def warn_of_cuts(self, reporter: Reporter) -> None:
        """Say what was deferred, and how fast the pair was; warn of what the teacher could not read whole."""
        if self.calibration.errors(self.target) is None:
            reporter.warn(too_few(self.calibration, self.target))
        else:
            texts, share = self.counts["texts"], self.counts["deferred"] / max(1, self.counts["texts"])
            reporter.info(f"{share:.1%} of {texts:,} texts are deferred, for an agreement of {self.target:g}")
        if (speed := self.speed()) and speed.teacher_per_second:
            own = f"the teacher by itself about {speed.teacher_per_second:,.0f}"
            reporter.info(f"student and teacher together: {speed.per_second:,.0f} texts/s; {own}")
        if self.teacher is not None:
            self.teacher.warn_of_cuts(reporter)


@dataclass(frozen=True)
class LoadedModel:
    """A model, its folder and its teacher's, a hash of all that it consists of, and how it computes, as JSON values."""

    loaded: Loaded[Model]
    folders: tuple[Path, ...]
    fingerprint: Callable[[], str]
    how: Mapping[str, Any]

    @property
    def model(self) -> Model:
        """The model."""
        return self.loaded.value

    @property
    def is_remote(self) -> bool:
        """Whether a teacher answers over the network: this process alone asks it."""
        source = getattr(getattr(self.model, "teacher", self.model), "source", None)
        return source is not None and bool(source.is_remote)

    def warn(self, reporter: Reporter) -> None:
        """Warn of what the model could not read whole."""
        if warn := getattr(self.model, "warn_of_cuts", None):
            warn(reporter)

    def origin(self) -> dict[str, Any]:
        """Return all that its predictions depend on."""
        return {"model": self.fingerprint()[:16], **self.how}


def open_student(path: Path, device: str = "auto") -> LoadedModel:
    """Load a student from its folder or a run's; ``auto`` is the CPU, which needs no PyTorch."""
    if not (path / "config.json").is_file():
        from kdcli.run import student_folder

        path = student_folder(path)
    device = "cpu" if device == "auto" else device
    if device != "cpu":
        from kdcli.models.device import resolve

        device = resolve(device)
    load = partial(load_student, device=device)
    loaded = Loaded[Model](load(path), load, (path,), (path,))
    return LoadedModel(loaded, (path,), lambda: files_sha256(path), {"device": device.partition(":")[0]})


def open_teacher(
    name: str, settings: "Settings", reporter: Reporter, task: Task | None = None, output: Path | None = None
) -> LoadedModel:
    """Load a teacher from its folder, a run's, or the Hub; one behind a server keeps its answers beside ``output``."""
    from kdcli.models.device import at_hand, resolve
    from kdcli.run import teacher_of
    from kdcli.tasks.split import task_from
    from kdcli.teacher.model import TeacherSource, load_teacher

    device = at_hand(settings.device) if settings.engine == "ray" else resolve(settings.device)
    precision, task = settings.precision, task or task_from(settings.task)
    source = TeacherSource.of(settings, teacher_of(name), output)
    model = source.load(task, device=device, precision=precision, reporter=reporter)
    how = {"max_length": model.loaded.max_length, "precision": precision, "device": device.partition(":")[0]}
    loaded = Loaded[Model](model, load_teacher, (source, task, settings.device, precision), source.files)
    return LoadedModel(loaded, (Path(source.model),), model.loaded.fingerprint, {**how, **source.unusual})


def open_deferring(
    student: LoadedModel,
    agree: float | None,
    teacher: str | None,
    settings: "Settings | None",
    reporter: Reporter,
    output: Path | None = None,
) -> LoadedModel:
    """Make a student defer, to a teacher if one is named; one that was not calibrated is a ``DataError``."""
    opened = None
    if teacher is not None and settings is not None:
        opened = open_teacher(teacher, settings, reporter, student.model.task, output)
    parts = student.loaded, agree, opened.loaded if opened else None
    model = _load_deferring(*parts)
    files = student.loaded.files + (opened.loaded.files if opened else ())
    loaded, how = Loaded[Model](model, _load_deferring, parts, files), {**student.how, "agree": model.target}
    if opened is None:
        return replace(student, loaded=loaded, how=how)
    folders, how["teacher"] = student.folders + opened.folders, dict(opened.how)
    return LoadedModel(loaded, folders, lambda: student.fingerprint()[:8] + opened.fingerprint()[:8], how)


def _load_deferring(student: Loaded[Any], agree: float | None, teacher: Loaded[Any] | None) -> DeferringStudent:
    return DeferringStudent(student.value, agree, teacher.value if teacher else None)


@dataclass(frozen=True)
class CalibrationResult:
    """The target of a run, and what its student may answer for it; shares are of the calibration texts."""

    texts: int  # calibration texts, which neither training nor choice has seen
    needed: int  # the fewest that can promise the target
    agree: float  # the target
    answered: float  # the share that the student answers; 0 where no threshold meets the target
    bound: float  # with 95 % confidence at most this share of new texts is answered otherwise than by the teacher
    measured_answered: float  # by cross-fitting, on texts that did not choose the threshold
    measured_agreement: float  # likewise: the share that is not answered otherwise
    accuracy: float | None = None  # of the pair; None without gold labels
    teacher_accuracy: float | None = None


def calibrate_student(
    *,
    student: Path,
    predictions: Path,
    dev: pl.DataFrame,
    gold: bool,
    settings: "DeferralSettings",
    task: Task,
    reporter: Reporter,
) -> CalibrationResult:
    """Calibrate a student on the test texts whose answers are in ``predictions``; write it into the student's folder.

    All of them calibrate: the more there are, the more the student may answer. The bound holds on new texts without a
    look at further ones; what a user will see is measured by cross-fitting. The ``dev`` texts, which have chosen the
    model, say what is familiar. No answers for test texts are a ``DataError``.
    """
    found = pl.read_parquet(predictions, glob=False).filter(pl.col("table").str.starts_with("test"))
    if not len(found):
        hint = "it takes a test table, with labels unless task.gold is false; kd distil makes one from 5,000 texts on"
        raise DataError("there are no answers for test texts, which calibrate a student", file=predictions, hint=hint)
    model = load_student(student)
    texts, of_dev = ([table[name].to_list() for name in task.columns] for table in (found, dev))
    theirs = found.select(f"teacher_{number}" for number in range(task.outputs)).to_numpy()
    ours, familiar = model.logits(texts), Familiar.like(model.word_counts(of_dev))
    margin = margins(ours, model.word_counts(texts), model.task, familiar)  # with the student's own thresholds
    wrong, right = differs(ours, theirs, model.task, settings.tolerance), None
    if gold and not task.is_score:
        labels = encode_labels(found["label"], task, file=predictions)
        right = np.stack([same(answers(theirs, task), labels), same(answers(ours, model.task), labels)])
    calibration = calibrate(margin, wrong, agree=settings.agree, familiar=familiar, right=right)
    with atomic(student / CALIBRATION) as temporary:
        calibration.save(temporary)
    mark(student, but=[name for name in foreign(student) if name != CALIBRATION])
    share, bound, accuracy, place = 0.0, 0.0, None, calibration.errors()
    if place is None:
        reporter.warn(too_few(calibration, settings.agree))
    else:
        share, bound = calibration.answered[place], calibration.bounds[place]
        accuracy = calibration.accuracy[place] if calibration.accuracy else None
    chosen = calibration.texts, texts_needed(settings.agree), settings.agree, share, bound
    return CalibrationResult(*chosen, *cross_fit(margin, wrong, calibration), accuracy, calibration.teacher_accuracy)


def too_few(calibration: Calibration, agree: float) -> str:
    """Say why no threshold meets a target."""
    needed = f"{texts_needed(agree):,} calibration texts at least, and there are {calibration.texts:,}"
    return f"an agreement of {agree:g} needs {needed}: every text is deferred"
