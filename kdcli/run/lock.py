"""``kd.lock``: what each stage was made from, and so whether it is up to date, and if not, why not."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel

from kdcli import registry
from kdcli.errors import DataError
from kdcli.files import atomic, sha256


@dataclass(frozen=True)
class Entry:
    """How a stage was made.

    Attributes:
        parameters: The settings it depends on, by dotted key; the seed is one of them.
        inputs: SHA-256 of each input, by name.
        outputs: SHA-256 of each output, by name; empty while the stage runs.
        result: What the stage found out, as its dataclass says.
        versions: Of Python, the packages that matter and the plugins; for the record, they never make a stage stale.
            (A plugin that is a file of ``--code`` is an input too.)
    """

    parameters: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


class Lock:
    """The ``kd.lock`` of a run folder."""

    def __init__(self, root: Path) -> None:
        self.path = root / "kd.lock"

    def entry(self, stage: str) -> Entry | None:
        """Return how ``stage`` was made, or None if it never ended well."""
        found = self._read().get(stage)
        return Entry(**found) if found else None

    def record(self, stage: str, entry: Entry) -> None:
        """Write down how ``stage`` was made."""
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):  # shards write it too
            content = {**self._read(), stage: asdict(entry)}
            with atomic(self.path) as temporary:
                temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        try:
            content = json.loads(self.path.read_text("utf-8"))
            return {str(stage): dict(entry) for stage, entry in content.items()}
        except (ValueError, AttributeError, TypeError) as error:
            hint = "remove it to run all stages again"
            raise DataError(f"this is no kd.lock: {error}", file=self.path, hint=hint) from error


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """Hash the files or folders that are there; a missing one has no hash."""
    return {name: sha256(path) for name, path in files.items() if path.exists()}


def stale(
    entry: Entry | None, parameters: Mapping[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, Path]
) -> list[str]:
    """Say why a stage must run: an empty list means that it is up to date.

    Args:
        entry: How the stage was made last.
        parameters: The settings it depends on now.
        inputs: The hashes of its inputs now.
        outputs: Where its outputs should be.
    """
    if entry is None:
        return ["it has not run yet"]
    if not entry.outputs:
        return ["it did not come to its end"]
    now = json.loads(json.dumps(dict(parameters)))
    reasons = [
        f"{key} changed {_show(entry.parameters.get(key))} -> {_show(now.get(key))}"
        for key in {**entry.parameters, **now}
        if entry.parameters.get(key) != now.get(key)
    ]
    reasons += [
        f"input {name} changed" for name in {**entry.inputs, **inputs} if entry.inputs.get(name) != inputs.get(name)
    ]
    return reasons + [f"output {name} is missing" for name, path in outputs.items() if not path.exists()]


def touched(entry: Entry | None, outputs: Mapping[str, Path]) -> Path | None:
    """Return an output that stands there and that the stage did not make, or that was changed since it did."""
    for name, path in outputs.items():
        if path.exists() and (entry is None or (entry.outputs and sha256(path) != entry.outputs.get(name))):
            return path
    return None


def flat(prefix: str, table: BaseModel, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Flatten a settings table into the dotted keys of ``parameters``, but for the names that change no result."""
    plain = table.model_dump(mode="json")  # an option of a plugin may be a path
    found: dict[str, Any] = {}
    for name in type(table).model_fields:
        value = getattr(table, name)
        if name in without:
            continue
        if isinstance(value, BaseModel):
            found |= flat(f"{prefix}.{name}", value, without=without)
        else:
            found[f"{prefix}.{name}"] = plain[name]
    return found


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on, those of other people's plugins among them."""
    packages = ("kdcli", "torch", "transformers", "tokenizers", "numpy")
    found = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return found | registry.all_versions()


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "unset" if value is None else str(value)
