"""The models that predict: a student or a teacher, from its own folder or from that of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api import Reporter
from kdcli.evaluate.predictions import Model

if TYPE_CHECKING:
    from kdcli.config.schema import Settings


@dataclass(frozen=True)
class Opened:
    """A model, and what it is.

    Attributes:
        model: The model.
        folder: Its files.
        how: How it computes, as JSON values.
    """

    model: Model
    folder: Path
    how: Mapping[str, Any]

    def origin(self) -> dict[str, Any]:
        """Return all that its predictions depend on: a hash of its files (not of folders in theirs), and how."""
        from kdcli.files import files_sha256

        return {"model": files_sha256(self.folder)[:16], **self.how}


def open_student(path: Path, device: str = "auto") -> Opened:
    """Load a student, importing as little as its prediction needs: it should start at once.

    Args:
        path: Its folder, or that of a run.
        device: Where it runs; ``auto`` is the CPU, which needs no PyTorch.

    Raises:
        DataError: The folder is not a student's, or is not whole.
    """
    if not (path / "config.json").is_file():
        from kdcli.run.places import student_folder

        path = student_folder(path)
    if device in ("auto", "cpu"):
        from kdcli.student.loaded import load_student

        return Opened(load_student(path), path, {"device": "cpu"})
    from kdcli.models.device import resolve
    from kdcli.student.folder import load_student as load_module

    device = resolve(device)
    return Opened(load_module(path, device), path, {"device": device.partition(":")[0]})


def open_teacher(name: str, settings: Settings, reporter: Reporter) -> Opened:
    """Load a teacher.

    Args:
        name: Its folder, that of a run, or a hub name.
        settings: The task, the longest input, the device and the precision.
        reporter: Told when files are fetched.

    Raises:
        DataError: It is no fine-tuned model, or not one of the task.
        MissingError: There is no such teacher.
    """
    from kdcli.models.device import resolve
    from kdcli.run.places import teacher_of
    from kdcli.tasks.task import task_from
    from kdcli.teacher.model import load_teacher

    device = resolve(settings.device)
    model = load_teacher(
        teacher_of(name),
        task_from(settings.task),
        max_length=settings.teacher.max_length,
        device=device,
        precision=settings.precision,
        reporter=reporter,
    )
    how = {"max_length": model.max_length, "precision": settings.precision, "device": device.partition(":")[0]}
    return Opened(model, model.folder, how)
