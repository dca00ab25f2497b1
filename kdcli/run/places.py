"""What a path of the command line stands for: a model's own folder, or a run folder that holds it."""

from __future__ import annotations

from pathlib import Path

from kdcli.errors import DataError
from kdcli.run.run_dir import Paths

_LOCK, _PROFILE = "kd.lock", "profile.toml"


def is_run(path: Path) -> bool:
    """Whether a path is a run folder."""
    return (path / _LOCK).is_file()


def run_of(path: Path) -> Path | None:
    """Return the run folder that a path is, or lies in; None where there is none."""
    return next((root for root in (path, path.absolute().parent) if is_run(root)), None)


def student_folder(path: Path) -> Path:
    """Return the folder of a student: the path itself, or the student of the run.

    Raises:
        DataError: The run has no student.
    """
    if not is_run(path):
        return path
    student = Paths.in_run(path).student
    if not student.is_dir():
        raise DataError("this run has no student yet", file=path, hint="`kd run-all` or `kd student` makes it")
    return student


def profile_of(path: Path) -> Path | None:
    """Return the profile of the run that a path is, or lies in."""
    run = run_of(path)
    return run / _PROFILE if run is not None and (run / _PROFILE).is_file() else None


def teacher_of(name: str) -> str:
    """Return the folder or hub name of a teacher: the name itself, or the teacher of the run.

    Raises:
        DataError: The run has no teacher.
    """
    if not is_run(Path(name)):
        return name
    teacher = own_teacher(Path(name))
    if teacher is None:
        raise DataError("this run has no teacher yet", file=name, hint="`kd teacher train` makes it")
    return teacher


def own_teacher(path: Path) -> str | None:
    """Return the teacher of the run that a path is: the one fine-tuned there, or the one that its profile names.

    None where the path is no run folder (a student's folder in one stands for itself alone), or the run has none.
    """
    if not is_run(path):
        return None
    teacher = Paths.in_run(path).teacher
    if teacher.is_dir():
        return str(teacher)
    profile = profile_of(path)
    if profile is None:
        return None
    from kdcli.config.load import load_profile  # not for a student, whose prediction should start at once

    settings = load_profile(profile, environ={}, uses=()).settings.teacher
    return None if settings.train else settings.model
