"""Learning curves sent to TensorBoard and Weights & Biases, through Accelerate's trackers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdcli.errors import MissingError, UsageError, shown

KNOWN = ("tensorboard", "wandb")
"""The trackers; each is the name of its package too."""

Track = Callable[[str, int, Mapping[str, float]], None]
"""Takes a point of a learning curve: stage, step and values."""


def parse_trackers(text: str | None) -> tuple[str, ...]:
    """Read what ``--track`` says: names with commas between them.

    Raises:
        UsageError: A name is no tracker's.
        MissingError: A tracker is not installed.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(","))) if text is not None else ()
    for name in names:
        if name not in KNOWN:
            raise UsageError(f"no tracker is named {name!r}", key="track", hint=f"the trackers are {', '.join(KNOWN)}")
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder of that name in the current one is no library
            raise MissingError(f"--track {name} needs the library {name}", hint="pip install 'kdcli[track]'")
    return names


@contextmanager
def tracking(
    names: tuple[str, ...], root: Path, project: str, device: str, warn: Callable[[str], None]
) -> Iterator[Track]:
    """Give what takes the points of the learning curves while a run is at work.

    A tracker begins with the first point. One that fails is warned of and left out: ``metrics.jsonl`` has the points,
    and training goes on. Of the processes that ``torchrun`` starts, the first one tracks.

    Args:
        names: The trackers.
        root: The run folder; TensorBoard's files go to ``tensorboard`` in it, those of wandb to ``wandb``.
        project: What wandb files the run under.
        device: Where training computes; Accelerate's state is for one device.
        warn: Told when a tracker fails.
    """
    senders = {name: _Sender(name, root, project, device) for name in names if os.environ.get("RANK", "0") == "0"}

    def attempt(name: str, act: Callable[..., None], *values: Any) -> None:
        try:
            act(*values)
        except Exception as error:  # whatever a tracker, its service or the network may raise
            warn(f"{name} does not track any more: {shown(error)}")
            senders.pop(name, None)

    def track(stage: str, step: int, values: Mapping[str, float]) -> None:
        for name, sender in list(senders.items()):
            attempt(name, sender.send, stage, step, values)

    try:
        yield track
    finally:
        for name, sender in list(senders.items()):
            attempt(name, sender.finish)


class _Sender:
    """One tracker, started by its first point."""

    def __init__(self, name: str, root: Path, project: str, device: str) -> None:
        self.name = name
        self.root = root
        self.project = project
        self.device = device
        self._tracker: Any = None
        self._stages: set[str] = set()

    def send(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Send a point; each stage has curves, and steps, of its own."""
        self._tracker = self._tracker or self._started()
        point = {f"{stage}/{name}": float(value) for name, value in values.items()}
        if self.name == "tensorboard":
            self._tracker.log(point, step=step)
            return
        # The steps of a wandb run never go back; those of the next stage do, so they are an axis of their own.
        if stage not in self._stages:
            self._tracker.tracker.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        self._tracker.log({**point, f"{stage}/step": step})

    def finish(self) -> None:
        """End the tracker, if it has begun."""
        if self._tracker is not None:
            self._tracker.finish()

    def _started(self) -> Any:
        from accelerate import PartialState
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        PartialState(cpu=self.device == "cpu")  # Accelerate's logger asks for it; where one trains, it is there already
        self.root.mkdir(parents=True, exist_ok=True)
        if self.name == "tensorboard":
            tracker = TensorBoardTracker("tensorboard", self.root)
        else:
            tracker = WandBTracker(self.project, name=self.root.name, dir=str(self.root))
        tracker.start()
        return tracker
