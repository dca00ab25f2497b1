"""``kd.lock``: the record of each stage, and the rule of when a stage has to run again."""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdcli import registry
from kdcli.config.load import flatten
from kdcli.config.schema import Settings
from kdcli.errors import DataError
from kdcli.files import atomic, sha256

FORMAT = 2
"""The number of the format; files without one are of an older kd."""


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
        self._writing = threading.Lock()

    def entries(self) -> dict[str, Entry]:
        """Return all entries, in the order in which the stages ran first.

        Raises:
            DataError: The file is damaged, or an older kd wrote it.
        """
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
        with self._writing, atomic(self.path) as temporary:
            stages = {key: asdict(entry) for key, entry in {**self.entries(), key: entry}.items()}
            content = json.dumps({"format": FORMAT, "stages": stages}, indent=1, ensure_ascii=False)
            temporary.write_text(content + "\n", "utf-8")


def stale(
    entry: Entry | None, parameters: Mapping[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, Path]
) -> list[str]:
    """Return why a stage has to run; nothing where it is up to date.

    It is up to date if it ended with the same settings and the same hashes of inputs, and its outputs exist.
    """
    if entry is None:
        return ["first run"]
    if not entry.ended:
        return ["it did not come to its end"]
    then, now = entry.parameters, json.loads(json.dumps(dict(parameters)))
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
