"""Learning curves: ``metrics.jsonl``, and TensorBoard and Weights & Biases through Accelerate's trackers."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdcli.api import Reporter
from kdcli.errors import MissingError, UsageError, shown

TRACKERS = ("tensorboard", "wandb")  # the trackers; each is the name of its package too


def parse_trackers(text: str | None) -> tuple[str, ...]:
    """Read the names of ``--track``, with commas between them; each tracker must be installed."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(","))) if text is not None else ()
    for name in names:
        if name not in TRACKERS:
            hint = f"the trackers are {', '.join(TRACKERS)}"
            raise UsageError(f"no tracker is named {name!r}", key="track", hint=hint)
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder of that name in the current one is not the library
            raise MissingError(f"--track {name} needs the library {name}", hint="pip install 'kdcli[track]'")
    return names


class _Tracker:
    """One tracker of Accelerate's, started by its first point; each stage has curves, and steps, of its own."""

    def __init__(self, name: str, root: Path, project: str, device: str) -> None:
        self.name, self.root, self.project, self.device = name, root, project, device
        self._started: Any = None
        self._stages: set[str] = set()

    def send(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self._started = self._started or self._start()
        point = {f"{stage}/{name}": float(value) for name, value in values.items()}
        if self.name == "tensorboard":
            self._started.log(point, step=step)
            return
        # The steps of a wandb run never decrease; those of the next stage do, so each stage has an axis of its own.
        if stage not in self._stages:
            self._started.tracker.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        self._started.log({**point, f"{stage}/step": step})

    def finish(self) -> None:
        if self._started is not None:
            self._started.finish()

    def _start(self) -> Any:
        from accelerate import PartialState
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        PartialState(cpu=self.device == "cpu")  # Accelerate's logger needs it; a training has made it already
        if self.name == "tensorboard":
            tracker = TensorBoardTracker("tensorboard", self.root)
        else:
            tracker = WandBTracker(self.project, name=self.root.name, dir=str(self.root))
        tracker.start()
        return tracker


class CurveReporter:
    """A reporter that writes each point of a learning curve to ``metrics.jsonl`` and to trackers."""

    def __init__(self, reporter: Reporter, root: Path, trackers: Mapping[str, _Tracker]) -> None:
        self.progress, self.info, self.warn = reporter.progress, reporter.info, reporter.warn
        self._reporter, self._file, self._trackers = reporter, root / "metrics.jsonl", dict(trackers)

    def metrics(self, stage: str, step: int, **values: float) -> None:
        """Write a point; a value that is not finite is null in the file."""
        self._reporter.metrics(stage, step, **values)
        numbers = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), "stage": stage, "step": step, **numbers}) + "\n")
        self.each("send", stage, step, values)

    def each(self, method: str, *values: Any) -> None:
        """Call a method of all trackers that work."""
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, method)(*values)
            except Exception as error:  # whatever a tracker, its service or the network may raise
                self.warn(f"{name} does not track any more: {shown(error)}")
                del self._trackers[name]


@contextmanager
def tracking(
    trackers: tuple[str, ...], root: Path, project: str, device: str, reporter: Reporter
) -> Iterator[CurveReporter]:
    """Give a reporter that also writes learning curves to the run folder and trackers; one that fails is left out."""
    curves = CurveReporter(reporter, root, {name: _Tracker(name, root, project, device) for name in trackers})
    try:
        yield curves
    finally:
        curves.each("finish")
