"""The options of commands: those of settings come from the schema, all others are declared here, once."""

import copy
import inspect
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.main import get_command

from kdcli.cli import CONTEXT, SingleCommand, ui
from kdcli.errors import UsageError
from kdcli.registry import GROUPS, Group, plugins

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from kdcli.config.load import Profile
    from kdcli.config.schema import Settings
    from kdcli.config.table import Flag
    from kdcli.run.runner import RunOptions

SETTINGS, FILES, MACHINE, RUN, TRAINING = "Settings", "Files", "Machine", "Run", "Training"
_OF_PLUGINS = {
    "generators.*.epochs": ("--epochs", "Passes over the task's texts.", "N"),
    "generators.*.max_steps": ("--max-steps", "Stop after this many updates; 0 = no limit.", "N"),
    "generators.*.lr": ("--lr", "Learning rate.", "RATE"),
    "generators.*.max_length": ("--max-length", "Longest text in tokens; longer samples are rejected.", "N"),
    "teachers.*.max_requests": ("--max-requests", "Of a teacher behind a server: stop after so many answers.", "N"),
    "teachers.*.max_cost": ("--max-cost", "Of such a teacher: stop before the answers cost more.", "PRICE"),
}
"""Options that several plugins have in common; the ``Options`` of the chosen one check their values."""
_TOGETHER = {
    "task": ("task.data_dir", "text_col", "text2_col", "task.label_column"),
    "texts": ("task.data_dir", "text_col", "text2_col"),
    "profile": ("profile", "sets"),
    "engine": ("engine", "ray_address"),
    "run": ("run_dir", "force", "resume", "dry_run"),
    **{group: tuple(key for key in _OF_PLUGINS if key.startswith(group)) for group in ("generators.*", "teachers.*")},
}
"""Names that stand for several options."""
_TOP = ("seed", "device", "precision", "engine", "ray_address")  # settings in no table
_COLUMNS = "the profile's task.text_columns"
_DEFAULTS = {
    "run_dir": {"profile": "demo", "input": "the run's", "output": "in the run folder"},
    "student": {"profile": "the run's", "input": "the run's"},
}
"""The defaults of commands that have a run folder, or a student that may be one."""


def option(panel: str, names: str, help: str, metavar: str | None = None, default: str = "", **more: Any) -> Any:
    """Return an option; ``default`` is the text that the help shows as its default."""
    shown = default or False
    return typer.Option(*names.split(), help=help, metavar=metavar, show_default=shown, rich_help_panel=panel, **more)


def switch(panel: str, names: str, help: str, default: str = "no") -> Any:
    """Return an option that takes no value: ``--x/--no-x``, with the default shown."""
    name, *short = names.split()
    return option(panel, " ".join([f"{name}/--no-{name[2:]}", *short]), help, "", default)


def _profiles(incomplete: str) -> list[str]:
    from kdcli.config.files import names

    return [name for name in names() if name.startswith(incomplete)]


def _plugins(*groups: Group) -> Callable[[str], list[str]]:
    """Return a function that completes the names of plugins of these groups, by default of all."""

    def complete(incomplete: str) -> list[str]:
        names = [plugin.name for group in groups or GROUPS for plugin in plugins(group)]
        return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]

    return complete


ProfileName = Annotated[
    str, typer.Argument(metavar="NAME|FILE", help="A profile's name, or a .toml file.", autocompletion=_profiles)
]
PluginName = Annotated[str, typer.Argument(metavar="NAME", help="A plugin's name.", autocompletion=_plugins())]


_SHARED = {
    "profile": option(
        SETTINGS, "--profile -p", "Profile: a name, or a .toml file.", "NAME|FILE", autocompletion=_profiles
    ),
    "sets": option(SETTINGS, "--set -s", "Override a setting of the profile: seed=7. Repeat it.", "KEY=VALUE"),
    "text_col": option(SETTINGS, "--text-col", "Column of the texts, or of a pair's first.", "COLUMN", _COLUMNS),
    "text2_col": option(SETTINGS, "--text2-col", "Column of a pair's second text.", "COLUMN", _COLUMNS),
    "student": option(FILES, "--student", "Student: its folder, or that of a run.", "FOLDER"),
    "teacher": option(FILES, "--teacher", "Teacher: its folder, a run, or a hub name.", "FOLDER|NAME", "the run's"),
    "input": option(FILES, "--input -i", "Table: .tsv .csv .jsonl .parquet .txt, each also with .gz.", "FILE"),
    "output": option(FILES, "--output -o", "File or folder to write.", "PATH"),
    "run_dir": option(FILES, "--run-dir", "Folder of the run.", "FOLDER", "runs/PROFILE"),
    "force": switch(FILES, "--force -f", "Replace existing output."),
    "offline": switch(MACHINE, "--offline", "Download nothing: take models from folders or the cache."),
    "resume": option(RUN, "--resume", "auto: continue a killed run; never: start again.", default="auto"),
    "dry_run": switch(RUN, "--dry-run -n", "Show what would run, and why; run nothing."),
    "first": option(RUN, "--from", "First stage to run.", "STAGE", "the first"),
    "until": option(RUN, "--until", "Last stage to run.", "STAGE", "the last"),
    "only": option(RUN, "--only", "The one stage to run.", "STAGE", "all"),
    "seeds": option(RUN, "--seeds", "Train baseline and student N times, with different seeds.", "N", "1", min=1),
    "track": option(RUN, "--track", "Send the learning curves to these trackers too.", "tensorboard,wandb"),
}
"""The options of the fields of ``Request``."""


@dataclass(frozen=True)
class Request:
    """The options that more than one command has; ``flags`` holds those of settings, by dotted key."""

    profile: str | None = None
    sets: list[str] | None = None
    text_col: str | None = None
    text2_col: str | None = None
    student: Path | None = None
    teacher: str | None = None
    input: Path | None = None
    output: Path | None = None
    run_dir: Path | None = None
    force: bool = False
    offline: bool = False
    resume: Literal["auto", "never"] = "auto"
    dry_run: bool = False
    first: str | None = None
    until: str | None = None
    only: str | None = None
    seeds: int = 1
    track: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Set the environment of the Hugging Face libraries, which are imported later."""
        if self.offline:
            os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

    def load(
        self, default: str | None = None, *, uses: Collection[Group] = GROUPS, settings: Mapping[str, Any] | None = None
    ) -> "Profile":
        """Load the profile of the command, or ``default``, with its flags and ``settings`` on top."""
        from kdcli.config.load import load_profile

        if self.profile is None and self.flags.get("task.data_dir") is not None:
            hint = "add --profile sst2, for example; `kd profile list` names them"
            raise UsageError("--data-dir needs a profile, which says what the task is", hint=hint)
        if self.text2_col is not None and self.text_col is None:
            raise UsageError("--text2-col needs --text-col", hint="name the columns of both texts of a pair")
        columns = [column for column in (self.text_col, self.text2_col) if column is not None]
        of_columns = {"task.text_columns": columns or None, "task.kind": "pair" if self.text2_col else None}
        flags = {**self.flags, **of_columns, **(settings or {})}
        return load_profile(self.profile or default, sets=self.sets or (), flags=flags, uses=uses)

    def load_for_model(self, own: Path | None) -> "Settings":
        """Load the settings of a command whose model knows its task; ``own`` is the profile of the model's run."""
        # Without a profile the task has no labels: a metric of scores passes the checks, the model brings its own.
        settings = {} if self.profile or own else {"task.metric": "pearson"}
        request = self if self.profile or own is None else replace(self, profile=str(own))
        return request.load(uses=(), settings=settings).settings

    def run_options(self) -> "RunOptions":
        """Return the options that all stages share."""
        from kdcli.run.runner import RunOptions

        names = ("run_dir", "force", "dry_run", "track", "seeds", "first", "until", "only")
        return RunOptions(resume=self.resume == "auto", **{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Command:
    """A command before it is chosen: its function, the names of its options, its examples."""

    function: Callable[..., None]
    options: tuple[str, ...]
    examples: tuple[str, ...]
    required: tuple[str, ...]
    about: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """The names of its options, each by itself."""
        return [one for option in self.options for one in _TOGETHER.get(option, (option,))]

    def build(self, name: str, help: str) -> Any:
        """Return the command for Typer; its options are read from the schema now."""
        own = list(inspect.signature(self.function, eval_str=True).parameters.values())[1:]
        names = [parameter.name for parameter in own]
        shared = [pair for one in self.names if one not in names for pair in _of(one)]
        settings = {parameter.name: key for parameter, key in shared if "." in key or key in _TOP}
        parameters = [self._shown(one) for one in (*(one for one, _ in shared), *own)]
        parameters.sort(key=lambda one: one.name not in self.required)

        def callback(**values: Any) -> None:
            flags = {key: values.pop(parameter) for parameter, key in settings.items()}
            flags = {key: None if value == [] else value for key, value in flags.items()}
            more = {name: values.pop(name) for name in names}
            if not {"profile", "student"}.isdisjoint(self.options):
                ui.spin(name)
            self.function(Request(**values, flags=flags), **more)

        callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        callback.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        text = f"{help}\n\n{inspect.cleandoc(self.function.__doc__ or '')}".strip()
        text = re.sub(r"(?<!\n)\n(?!\n)", " ", text)  # the terminal breaks the lines
        end = "\n\n".join(f"[bold]Example[/bold]  {line}" for line in self.examples)
        app.command(name, cls=SingleCommand, help=text, epilog=end, context_settings=CONTEXT)(callback)
        return get_command(app)

    def _shown(self, parameter: inspect.Parameter) -> inspect.Parameter:
        """Return a parameter as the help shows it; a required one has no default and is no ``X | None``."""
        kind, shared = get_args(parameter.annotation)
        shown, default = copy.copy(shared), parameter.default
        of_all = next((_DEFAULTS[name] for name in _DEFAULTS if name in self.names), {})
        help, own, default_shown = self.about.get(parameter.name, "").partition("|")
        shown.help = help or shown.help
        shown.show_default = default_shown if own else shown.show_default or of_all.get(parameter.name, False)
        if shown.metavar is None and (choices := _choices(kind)):
            shown.metavar = "|".join(get_args(choices))
        if parameter.name in self.required:
            kind, default = get_args(kind)[0], inspect.Parameter.empty
        return parameter.replace(default=default, annotation=Annotated[kind, shown])


def command(
    *examples: str,
    options: tuple[str, ...] = (),
    required: tuple[str, ...] = (),
    about: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function that takes a ``Request``, and options of its own as keywords.

    Its help is its line in ``TABLE``, the function's docstring and ``examples``. ``options`` are fields of ``Request``,
    settings by key (``student.*``: all of that table) and names in ``_TOGETHER``; those in ``required`` have no
    default. ``about`` has for some of these fields the help, the default behind a ``|``, or both, where they are not
    those of all commands.
    """
    return lambda function: Command(function, options, examples, required, about or {})


def _of(name: str) -> Iterator[tuple[inspect.Parameter, str]]:
    """Go through the parameters that an option's name stands for, each with its key (or field of ``Request``)."""
    if name in _OF_PLUGINS:
        panel, default = MACHINE if "teachers" in name else TRAINING, f"the profile's {name.replace('*', 'NAME')}"
        yield _parameter(name, option(panel, *_OF_PLUGINS[name], default)), name
    elif "." in name or name in _TOP:
        from kdcli.config.schema import flags_of

        for key, setting, flag in flags_of(name.removesuffix(".*")):
            yield _of_setting(key, setting, flag), key
    else:
        yield _parameter(name, _SHARED[name], get_type_hints(Request)[name], getattr(Request, name)), name


def _of_setting(key: str, setting: "FieldInfo", flag: "Flag") -> inspect.Parameter:
    """Return the parameter of a setting; the schema checks its value, except that choices are choices."""
    kind, default = setting.annotation, setting.get_default()
    own = f"the profile's {key}"
    shown = own if default in (None, "", ()) else f"{own}, or {'no' if default is False else default}"
    names, type_, metavar = " ".join(flag.names), str, flag.metavar  # type: str, Any, str | None
    if kind is bool:
        names, type_, metavar = f"{names}/--no-{names.removeprefix('--')}", bool, ""
    elif get_origin(kind) is tuple:
        type_ = list[str]
    elif metavar is None:
        type_ = _choices(kind) or str
    more: dict[str, Any] = {"autocompletion": _plugins(flag.plugins)} if flag.plugins else {}
    help = " ".join((setting.description or "").split())
    return _parameter(key, option(flag.panel, names, help, metavar, shown, **more), type_ | None)


def _choices(kind: Any) -> Any:
    return next((one for one in (kind, *get_args(kind)) if get_origin(one) is Literal), None)


def _parameter(name: str, shown: Any, kind: Any = str | None, default: Any = None) -> inspect.Parameter:
    name = re.sub(r"\W+", "_", name)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown])
