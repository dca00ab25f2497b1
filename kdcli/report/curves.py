"""Learning curves: from ``metrics.jsonl``, and from what finished students know of theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Point = Mapping[str, float | None]


@dataclass(frozen=True)
class Curve:
    """How a training went.

    Attributes:
        stage: teacher, generator, student or baseline.
        label: What tells it from others of the stage: its seed or its learning rate; empty where it is the only one.
        steps: Updates done at each point.
        values: By quantity (loss, dev_loss, a metric), a value for each step; None where it was no number.
    """

    stage: str
    label: str
    steps: list[int]
    values: dict[str, list[float | None]]

    @property
    def metrics(self) -> list[str]:
        """What was measured on dev, beside its loss."""
        return [name for name in self.values if name not in ("loss", "dev_loss")]


def read_curves(path: Path, histories: Mapping[str, Sequence[Point]], teacher: Mapping[str, Any]) -> list[Curve]:
    """Read the curves of a run, those of each stage together.

    The file is appended to: by a launch that goes on where another was killed, and by one that starts again. So a
    point takes the place of all of its training that are not before it. A line that was cut off is left out.

    Args:
        path: ``metrics.jsonl``; it need not be there.
        histories: By stage, the points of the students that have ended; they know their curves better.
        teacher: The result of the teacher's stage: its grid says which learning rates belong to it.
    """
    trainings: dict[tuple[str, str], dict[int, Point]] = {}
    for point in _points(path):
        key, step = (point["stage"], _rate(point.get("lr"))), point["step"]
        before = trainings.get(key, {})
        trainings[key] = {**{other: value for other, value in before.items() if other < step}, step: point}
    grid = {_rate(float(rate)) for rate in teacher.get("grid", {})}
    if grid:
        trainings = {key: points for key, points in trainings.items() if key[0] != "teacher" or key[1] in grid}
    trainings |= {(name, ""): {int(point["update"] or 0): point for point in told} for name, told in histories.items()}
    return [_curve(name, rate, points, [of for of, _ in trainings]) for (name, rate), points in trainings.items()]


def _points(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            point = json.loads(line)
            found.append({**point, "stage": str(point["stage"]), "step": int(point["step"])})
        except (ValueError, KeyError, TypeError):
            continue  # a launch was killed while it wrote the line
    return found


def _curve(name: str, rate: str, points: Mapping[int, Point], names: Sequence[str]) -> Curve:
    stage, _, seed = name.partition("-seed")
    if any(re.fullmatch(rf"{re.escape(stage)}-seed\d+", other) for other in names):
        label = f"seed {seed}" if seed else "first seed"
    else:
        label = f"lr {rate}" if names.count(name) > 1 else ""
    drawn = dict.fromkeys(key for point in points.values() for key in point)
    kept = [key for key in drawn if key not in ("time", "stage", "step", "lr", "update", "epoch")]
    return Curve(stage, label, list(points), {key: [point.get(key) for point in points.values()] for key in kept})


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
