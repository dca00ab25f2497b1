"""A run and its stages: what every stage gets, and what every stage says of itself."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import parent_process
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, Self

import polars as pl

from kdcli import registry
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.load import flatten
from kdcli.config.schema import Settings
from kdcli.parts import Engine, LocalEngine, place, usable_cores
from kdcli.run import artefact
from kdcli.tables.read import files_of
from kdcli.tasks.split import SPLITS, Split, load_split, load_tables, split_files, task_from

if TYPE_CHECKING:
    from kdcli.teacher.model import TeacherSource

Files = dict[str, Path]  # files and folders by name
NO_EFFECT = (
    *("transfer.lite.workers", "transfer.heavy.batch_size"),
    *("teacher.train", "teacher.save_steps", "teacher.export"),
)
"""Settings that change no result: how fast a stage goes, where a killed training goes on."""


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
    engine: Engine = field(default_factory=LocalEngine)  # makes the parts of long work
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)  # those of splits, where they have been read
    reporter: Reporter = field(default_factory=QuietReporter)

    @property
    def task(self) -> Task:
        """The task of the profile."""
        return task_from(self.settings.task)

    @property
    def seed(self) -> int:
        """The seed: that of the profile, or one of the numbers that follow it for further students."""
        return self.settings.seed + self.number

    @property
    def precision(self) -> str:
        """The precision of the profile."""
        return self.settings.precision

    @property
    def parts_device(self) -> str:
        """The device that parts are made on."""
        return self.engine.device(self.device)

    def each_seed(self) -> list[Self]:
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
        return place(self.elsewhere.get(name) or artefact(self.root, name, self.seed if further else None))

    @property
    def teacher(self) -> "TeacherSource":
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

    def common(self, output: str, *more: str) -> dict[str, Any]:
        """Return the arguments that most stages' functions share, the artefact ``output``, and ``more`` by name."""
        shared = {"task": self.task, "output": self.path(output), "reporter": self.reporter}
        return shared | {name: getattr(self, name) for name in more}

    def read(self, split: Split) -> pl.DataFrame:
        """Read the table of a split."""
        there = self.tables.get(split)
        return load_split(self.settings.task, self.task, split, self.reporter) if there is None else there

    def read_all(self, *splits: Split) -> dict[str, pl.DataFrame]:
        """Read the tables of those splits that the task has."""
        return {split: self.read(split) for split in splits if split_files(self.settings.task, split)}

    def read_tables(self, *splits: Split) -> dict[str, pl.DataFrame]:
        """Read the tables of those splits one by one: MNLI has two for dev and for test."""
        tables: dict[str, pl.DataFrame] = {}
        for split in splits:
            if split_files(self.settings.task, split):
                tables |= load_tables(self.settings.task, self.task, split, self.reporter)
        return tables


class Stage(ABC):
    """One step of a run."""

    name: ClassVar[str]  # for --from, --until and --only; its key in kd.lock
    command: ClassVar[str] = "kd run-all --only {}"  # the command that runs it alone; {} is its name
    result: ClassVar[str]  # the dataclass that ``run`` returns, as ``module:class``
    settings: ClassVar[tuple[str, ...]] = ()  # keys or tables whose change makes it stale
    without: ClassVar[tuple[str, ...]] = ()  # those of them that it does not read
    plugin: ClassVar[registry.Group | None] = None  # it depends on the plugin's options and file too
    reads: ClassVar[tuple[str, ...]] = ()  # splits and artefacts
    labelled: ClassVar[tuple[Split, ...]] = ()  # the splits that it cannot do without, nor without their labels
    makes: ClassVar[tuple[str, ...]] = ()  # artefacts
    method: ClassVar[str | None] = None  # the method of making texts that it belongs to, if any
    per_seed: ClassVar[bool] = False  # whether there is one for each seed
    together: ClassVar[bool] = False  # whether all processes of ``torchrun`` run it (a training), or the main one alone

    @abstractmethod
    def run(self, run: RunContext) -> Any:
        """Make the outputs; return a result dataclass."""

    def inputs(self, run: RunContext) -> Files:
        """Return the files and folders that it reads, by name."""
        files = run.files(*self.reads)
        return files if self.plugin is None else files | registry.code_of(self.plugin, _chosen(self.plugin, run))

    def outputs(self, run: RunContext) -> Files:
        """Return the files and folders that it makes, by name."""
        return {name: run.path(name) for name in self.makes}

    def parameters(self, run: RunContext) -> dict[str, Any]:
        """Return the values that it depends on, by dotted key."""
        values = {**_flat(run.settings.model_dump(mode="json")), "seed": run.seed}
        without = (*NO_EFFECT, *self.without)
        found = {key: value for key, value in values.items() if _under(key, self.settings) and not _under(key, without)}
        if self.plugin is None or self.plugin == "taggers":  # a tagger has no options
            return found
        name = _chosen(self.plugin, run)
        options = registry.options(self.plugin, name, getattr(run.settings, self.plugin).get(name, {}))
        plain = registry.effective(self.plugin, name, options.model_dump(mode="json"))
        return found | {registry.KEYS[self.plugin]: name, **_flat(plain, f"{self.plugin}.{name}.")}

    def estimate(self, run: RunContext) -> dict[str, float] | None:
        """Return what it would take, by name, where that is known without doing it."""
        return None

    def applies(self, settings: Settings) -> bool:
        """Return whether a run with these settings has this stage."""
        return self.method is None or self.method in settings.transfer.methods

    def key(self, run: RunContext) -> str:
        """Return its key in ``kd.lock``: its name, and the seed for further students."""
        return f"{self.name}-seed{run.seed}" if run.number else self.name

    @classmethod
    def title(cls) -> str:
        """Return the title of a panel with its result."""
        return cls.name if "--only" in cls.command else cls.command.removeprefix("kd ")

    @classmethod
    def result_type(cls) -> Any:
        """Import the dataclass that ``run`` returns."""
        return resolve_name(cls.result)


@dataclass(frozen=True)
class SeedPart:
    """Runs a stage for one of several seeds; returns its result, and the seconds that it took."""

    stage: Stage
    runs: Mapping[int, RunContext]
    at_once: int  # how many share the cores of this machine

    @classmethod
    def of(cls, stage: Stage, runs: Mapping[int, RunContext], at_once: int) -> Self:
        """Read the tables that all seeds need, once."""
        first = next(iter(runs.values()))
        tables: dict[str, Any] = {split: first.read(split) for split in SPLITS if split in stage.reads}
        bare = replace(first, device=first.parts_device, engine=LocalEngine(), reporter=QuietReporter(), tables=tables)
        return cls(stage, {number: replace(bare, number=run.number) for number, run in runs.items()}, at_once)

    def __call__(self, part: int, path: Path, *, reporter: Reporter) -> tuple[Any, float]:
        """Run the stage so that its output is ``path``."""
        from kdcli.models.device import resolve

        if parent_process():
            import torch

            torch.set_num_threads(max(1, usable_cores() // self.at_once))
        run, begin, (output,) = self.runs[part], time.perf_counter(), self.stage.makes
        elsewhere = {**run.elsewhere, output: path}
        own = replace(run, device=resolve(run.device), elsewhere=elsewhere, reporter=reporter)
        return self.stage.run(own), time.perf_counter() - begin


def if_local(name: str, model: Any) -> Files:
    """Return a model or file as an input where it lies on this machine; a hub name is no file."""
    return {name: path} if isinstance(model, str) and model and (path := Path(model).expanduser()).exists() else {}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    return {key: value for key, value in flatten(values, prefix) if value != {}}  # kd.lock names no empty table


def _under(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(f"{key}.".startswith(f"{prefix}.") for prefix in prefixes)


def _chosen(group: registry.Group, run: RunContext) -> str:
    """Return the plugin of a group that the settings choose."""
    return str(attrgetter(registry.KEYS[group])(run.settings))
