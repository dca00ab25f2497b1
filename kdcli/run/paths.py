"""The layout of a run folder, and the model that a path names: its own folder, or the run around it.

Nothing here imports a stage, so that ``kd predict`` stays light.
"""

from __future__ import annotations

import json
from pathlib import Path

from kdcli.errors import DataError

LAYOUT = {
    "lite": "transfer/lite.parquet",
    "heavy": "transfer/heavy.parquet",
    "corpus": "transfer/corpus.parquet",
    "transfer": "transfer/transfer.parquet",
    "cache": "transfer/cache.parquet",
    "generator": "transfer/generator",
    "prefixes": "transfer/prefixes.json",
    "teacher": "teacher",
    "known": "texts/known.safetensors",
    "logits": "export/logits.safetensors",
    "dev_logits": "export/dev.safetensors",
    "joined": "join/joined.parquet",
    "encoded": "encode",
    "student": "student",
    "baseline": "baseline",
    "results": "results.json",
    "predictions": "predictions.parquet",
}
"""The artefacts of a run: a table for each method of the transfer set and for several joined, then one a stage."""
REQUEST = "distil.json"
"""What `kd distil` was asked for, in its run folder: the same again goes on with the plan that was made."""


def artefact(root: Path, name: str, seed: int | None = None) -> Path:
    """Return the path of an artefact; students and baselines of further seeds have folders of their own."""
    path = root / LAYOUT[name]
    return path if seed is None else path.with_name(f"{path.name}-seed{seed}")


def transfer_set(root: Path) -> Path | None:
    """Return the joined set of a run, or the transfer set where there are no logits yet; None where there is none."""
    paths = [artefact(root, name) for name in ("joined", "transfer", "lite", "heavy", "corpus")]
    return next((path for path in paths if path.exists()), None)


def is_run(path: Path) -> bool:
    """Return whether a path is a run folder."""
    return (path / "kd.lock").is_file()


def profile_of(path: Path) -> Path | None:
    """Return the profile of the run that a path is, or lies in."""
    profiles = (root / "profile.toml" for root in (path, path.absolute().parent) if is_run(root))
    return next((profile for profile in profiles if profile.is_file()), None)


def text_columns_of(path: Path) -> list[str]:
    """Return the text columns of the user's tables in the run that a path is, or lies in; empty where unknown."""
    if (own := profile_of(path)) is None:
        return []
    from kdcli.config.files import read

    request = own.with_name(REQUEST)
    found = json.loads(request.read_text("utf-8")) if request.is_file() else {}
    columns: list[str] = read(own).get("task", {}).get("text_columns") or found.get("columns", [])
    return columns


def student_folder(path: Path) -> Path:
    """Return the folder of a student: the path itself, or the student of the run; ``DataError`` if it has none."""
    if not is_run(path):
        return path
    student = artefact(path, "student")
    if not student.is_dir():
        raise DataError("this run has no student yet", file=path, hint="`kd run-all` or `kd student` makes it")
    return student


def teacher_of(name: str) -> str:
    """Return the folder or hub name of a teacher: the name itself, or the teacher of the run."""
    if not is_run(Path(name)):
        return name
    teacher = own_teacher(Path(name))
    if teacher is None:
        raise DataError("this run has no teacher yet", file=name, hint="`kd teacher train` makes it")
    return teacher


def own_teacher(path: Path) -> str | None:
    """Return the teacher of the run that a path is: the one fine-tuned there, or the one that its profile names.

    None where the path is not a run folder (the folder of a student stands for itself alone), or the run has none.
    """
    if not is_run(path):
        return None
    teacher = artefact(path, "teacher")
    if teacher.is_dir():
        return str(teacher)
    profile = profile_of(path)
    if profile is None:
        return None
    from kdcli.config.load import load_profile  # not for a student, whose prediction should start at once

    settings = load_profile(profile, environ={}, uses=()).settings.teacher
    return None if settings.train else settings.model
