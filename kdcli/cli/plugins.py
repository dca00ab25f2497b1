"""``kd plugins``: list, show, check and write plugins."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer
from rich.console import Group
from rich.text import Text

from kdcli import registry
from kdcli.cli import ui
from kdcli.cli.options import SETTINGS, PluginName, Request, command, option
from kdcli.errors import PluginError, UsageError

RESULTS = ("passed", "failed", "skipped")

Sets = Annotated[
    list[str] | None, option(SETTINGS, "--set -s", "Set one of its options: model=tiny. Repeat it.", "KEY=VALUE")
]
Model = Annotated[
    str, option(SETTINGS, "--model", "What a teacher loads; by default a tiny model of Hugging Face.", "FOLDER|NAME")
]
Kind = Annotated[
    Literal["generator", "student", "tagger", "teacher"],
    typer.Argument(metavar="generator|student|tagger|teacher", help="Its kind."),
]
NewName = Annotated[str, typer.Argument(metavar="NAME", help="Its name: lower-case letters, digits, underscores.")]


@command("kd plugins list")
def list_(request: Request) -> None:
    ui.show({"plugins": [_described(plugin) for group in registry.GROUPS for plugin in registry.plugins(group)]})


@command("kd plugins show bilstm")
def show(request: Request, *, name: PluginName) -> None:
    from pydantic import BaseModel

    from kdcli.config.table import options_of

    shown = []
    for plugin in registry.find_all(name):
        loaded: Any = plugin.load()
        model = getattr(loaded, "Options", BaseModel)
        extras = {"fast": "fast", "onnx": "to_onnx"} if plugin.group == "students" else {}
        shown.append(
            {
                **_described(plugin),
                "about": (loaded.__doc__ or "").strip().partition("\n")[0],
                "file": getattr(sys.modules.get(plugin.module.partition(":")[0], loaded), "__file__", None),
                "api_version": loaded.api_version,
                **{flag: getattr(loaded, flag) for flag in ("pairs", "scores") if hasattr(loaded, flag)},
                **{extra: hasattr(loaded, function) for extra, function in extras.items()},
                "options": [asdict(one) for one in options_of(model, f"{plugin.group}.{plugin.name}.")],
            }
        )
    ui.show({"plugins": shown}, lambda _: Group(*map(ui.describe, shown)))


@command(
    "kd plugins check bilstm --set hidden=8",
    "kd plugins check gpt2 --set model=tiny --set lr=1e-2 --set batch_size=8 --set epochs=20",
    "kd plugins check zero-shot --model FOLDER",
)
def check(request: Request, *, name: PluginName, sets: Sets = None, model: Model = "") -> None:
    """A generator is fine-tuned on 40 sentences and on 40 pairs, and a student trained for a moment, on the CPU: set
    options that make a big model small (--set model=tiny), and with which it learns these few texts in seconds.
    A teacher reads these sentences and pairs.
    """
    from kdcli.testing import check_plugin

    found = []
    for plugin in registry.find_all(name):
        if model and plugin.group != "teachers":
            hint = "leave it out, or set an option: --set model=..."
            raise UsageError("--model is for teachers", key="--model", hint=hint)
        with ui.reporting("kd plugins check") as reporter:  # what a plugin prints when it is imported is no result
            table = _options(plugin, sets or ())
            checks = check_plugin(plugin.group, plugin.name, table, model=model, reporter=reporter)
        passed = not any(outcome.result == "failed" for outcome in checks)
        found.append({**_described(plugin), "passed": passed, "checks": checks})
    ui.show({"plugins": found}, lambda _: Group(*(part for plugin in found for part in _checked(plugin))))
    if not all(one["passed"] for one in found):
        raise typer.Exit(PluginError.exit_code)


@command(
    "kd plugins new generator ngram",
    "kd plugins new student cnn --output ~/src/kd-cnn",
    options=("output", "force"),
    about={"output": "Folder to write.|kd-NAME"},
)
def new(request: Request, *, kind: Kind, name: NewName) -> None:
    from kdcli.scaffold import new_plugin

    plugin = new_plugin(kind=kind, name=name, folder=request.output, force=request.force)
    folder = shlex.quote(str(plugin.folder))
    model = " --model textblob" if kind == "teacher" else ""
    steps = [f"pip install -e {folder}", f"kd plugins check {plugin.name}{model}", f"python -m pytest {folder}"]
    lines = [f"the {kind} {name} in {plugin.folder}", *(f"  {file}" for file in plugin.files)]
    lines += ["next:", *(f"  {step}" for step in steps)]
    ui.show({**ui.plain(plugin), "next": steps}, lambda _: Text("\n".join(lines)))


def _described(plugin: registry.Plugin) -> dict[str, Any]:
    names = ("group", "name", "full_name", "distribution", "version", "module")
    return {name: getattr(plugin, name) for name in names}


def _options(plugin: registry.Plugin, sets: Sequence[str]) -> dict[str, Any]:
    """Read ``--set``; a key may also be written as in a profile, ``generators.gpt2.model=tiny``."""
    from kdcli.config.load import from_sets, merge

    if sets and plugin.group == "taggers":
        raise UsageError("a tagger has no options", key="--set", hint="leave out --set")
    prefix = f"{plugin.group}.{plugin.name}."
    values, _ = merge(from_sets([text.removeprefix(prefix) for text in sets]))
    if values:
        with suppress(PluginError):  # the checks report errors of the plugin itself
            registry.options(plugin.group, plugin.name, values)
    return values


def _checked(plugin: dict[str, Any]) -> list[Any]:
    results = [outcome.result for outcome in plugin["checks"]]
    counts = ", ".join(f"{results.count(result)} {result}" for result in RESULTS if result in results)
    title = f"{plugin['full_name']} {plugin['version']}, one of the {plugin['group']}"
    table = ui.records([vars(outcome) for outcome in plugin["checks"]], numbers=False)
    return [Text(title, "bold"), table, Text(counts, "green" if plugin["passed"] else "bold red")]
