"""A run folder: its layout, its record ``kd.lock``, and the model that a path names: its own folder, or the run's.

Nothing here imports a stage, so that ``kd predict`` stays light.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdcli import registry
from kdcli.errors import DataError
from kdcli.files import sha256, write_text

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
FORMAT = 2  # the number of the format; files without one are of an older kd


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


def columns_of(path: Path) -> tuple[list[str], str | None]:
    """Return the text and label columns of the run that a path is, or lies in; empty and None where unknown."""
    if (own := profile_of(path)) is None:
        return [], None
    from kdcli.config.files import read

    request, task = own.with_name(REQUEST), read(own).get("task", {})
    found = json.loads(request.read_text("utf-8")) if request.is_file() else {}
    texts, label = task.get("text_columns") or found.get("columns", []), task.get("label_column")
    return texts, label or found.get("label_column")


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

    None where the run has none, or the path is not a run folder: a student's folder stands for itself alone.
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


@dataclass(frozen=True)
class Entry:
    """The record of a stage."""

    parameters: dict[str, Any]  # the settings it depends on, by dotted key; the seed is one of them
    inputs: dict[str, str]  # SHA-256 by name
    outputs: dict[str, str] = field(default_factory=dict)  # SHA-256 by name; empty while the stage runs
    result: dict[str, Any] = field(default_factory=dict)  # its result dataclass as a dictionary
    versions: dict[str, str] = field(default_factory=dict)  # of Python, packages, plugins; they make nothing stale

    @property
    def ended(self) -> bool:
        """Whether the stage came to its end."""
        return bool(self.outputs)


class Lock:
    """The ``kd.lock`` of a run folder; with ``replace``, a file of an older kd counts as empty."""

    def __init__(self, root: Path, *, replace: bool = False) -> None:
        self.path = root / "kd.lock"
        self._replace = replace

    def entries(self) -> dict[str, Entry]:
        """Return all entries, in the order of their first runs; a damaged file or an older kd's is a ``DataError``."""
        if not self.path.exists():
            return {}
        try:
            content = json.loads(self.path.read_text("utf-8"))
            found = content.get("format")
            if found == FORMAT:
                return {key: Entry(**entry) for key, entry in content["stages"].items()}
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            hint = "remove it to run all stages again"
            raise DataError(f"this kd.lock is damaged: {error}", file=self.path, hint=hint) from error
        if self._replace:
            return {}
        age = "an older kd" if found is None else f"another kd (format {found})"
        hint = "name another --run-dir, or --force to make it again; its student can still be predicted with"
        raise DataError(f"this run folder was made by {age}", file=self.path, hint=hint)

    def entry(self, key: str) -> Entry | None:
        """Return the record of a stage, or None if it never ran."""
        return self.entries().get(key)

    def record(self, key: str, entry: Entry) -> None:
        """Write the record of a stage."""
        stages = {key: asdict(entry) for key, entry in {**self.entries(), key: entry}.items()}
        content = json.dumps({"format": FORMAT, "stages": stages}, indent=1, ensure_ascii=False)
        write_text(self.path, content + "\n")


def stale(
    entry: Entry | None, parameters: Mapping[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, Path]
) -> list[str]:
    """Return why a stage has to run: changed settings or inputs, missing outputs; nothing if it is up to date."""
    if entry is None:
        return ["first run"]
    if not entry.ended:
        return ["it was stopped before its end"]
    then, now = entry.parameters, json.loads(json.dumps(dict(parameters)))
    from kdcli.config.load import flatten
    from kdcli.config.schema import Settings

    # An older kd did not record a setting that it did not have: it had its default.
    defaults = dict(flatten(Settings().model_dump(mode="json")))
    keys = [key for key in {**then, **now} if then.get(key, defaults.get(key)) != now.get(key)]
    names = [name for name in {**entry.inputs, **inputs} if entry.inputs.get(name) != inputs.get(name)]
    return [
        *(f"{key} changed {_show(then.get(key))} -> {_show(now.get(key))}" for key in keys),
        *(f"input {name} changed" for name in names),
        *(f"output {name} is missing" for name, path in outputs.items() if not path.exists()),
    ]


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """Hash the files and folders that exist; a missing one has no hash."""
    return {name: sha256(path) for name, path in files.items() if path.exists()}


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on, those of other people's plugins among them."""
    packages = ("kdcli", "torch", "transformers", "tokenizers", "numpy", "polars")
    found = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return found | registry.all_versions()


def _show(value: Any) -> str:
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
