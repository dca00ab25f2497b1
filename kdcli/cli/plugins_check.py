"""``kd plugins check``: whether a plugin keeps its contract."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from kdcli import registry
from kdcli.cli import ui
from kdcli.cli.options import SETTINGS, PluginName, Request, command, option
from kdcli.errors import PluginError, UsageError

RESULTS = ("passed", "failed", "skipped", "warned")

Sets = Annotated[
    list[str] | None, option(SETTINGS, "--set -s", "Set one of its options: model=tiny. Repeat it.", "KEY=VALUE")
]


@command(
    "kd plugins check bilstm --set hidden=8",
    "kd plugins check gpt2 --set model=tiny --set lr=1e-2 --set batch_size=8 --set epochs=20",
)
def check(request: Request, *, name: PluginName, sets: Sets = None) -> None:
    """Check a plugin.

    A generator is fine-tuned on 40 sentences and on 40 pairs, and a student trained for a moment, on the CPU: set
    options that make a big model small (--set model=tiny), and with which it learns these few texts in seconds.
    """
    from kdcli.testing import check_plugin

    found = []
    for plugin in registry.find_all(name):
        with ui.reporting("kd plugins check") as reporter:  # what a plugin prints when it is imported is no result
            table = _options(plugin, sets or ())
            checks = check_plugin(plugin.group, plugin.full_name, table, reporter=reporter)
        found.append(
            {
                **{name: getattr(plugin, name) for name in ("group", "name", "full_name", "version")},
                "passed": not any(outcome.result == "failed" for outcome in checks),
                "checks": checks,
            }
        )
    ui.show({"plugins": found}, _tables)
    if not all(one["passed"] for one in found):
        raise typer.Exit(PluginError.exit_code)


def _options(plugin: registry.Plugin, sets: Sequence[str]) -> dict[str, Any]:
    """Read ``--set``; a key may also be written as in a profile, ``generators.gpt2.model=tiny``.

    Raises:
        ProfileError: Options are wrong.
        UsageError: The plugin takes none.
    """
    from kdcli.config.layers import from_sets, merge

    if sets and plugin.group == "taggers":
        raise UsageError("a tagger has no options", key="--set", hint="leave out --set")
    prefix = f"{plugin.group}.{plugin.name}."
    values, _ = merge(from_sets([text.removeprefix(prefix) for text in sets]))
    if values:
        with suppress(PluginError):  # the checks report errors of the plugin itself
            registry.options(plugin.group, plugin.full_name, values)
    return values


def _tables(result: dict[str, Any]) -> Group:
    parts: list[Any] = []
    for plugin in result["plugins"]:
        results = [outcome.result for outcome in plugin["checks"]]
        counts = ", ".join(f"{results.count(result)} {result}" for result in RESULTS if result in results)
        title = f"{plugin['full_name']} {plugin['version']}, one of the {plugin['group']}"
        table = ui.records([vars(outcome) for outcome in plugin["checks"]], numbers=False)
        parts += [Text(title, "bold"), table, Text(counts, "green" if plugin["passed"] else "bold red")]
    return Group(*parts)
