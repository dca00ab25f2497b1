"""What a run folder holds, as far as the run has come."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.layers import flatten
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, first_line
from kdcli.report.curves import Curve, read_curves
from kdcli.report.predictions import Predictions, read_predictions
from kdcli.report.transfer_set import TransferSet, survey
from kdcli.tasks.task import task_from


@dataclass(frozen=True)
class Stage:
    """A stage of the run, as ``kd.lock`` tells it.

    Attributes:
        key: Its entry there.
        state: ``done``, ``not ended``, or ``older than KEY``: a stage before it was run again since.
        seed: The seed it was run with; None where it draws nothing.
        result: What it found out; empty where it did not end.
        versions: Of Python and the packages it ran with.
        outputs: SHA-256 of each output, by name.
    """

    key: str
    state: str
    seed: int | None
    result: dict[str, Any]
    versions: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Run:
    """A run; what it has not come to is None or empty.

    Attributes:
        root: Its folder.
        task: Its task.
        settings: The resolved profile, by dotted key.
        profile: The same as TOML.
        stages: Its stages by key, in the order in which they ran first.
        results: What ``results.json`` holds: metrics, rows, gap_closed.
        bench: What ``bench.json`` holds, if ``kd bench`` was asked: models, ratios, texts, words, source, machine.
        curves: The learning curves.
        transfer: The transfer set, with the teacher's answers where it has given any.
        predictions: What teacher, baseline and student say, table by table.
    """

    root: Path
    task: Task
    settings: dict[str, Any]
    profile: str
    stages: dict[str, Stage]
    results: dict[str, Any] | None
    bench: dict[str, Any] | None
    curves: list[Curve]
    transfer: TransferSet | None
    predictions: list[Predictions]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.root.resolve().name

    @property
    def seed(self) -> int:
        """Its first seed."""
        return int(self.settings["seed"])

    @property
    def versions(self) -> dict[str, dict[str, list[str]]]:
        """The stages that ran with each version, by package: one version where nothing was updated in between."""
        found: dict[str, dict[str, list[str]]] = {}
        for stage in self.stages.values():
            for package, version in stage.versions.items():
                found.setdefault(package, {}).setdefault(version, []).append(stage.key)
        return found


def collect(root: str | Path, *, texts: bool = True, reporter: Reporter | None = None) -> Run:
    """Read a run folder.

    Args:
        root: The folder, of a run that has ended or is half done.
        texts: Read the tables of texts too; the comparison of several runs does without.
        reporter: Shows the progress through the transfer set.

    Raises:
        DataError: The folder is no run's, or one of its files is damaged.
    """
    root = Path(root)
    profile = root / "profile.toml"
    if not profile.is_file():
        what = "there is no such run folder" if not root.is_dir() else "this is no run folder: it has no profile.toml"
        raise DataError(what, file=root, hint="name a folder that `kd run-all` has made, runs/demo for example")
    task, settings = _settings(profile)
    stages = _stages(root / "kd.lock")
    histories = {key: stage.result["history"] for key, stage in stages.items() if "history" in stage.result}
    return Run(
        root=root,
        task=task,
        settings=settings,
        profile=profile.read_text("utf-8"),
        stages=stages,
        results=_read(root / "results.json", ("metrics", "rows", "gap_closed"), "kd run-all --only results"),
        bench=_read(root / "bench.json", ("models", "ratios", "texts", "words", "source", "machine"), "kd bench"),
        curves=read_curves(root / "metrics.jsonl", histories, stages["teacher"].result if "teacher" in stages else {}),
        transfer=_transfer(root, task, int(settings["seed"]), reporter or QuietReporter()) if texts else None,
        predictions=read_predictions(root / "predictions.parquet", task) if texts else [],
    )


def _settings(path: Path) -> tuple[Task, dict[str, Any]]:
    """Read a resolved profile as it is: what the environment says now is not what the run was made with."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
        task = task_from(TaskSettings.model_validate(values.get("task", {})))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise DataError(f"this is no resolved profile: {first_line(error)}", file=path) from error
    return task, {"seed": 1, **{key: value for key, value in flatten(values) if value != {}}}


def _stages(path: Path) -> dict[str, Stage]:
    if not path.exists():
        return {}
    try:
        entries: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return {
            key: Stage(
                key,
                _state(key, entries),
                entry["parameters"].get("seed"),
                entry["result"] if entry["outputs"] else {},
                entry["versions"],
                entry["outputs"],
            )
            for key, entry in entries.items()
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"this is no kd.lock: {error!r}", file=path) from error


def _state(key: str, entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Compare what a stage was made from with what the stages that make it have made last."""
    if not entries[key]["outputs"]:
        return "not ended"
    kind, dash, seed = key.partition("-seed")
    for name, hashed in entries[key]["inputs"].items():
        # The baseline's "student" is that of its own seed; all others are named as the stage or as its output.
        maker = f"{name}{dash}{seed}" if kind == "baseline" else name
        made = entries.get(maker) or next((entry for entry in entries.values() if name in entry["outputs"]), None)
        outputs = made["outputs"] if made else {}
        if outputs and hashed not in outputs.values():
            return f"older than {name}"
    return "done"


def _read(path: Path, names: tuple[str, ...], maker: str) -> dict[str, Any] | None:
    """Read what these names stand for in a JSON file, if it is there."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        return {name: content[name] for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"these are no results: {error!r}", file=path, hint=f"`{maker}` makes it again") from error


def _transfer(root: Path, task: Task, seed: int, reporter: Reporter) -> TransferSet | None:
    """Survey the joined set, or where there are no logits yet the transfer set; each is whole or not there at all."""
    for place in ("join/joined", "transfer/transfer"):
        for suffix in (".tsv", ".parquet"):
            path = root / f"{place}{suffix}"
            if path.exists():
                return survey(path, task, seed=seed, reporter=reporter)
    return None
