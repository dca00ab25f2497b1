"""The options of commands: those of settings come from the schema, all others are declared here, once."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.main import get_command

from kdcli.cli import ui
from kdcli.cli.commands import CONTEXT
from kdcli.errors import UsageError
from kdcli.registry import GROUPS, Group, plugins

if TYPE_CHECKING:
    from kdcli.config.flags import FlagSetting
    from kdcli.config.load import Profile
    from kdcli.config.schema import Settings
    from kdcli.run.runner import RunOptions

SETTINGS, FILES, MACHINE, RUN, TRAINING = "Settings", "Files", "Machine", "Run", "Training"
TOGETHER = {
    "task": ("task.data_dir", "text_col", "text2_col", "task.label_column"),
    "texts": ("task.data_dir", "text_col", "text2_col"),
    "profile": ("profile", "sets"),
    "run": ("run_dir", "force", "resume", "dry_run"),
    "generators.*": ("generators.*.epochs", "generators.*.max_steps", "generators.*.lr", "generators.*.max_length"),
}
"""Names that stand for several options."""


def option(panel: str, *names: str, help: str, default: str | bool = False, **more: Any) -> Any:
    """Return an option; ``default`` is the text that the help shows as its default."""
    return typer.Option(*names, help=help, show_default=default, rich_help_panel=panel, **more)


def switch(*names: str, help: str, panel: str = "Options", default: str = "no") -> Any:
    """Return an option that takes no value: ``--x``, or ``--x/--no-x`` with the default shown."""
    return option(panel, *names, help=help, default=default if "/" in names[0] else False, metavar="")


def complete_profile(incomplete: str) -> list[str]:
    """Complete the name of a profile."""
    from kdcli.config.files import names

    return [name for name in names() if name.startswith(incomplete)]


def complete_plugin(*groups: Group) -> Callable[[str], list[str]]:
    """Return a function that completes the names of plugins of these groups, by default of all."""

    def complete(incomplete: str) -> list[str]:
        names = [plugin.name for group in groups or GROUPS for plugin in plugins(group)]
        return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]

    return complete


PluginName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A plugin: NAME, or DISTRIBUTION:NAME.", autocompletion=complete_plugin()),
]


@dataclass(frozen=True)
class Request:
    """The options of a command line that more than one command has; ``flags`` holds those of settings, by key."""

    profile: Annotated[
        str | None,
        option(
            SETTINGS,
            *("--profile", "-p"),
            help="Profile: a name, or a .toml file.",
            metavar="NAME|FILE",
            autocompletion=complete_profile,
        ),
    ] = None
    sets: Annotated[
        list[str] | None,
        option(SETTINGS, "--set", "-s", help="Override a setting: student.lr=0.5. Repeat it.", metavar="KEY=VALUE"),
    ] = None
    text_col: Annotated[
        str | None,
        option(SETTINGS, "--text-col", help="Column of the texts, or of a pair's first.", metavar="COLUMN"),
    ] = None
    text2_col: Annotated[
        str | None, option(SETTINGS, "--text2-col", help="Column of a pair's second text.", metavar="COLUMN")
    ] = None
    student: Annotated[
        Path | None, option(FILES, "--student", help="Student: its folder, or that of a run.", metavar="FOLDER")
    ] = None
    teacher: Annotated[
        str | None,
        option(
            FILES,
            "--teacher",
            help="Fine-tuned teacher: its folder, that of a run, or a hub name.",
            default="the run's",
            metavar="FOLDER|NAME",
        ),
    ] = None
    input: Annotated[
        Path | None,
        option(FILES, "--input", "-i", help="Table to read: .tsv .csv .jsonl .parquet .txt, each with .gz or not."),
    ] = None
    output: Annotated[
        Path | None, option(FILES, "--output", "-o", help="File or folder to write; a table's form is its suffix.")
    ] = None
    run_dir: Annotated[Path | None, option(FILES, "--run-dir", help="Folder of the run.", default="runs/PROFILE")] = (
        None
    )
    force: Annotated[bool, switch("--force/--no-force", "-f", help="Replace existing output.", panel=FILES)] = False
    offline: Annotated[
        bool,
        switch(
            "--offline/--no-offline", help="Download nothing: take models from folders or the cache.", panel=MACHINE
        ),
    ] = False
    resume: Annotated[
        Literal["auto", "never"],
        option(RUN, "--resume", help="Continue a killed run, or start again.", default="auto"),
    ] = "auto"
    dry_run: Annotated[
        bool, switch("--dry-run/--no-dry-run", "-n", help="Show what would run, and why; run nothing.", panel=RUN)
    ] = False
    first: Annotated[
        str | None, option(RUN, "--from", help="First stage to run.", default="the first", metavar="STAGE")
    ] = None
    until: Annotated[
        str | None, option(RUN, "--until", help="Last stage to run.", default="the last", metavar="STAGE")
    ] = None
    only: Annotated[str | None, option(RUN, "--only", help="The one stage to run.", metavar="STAGE")] = None
    seeds: Annotated[
        int,
        option(
            RUN,
            "--seeds",
            help="Train baseline and student N times, each with its own seed.",
            default="1",
            min=1,
            metavar="N",
        ),
    ] = 1
    track: Annotated[
        str | None,
        option(
            RUN,
            "--track",
            help="Send the learning curves to trackers too, beside metrics.jsonl.",
            metavar="tensorboard,wandb",
        ),
    ] = None
    flags: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Set what the Hugging Face libraries look at; they are not imported yet."""
        if self.offline:
            os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

    def load(
        self,
        default: str | None = None,
        *,
        uses: Collection[Group] = GROUPS,
        settings: Mapping[str, Any] | None = None,
    ) -> Profile:
        """Load the profile of the command, with its flags on top.

        Args:
            default: The profile that stands in for a missing ``--profile``.
            uses: The groups of plugins that the command needs.
            settings: Further settings, by dotted key.

        Raises:
            UsageError: ``--data-dir`` without a profile, or ``--text2-col`` without ``--text-col``.
            KdError: As ``load_profile``.
        """
        from kdcli.config.load import load_profile

        if self.profile is None and self.flags.get("task.data_dir") is not None:
            hint = "add --profile sst2, for example; `kd profile list` names them"
            raise UsageError("--data-dir needs a profile, which says what the task is", hint=hint)
        if self.text2_col is not None and self.text_col is None:
            raise UsageError("--text2-col needs --text-col", hint="name the columns of both texts of a pair")
        columns = [column for column in (self.text_col, self.text2_col) if column is not None]
        of_columns = {"task.text_columns": columns or None, "task.kind": "pair" if self.text2_col else None}
        flags = {**self.flags, **of_columns, **(settings or {})}
        loaded = load_profile(self.profile or default, sets=self.sets or (), flags=flags, uses=uses)
        for warning in loaded.warnings:
            ui.warn(warning)
        return loaded

    def load_for_model(self, own: Path | None) -> Settings:
        """Load the settings of a command whose model knows its task and its plugin.

        Args:
            own: The profile of the model's run, which stands in for a missing ``--profile``.
        """
        # Without a profile the task has no labels: a metric of scores passes the checks, the model brings its own.
        settings = {} if self.profile or own else {"task.metric": "pearson"}
        request = self if self.profile or own is None else replace(self, profile=str(own))
        return request.load(uses=(), settings=settings).settings

    def run_options(self) -> RunOptions:
        """Return the options that all stages share."""
        from kdcli.run.runner import RunOptions

        names = ("run_dir", "force", "dry_run", "track", "seeds", "first", "until", "only")
        return RunOptions(resume=self.resume == "auto", **{name: getattr(self, name) for name in names})


_OF_GENERATOR = {
    "epochs": ("Passes over the task's texts.", "N"),
    "max_steps": ("Stop after N updates; 0: no limit.", "N"),
    "lr": ("Learning rate.", "RATE"),
    "max_length": ("Longest text in tokens; longer ones are cut in training, and rejected in sampling.", "N"),
}
"""Help and metavar of the options that generators have in common: the chosen one's ``Options`` check the values."""


@dataclass(frozen=True)
class Command:
    """A command before it is chosen: its function, the names of its options, its examples."""

    function: Callable[..., None]
    options: tuple[str, ...]
    examples: tuple[str, ...]
    required: tuple[str, ...]

    def build(self, name: str, help: str) -> Any:
        """Return the command for Typer; its options are read from the schema now."""
        own = list(inspect.signature(self.function, eval_str=True).parameters.values())[1:]
        names = [parameter.name for parameter in own]
        wanted = [one for option in self.options for one in TOGETHER.get(option, (option,)) if one not in names]
        settings = {parameter.name: key for one in wanted if "." in one or one in _TOP for parameter, key in _of(one)}
        shared = [parameter for one in wanted for parameter, _ in _of(one)]
        parameters = own + [_required(one) if one.name in self.required else one for one in shared]

        def callback(**values: Any) -> None:
            flags = {key: values.pop(parameter) for parameter, key in settings.items()}
            flags = {key: None if value == [] else value for key, value in flags.items()}
            more = {name: values.pop(name) for name in names}
            self.function(Request(**values, flags=flags), **more)

        callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        callback.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        more_help = inspect.cleandoc(self.function.__doc__ or "").partition("\n\n")[2]
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        text, end = f"{help}\n\n{more_help}".strip(), example(*self.examples)
        app.command(name, help=text, epilog=end, context_settings=CONTEXT)(callback)
        return get_command(app)


def command(
    *examples: str, options: tuple[str, ...] = (), required: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function that takes a ``Request``, and options of its own as keywords.

    Args:
        examples: What the help ends with.
        options: Fields of ``Request``; settings by key, or all of a table (``student.*``); names in ``TOGETHER``.
        required: Fields of ``Request`` that have no default here.
    """
    return lambda function: Command(function, options, examples, required)


def example(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\n\n".join(f"[bold]Example[/bold]  {line}" for line in lines)


_TOP = ("seed", "device", "precision")
"""Settings in no table."""


def _of(name: str) -> Iterator[tuple[inspect.Parameter, str]]:
    """Go through the parameters that an option's name stands for, each with its key (or field of ``Request``)."""
    if name.startswith("generators.*."):
        key = name.rpartition(".")[2]
        help, metavar = _OF_GENERATOR[key]
        shown = option(
            TRAINING, f"--{key.replace('_', '-')}", help=help, default=f"generators.NAME.{key}", metavar=metavar
        )
        yield _parameter(f"generator_{key}", Annotated[str | None, shown]), name
    elif "." in name or name in _TOP:
        from kdcli.config.flags import flags_of
        from kdcli.config.schema import Settings

        for setting in flags_of(Settings, name.removesuffix(".*")):
            yield _parameter(setting.key.replace(".", "_"), _annotation(setting)), setting.key
    else:
        hints = get_type_hints(Request, include_extras=True)
        default = next(one.default for one in fields(Request) if one.name == name)
        yield _parameter(name, hints[name], default), name


def _annotation(setting: FlagSetting) -> Any:
    """Return the type of a setting's option; the schema checks its value, except that choices are choices."""
    kind, flag, default = setting.field.annotation, setting.flag, setting.field.get_default()
    shown = f"{setting.key}, {default}" if default not in (None, "", ()) else setting.key
    choices = [one for one in (kind, *get_args(kind)) if get_origin(one) is Literal and not flag.metavar]
    type_: Any = choices[0] if choices else list[str] if get_origin(kind) is tuple else str
    more: dict[str, Any] = {"metavar": flag.metavar} if flag.metavar else {}
    more |= {"autocompletion": complete_plugin(flag.plugins)} if flag.plugins else {}
    help = " ".join((setting.field.description or "").split())
    return Annotated[type_ | None, option(flag.panel, *setting.names, help=help, default=shown, **more)]


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _required(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a parameter without a default: that of ``Annotated[X | None, option]`` is an ``X``."""
    kind, shown = get_args(parameter.annotation)
    annotation: Any = Annotated[get_args(kind)[0], shown]
    return parameter.replace(default=inspect.Parameter.empty, annotation=annotation)
