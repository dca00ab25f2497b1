"""A stage: one step of a run, with its settings, inputs and outputs, and the function that it calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar

from kdcli import registry
from kdcli.config.load import flatten

if TYPE_CHECKING:
    from kdcli.config.schema import Settings
    from kdcli.run.context import RunContext
    from kdcli.tasks.split import Split

Files = dict[str, Path]
"""Files and folders by name."""
NO_EFFECT = (
    *("transfer.lite.workers", "transfer.heavy.batch_size"),
    *("teacher.train", "teacher.save_steps", "teacher.export"),
)
"""Settings that change no result: how fast a stage goes, where a killed training goes on."""


class Stage(ABC):
    """One step of a run."""

    name: ClassVar[str]  # for --from, --until and --only; its key in kd.lock
    command: ClassVar[str]  # the command that runs it alone
    result: ClassVar[str]  # the dataclass that ``run`` returns, as ``module:class``
    settings: ClassVar[tuple[str, ...]] = ()  # keys or tables whose change makes it stale
    without: ClassVar[tuple[str, ...]] = ()  # those of them that it does not read
    plugin: ClassVar[registry.Group | None] = None  # it depends on the plugin's options and file too
    reads: ClassVar[tuple[str, ...]] = ()  # splits and artefacts
    labelled: ClassVar[tuple[Split, ...]] = ()  # the splits that it cannot do without, nor without their labels
    makes: ClassVar[tuple[str, ...]] = ()  # artefacts
    method: ClassVar[str | None] = None  # the method of making texts that it belongs to, if any
    per_seed: ClassVar[bool] = False  # whether there is one for each seed
    together: ClassVar[bool] = False  # whether all processes of ``torchrun`` run it, or the main one alone

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
        table = registry.table_name(name)
        options = registry.options(self.plugin, name, getattr(run.settings, self.plugin).get(table, {}))
        plain = options.model_dump(mode="json", exclude={"save_steps"})
        return found | {registry.KEYS[self.plugin]: name, **_flat(plain, f"{self.plugin}.{table}.")}

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
