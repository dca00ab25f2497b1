"""The models that ``kd predict`` opens: a student, a teacher, or a student that defers to its teacher."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api import Reporter, Task
from kdcli.evaluate.pair import DeferringStudent
from kdcli.evaluate.predict import Model
from kdcli.files import files_sha256
from kdcli.parts import Loaded
from kdcli.student.student import load_student

if TYPE_CHECKING:
    from kdcli.config.schema import Settings


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
        from kdcli.run.folder import student_folder

        path = student_folder(path)
    if device == "auto":
        device = "cpu"
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
    from kdcli.run.folder import teacher_of
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
