"""What every stage gets: the settings, the paths, the task's tables and the reporter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import Settings
from kdcli.run.paths import artefact
from kdcli.run.stage import Files, if_local
from kdcli.tables.read import files_of
from kdcli.tasks.split import SPLITS, Split, has_split, load_split, load_tables, split_files, task_from

if TYPE_CHECKING:
    import polars as pl

    from kdcli.teacher.model import TeacherSource


@dataclass(frozen=True)
class RunContext:
    """The settings of a run, and its folder."""

    settings: Settings
    root: Path
    device: str = "cpu"
    resume: bool = True  # whether to go on with what a killed run left
    seeds: int = 1  # the number of students, and of baselines
    number: int = 0  # which of them this context is for
    elsewhere: Mapping[str, Path] = field(default_factory=dict)  # artefacts outside the run folder, by name
    reporter: Reporter = field(default_factory=QuietReporter)

    @property
    def task(self) -> Task:
        """The task of the profile."""
        return task_from(self.settings.task)

    @property
    def seed(self) -> int:
        """The seed: that of the profile, or one of the numbers that follow it for further students."""
        return self.settings.seed + self.number

    def each_seed(self) -> list[RunContext]:
        """Return a context for each student."""
        return [replace(self, number=number) for number in range(self.seeds)]

    def path(self, name: str) -> Path:
        """Return the path of an artefact, by its name in ``LAYOUT``; students and baselines are those of this seed.

        With one method only, the transfer set is the table of that method.
        """
        methods = self.settings.transfer.methods
        if name == "transfer" and name not in self.elsewhere and len(methods) == 1:
            name = methods[0]
        further = self.number and name in ("student", "baseline")
        return self.elsewhere.get(name) or artefact(self.root, name, self.seed if further else None)

    @property
    def teacher(self) -> TeacherSource:
        """The teacher to ask for logits: the fine-tuned one, or the one that the profile takes as it is."""
        from kdcli.teacher.model import TeacherSource

        model = self.path("teacher") if self.settings.teacher.train else None
        return TeacherSource.of(self.settings, model, self.path("logits"))

    def files(self, *names: str) -> Files:
        """Return the files behind names: those of a split, the teacher if it lies on this machine, an artefact."""
        found: Files = {}
        for name in names:
            if name in SPLITS:
                found |= {file.name: file for path in split_files(self.settings.task, name) for file in files_of(path)}
            elif name == "teacher" and not self.settings.teacher.train:
                found |= if_local(name, self.settings.teacher.model)
            else:
                found[name] = self.path(name)
        return found

    def common(self, output: str) -> dict[str, Any]:
        """Return the arguments that the functions behind most stages share; ``output`` is an artefact."""
        return {"task": self.task, "output": self.path(output), "reporter": self.reporter}

    def read(self, split: Split) -> pl.DataFrame:
        """Read the table of a split."""
        return load_split(self.settings.task, self.task, split, self.reporter)

    def read_all(self, *splits: Split) -> dict[str, pl.DataFrame]:
        """Read the tables of those splits that the task has."""
        return {split: self.read(split) for split in splits if has_split(self.settings.task, split)}

    def read_tables(self, *splits: Split) -> dict[str, pl.DataFrame]:
        """Read the tables of those splits one by one: MNLI has two for dev and for test."""
        tables: dict[str, pl.DataFrame] = {}
        for split in splits:
            if has_split(self.settings.task, split):
                tables |= load_tables(self.settings.task, self.task, split, self.reporter)
        return tables
