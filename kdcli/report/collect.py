"""Read the folder of a run that has ended or is half done."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tomli
from pydantic import TypeAdapter, ValidationError

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.load import flatten
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, first_line
from kdcli.evaluate.bench import BenchReport
from kdcli.evaluate.results import Results
from kdcli.files import CALIBRATION
from kdcli.report.texts import TablePredictions, TransferSet, read_predictions, survey
from kdcli.run import REQUEST, Entry, Lock, artefact, transfer_set
from kdcli.run.stages import STAGES
from kdcli.student.deferral import Calibration
from kdcli.tasks.split import task_from

T = TypeVar("T")
Point = Mapping[str, float | None]
_STAGES = {"lite": "lite", "heavy": "sample", "corpus": "corpus", "mix": "mix"}
"""The stage of each method, and of their join."""


@dataclass(frozen=True)
class Curve:
    """A learning curve."""

    stage: str  # teacher, generator, student or baseline
    label: str  # its seed or its learning rate, where the stage has several curves; else empty
    steps: list[int]  # updates done at each point
    values: dict[str, list[float | None]]  # by quantity (loss, dev_loss, lr, a metric); None where it was no number

    @property
    def metrics(self) -> list[str]:
        """The quantities measured on dev, beside its loss."""
        return [name for name in self.values if name not in ("loss", "dev_loss", "lr")]


@dataclass(frozen=True)
class RunContents:
    """A run; what it does not have yet is None or empty."""

    root: Path
    task: Task
    settings: dict[str, Any]  # the resolved profile, by dotted key
    profile: str  # the same as TOML
    stages: dict[str, Entry]  # by kd.lock, in the order in which they ran first
    results: Results | None
    bench: BenchReport | None
    curves: list[Curve]
    transfer: TransferSet | None
    predictions: list[TablePredictions]
    calibration: Calibration | None = None  # of its first student
    request: Mapping[str, Any] = field(default_factory=dict)  # the record of `kd distil`

    @property
    def versions(self) -> dict[str, dict[str, list[str]]]:
        """The stages that ran with each version, by package: one version where nothing was updated in between."""
        found: dict[str, dict[str, list[str]]] = {}
        for key, stage in self.stages.items():
            for package, version in stage.versions.items():
                found.setdefault(package, {}).setdefault(version, []).append(key)
        return found

    @property
    def made(self) -> dict[str, Any]:
        """The result dataclass of each method that the profile uses, and of ``mix`` where it joins several."""
        used = (*str(self.settings.get("transfer.method", "lite")).split("+"), "mix")
        return {
            method: TypeAdapter(STAGES[key].result_type()).validate_python(found)
            for method, key in _STAGES.items()
            if method in used and key in self.stages and (found := self.stages[key].result)
        }


def collect(root: str | Path, *, reporter: Reporter = QuietReporter()) -> RunContents:
    """Read the folder of a run that has ended or is half done; another or a damaged one is a ``DataError``."""
    root = Path(root)
    profile = root / "profile.toml"
    if not profile.is_file():
        what = "this is not a run folder: it has no profile.toml" if root.is_dir() else "there is no such run folder"
        raise DataError(what, file=root, hint="name a folder that `kd run-all` has made, runs/demo for example")
    task, settings = _settings(profile)
    stages = Lock(root).entries()
    histories = {key: stage.result["history"] for key, stage in stages.items() if "history" in stage.result}
    table, seed = transfer_set(root), int(settings["seed"])
    return RunContents(
        root=root.resolve(),
        task=task,
        settings=settings,
        profile=profile.read_text("utf-8"),
        stages=stages,
        results=_read(artefact(root, "results"), Results, "kd run-all --only results"),
        bench=_read(root / "bench.json", BenchReport, "kd bench"),
        curves=read_curves(root / "metrics.jsonl", histories, stages["teacher"].result if "teacher" in stages else {}),
        transfer=survey(table, task, seed=seed, reporter=reporter) if table else None,
        predictions=read_predictions(artefact(root, "predictions"), task),
        calibration=Calibration.load(artefact(root, "student") / CALIBRATION),
        request=_read(root / REQUEST, dict[str, Any], "kd distil") or {},
    )


def _settings(path: Path) -> tuple[Task, dict[str, Any]]:
    """Read a resolved profile as it is: the environment of now is not that of the run."""
    try:
        values = tomli.loads(path.read_text("utf-8"))
        task = task_from(TaskSettings.model_validate(values.get("task", {})))
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, ValidationError) as error:
        raise DataError(f"this is not a resolved profile: {first_line(error)}", file=path) from error
    return task, {"seed": 1, **{key: value for key, value in flatten(values) if value != {}}}


def _read(path: Path, kind: type[T], command: str) -> T | None:
    if not path.exists():
        return None
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        what = f"this is not a {kind.__name__}: {first_line(error)}"
        raise DataError(what, file=path, hint=f"`{command}` makes it again") from error


def read_curves(path: Path, histories: Mapping[str, Sequence[Point]], teacher: Mapping[str, Any]) -> list[Curve]:
    """Read the curves of a run, those of each stage together.

    A launch that resumes, or starts again, appends to the file. So a point replaces all points of its training that are
    not before it. A line that was cut off is left out. The histories of finished students are exact, and the grid of
    the teacher's result says which learning rates belong to it.
    """
    trainings: dict[tuple[str, str], dict[int, Point]] = {}
    for point in _points(path):
        stage, step, rate = point["stage"], point["step"], point.get("peak_lr")
        if rate is None and stage in ("teacher", "generator"):
            rate = point.get("lr")  # of an earlier run, the peak
        key = stage, "" if rate is None else f"{rate:g}"
        before = trainings.get(key, {})
        trainings[key] = {**{other: value for other, value in before.items() if other < step}, step: point}
    grid = {f"{float(rate):g}" for rate in teacher.get("grid", {})}
    if grid:
        trainings = {key: points for key, points in trainings.items() if key[0] != "teacher" or key[1] in grid}
    for name, history in histories.items():
        trainings[name, ""] = {int(point["update"] or 0): point for point in history}
    return [_curve(name, rate, points, [of for of, _ in trainings]) for (name, rate), points in trainings.items()]


def _points(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            point = json.loads(line)
            numbers = {key: value if isinstance(value, int | float) else None for key, value in point.items()}
            found.append({**numbers, "stage": str(point["stage"]), "step": int(point["step"])})
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue  # a launch was killed while it wrote the line
    return found


def _curve(name: str, rate: str, points: Mapping[int, Point], names: Sequence[str]) -> Curve:
    stage, _, seed = name.partition("-seed")
    if any(re.fullmatch(rf"{re.escape(stage)}-seed\d+", other) for other in names):
        label = f"seed {seed}" if seed else "first seed"
    else:
        label = f"lr {rate}" if names.count(name) > 1 else ""
    keys = dict.fromkeys(key for point in points.values() for key in point)
    kept = [key for key in keys if key not in ("time", "stage", "step", "peak_lr", "update", "epoch")]
    return Curve(stage, label, list(points), {key: [point.get(key) for point in points.values()] for key in kept})
