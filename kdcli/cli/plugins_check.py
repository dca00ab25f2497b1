"""``kd plugins check``: whether a plugin keeps its contract."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from kdcli import registry
from kdcli.cli import complete, flags, ui
from kdcli.errors import PluginError, UsageError

if TYPE_CHECKING:
    from kdcli.testing import Outcome

app = typer.Typer()

STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim", "warned": "yellow"}


@app.command(
    epilog=flags.example(
        "kd plugins check bilstm --set hidden=8",
        "kd plugins check gpt2 --set model=tiny --set lr=1e-2 --set batch_size=8 --set epochs=20",
    )
)
def check(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A plugin: NAME, or DISTRIBUTION:NAME.", autocompletion=complete.plugin),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="Set one of its options: model=tiny. Repeat it.",
            metavar="KEY=VALUE",
            show_default=False,
            rich_help_panel=flags.SETTINGS,
        ),
    ] = None,
) -> None:
    """Check a plugin against its contract; the exit code is 5 if a check has failed.

    A generator is fine-tuned on 40 sentences and on 40 pairs, and a student trained for a moment, on the CPU: set
    options that make a big model small (--set model=tiny), and with which it learns these few texts in seconds.
    """
    from kdcli.testing.check import check_plugin

    found = []
    for plugin in registry.find_all(name):
        with ui.reporting("kd plugins check") as reporter:  # what a plugin prints as it is imported is no result
            table = _options(plugin, set_ or ())
            checks = check_plugin(plugin.group, plugin.full_name, table, reporter=reporter)
        found.append(_described(plugin, checks))
    ui.show({"plugins": found}, _tables)
    if not all(one["passed"] for one in found):
        raise typer.Exit(PluginError.exit_code)


def _options(plugin: registry.Plugin, sets: Sequence[str]) -> dict[str, Any]:
    """Read ``--set``; a key may also be written as in a profile, ``generators.gpt2.model=tiny``.

    Raises:
        ProfileError: Options are wrong.
        UsageError: There can be none.
    """
    from kdcli.config.layers import from_sets, merge

    if sets and plugin.group == "taggers":
        raise UsageError("a tagger has no options", key="--set", hint="leave out --set")
    prefix = f"{plugin.group}.{plugin.name}."
    values, _ = merge(from_sets([text.removeprefix(prefix) for text in sets]))
    if values:
        with suppress(PluginError):  # what is wrong with the plugin itself is for the checks to tell
            registry.options(plugin.group, plugin.full_name, values)
    return values


def _described(plugin: registry.Plugin, checks: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "group": plugin.group,
        "name": plugin.name,
        "full_name": plugin.full_name,
        "version": plugin.version,
        "passed": not any(outcome.result == "failed" for outcome in checks),
        "checks": ui.plain(checks),
    }


def _tables(result: dict[str, Any]) -> Group:
    parts: list[Any] = []
    for plugin in result["plugins"]:
        table = ui.columns("check", "result", "detail")
        for outcome in plugin["checks"]:
            style = STYLES[outcome["result"]]
            shown = Text(outcome["detail"], style if outcome["result"] != "passed" else "")
            table.add_row(Text(outcome["check"]), Text(outcome["result"], style), shown)
        title = f"{plugin['full_name']} {plugin['version']}, one of the {plugin['group']}"
        parts += [Text(title, "bold"), table, _summary(plugin["checks"])]
    return Group(*parts)


def _summary(checks: Sequence[dict[str, str]]) -> Text:
    counts = {result: sum(outcome["result"] == result for outcome in checks) for result in STYLES}
    told = ", ".join(f"{count} {result}" for result, count in counts.items() if count)
    return Text(told, STYLES["failed" if counts["failed"] else "passed"])
