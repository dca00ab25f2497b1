"""What every stage of a run is described on: the settings, the places of the artefacts, the task's tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli.api import Reporter, Task
from kdcli.config.schema import Settings
from kdcli.parts.parts import ALONE, Shard
from kdcli.run.lock import flat
from kdcli.run.run_dir import Paths
from kdcli.tasks.layouts import SPLITS, Split, has_split, load_split, load_tables, split_files
from kdcli.tasks.task import task_from


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: The kind of step: what ``--from``, ``--until`` and ``--only`` mean.
        key: Its entry in ``kd.lock``; differs from the name for students of further seeds.
        parameters: The settings that it depends on, by dotted key.
        inputs: The files and folders that it reads, by name.
        outputs: The files and folders that it writes, by name.
        run: Makes the outputs; returns a dataclass, or None where other shards are still at work.
        number: Its place among the seeds; shards share them.
        together: Whether the processes of a launch run it at the same time, each its share; otherwise one runs it and
            the others wait.
    """

    name: str
    key: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    run: Callable[[Reporter], Any]
    number: int = 0
    together: bool = False


@dataclass(frozen=True)
class Ground:
    """A profile laid out over a set of paths.

    Attributes:
        settings: The profile.
        paths: Where the artefacts lie.
        device: Where to compute.
        shard: This process's share.
        resume: Go on with what a killed run left.
    """

    settings: Settings
    paths: Paths
    device: str
    shard: Shard = ALONE
    resume: bool = True

    @property
    def task(self) -> Task:
        """The task of the profile."""
        return task_from(self.settings.task)

    @property
    def seed(self) -> int:
        """The first seed."""
        return self.settings.seed

    def split(self, split: Split, reporter: Reporter) -> Any:
        """Load the table of a split."""
        return load_split(self.settings.task, self.task, split, reporter)

    def splits(self, *names: Split, reporter: Reporter) -> dict[str, Any]:
        """Load the tables of those of the splits that there are."""
        return {name: self.split(name, reporter) for name in names if has_split(self.settings.task, name)}

    def tables(self, *names: Split, reporter: Reporter) -> dict[str, Any]:
        """Load the tables of those of the splits that there are one by one: MNLI has two for dev and for test."""
        return {
            name: table
            for split in names
            if has_split(self.settings.task, split)
            for name, table in load_tables(self.settings.task, self.task, split, reporter).items()
        }

    def data(self, *splits: Split) -> dict[str, Path]:
        """Return the data files of the splits (of all, if none is named), by file name."""
        found = [path for split in splits or SPLITS for path in split_files(self.settings.task, split)]
        return {path.name: path for path in found}

    def task_parameters(self) -> dict[str, Any]:
        """Return the settings of the task that all stages depend on."""
        return flat("task", self.settings.task, without=("data_dir", "name", "metric", "more_metrics", "student_of"))


def trains_together() -> bool:
    """Return whether ``torchrun`` has started several processes, which train one model together."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def if_local(name: str, model: str) -> dict[str, Path]:
    """Return a model or file as an input where it lies on this machine; a hub name is no file."""
    path = Path(model).expanduser()
    return {name: path} if model and path.exists() else {}
