"""``kd plugins``: which there are, and what one takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdcli import registry
from kdcli.cli import complete, flags, plugins_check, plugins_new, ui

_CAPABILITIES = {
    "pairs": "pairs of texts",
    "scores": "scores",
    "fast": "prediction without torch",
    "onnx": "export to ONNX",
}
app = typer.Typer(name="plugins", help="Students, taggers and generators: list, show, check and write plugins.")
app.add_typer(plugins_check.app)
app.add_typer(plugins_new.app)


@app.command("list", epilog=flags.example("kd plugins list"))
def list_() -> None:
    """List the installed plugins, from their metadata alone."""
    found = [plugin for group in registry.GROUPS for plugin in registry.plugins(group)]
    names = [(plugin.group, plugin.name) for plugin in found]
    rows = [{**_described(plugin), "clash": names.count((plugin.group, plugin.name)) > 1} for plugin in found]
    for row in rows:
        if row["clash"]:
            ui.warn(f"{row['name']} is more than one of the {row['group']}: write {row['full_name']} to choose it")
    if shut := registry.left_out():
        ui.info(f"left out by KD_LOAD_PLUGINS: {', '.join(plugin.full_name for plugin in shut)}")
    ui.show({"plugins": rows}, _listed)


@app.command(epilog=flags.example("kd plugins show bilstm"))
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A plugin: NAME, or DISTRIBUTION:NAME.", autocompletion=complete.plugin),
    ],
) -> None:
    """Show what a plugin is, where it comes from, what it can do, and which options it takes."""
    shown = [_shown(plugin) for plugin in registry.find_all(name)]
    ui.show({"plugins": shown}, _pages)


def _described(plugin: registry.Plugin) -> dict[str, Any]:
    return {
        "group": plugin.group,
        "name": plugin.name,
        "full_name": plugin.full_name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
    }


def _shown(plugin: registry.Plugin) -> dict[str, Any]:
    from kdcli.config.options import options_of

    loaded: Any = registry.load(plugin.group, plugin.full_name)
    model = getattr(loaded, "Options", None)
    options = [asdict(option) for option in options_of(model, f"{plugin.group}.{plugin.name}.")] if model else []
    flags = {name: getattr(loaded, name) for name in ("pairs", "scores") if hasattr(loaded, name)}
    extras = {"fast": hasattr(loaded, "fast"), "onnx": hasattr(loaded, "to_onnx")} if plugin.group == "students" else {}
    return {
        **_described(plugin),
        "about": registry.about(loaded),
        "summary": plugin.summary,
        "home_page": plugin.home_page,
        "file": getattr(sys.modules.get(plugin.module.partition(":")[0], loaded), "__file__", None),
        "api_version": loaded.api_version,
        **flags,
        **extras,
        "options": options,
    }


def _listed(result: dict[str, Any]) -> Table:
    table = ui.columns("group", "name", "from", "module")
    for row in result["plugins"]:
        name = row["full_name"] if row["clash"] else row["name"]
        table.add_row(row["group"], Text(name, "bold"), f"{row['distribution']} {row['version']}", row["module"])
    return table


def _pages(result: dict[str, Any]) -> Group:
    return Group(*(part for plugin in result["plugins"] for part in _page(plugin)))


def _page(plugin: dict[str, Any]) -> Iterator[Text | Table]:
    yield Text(f"{plugin['full_name']} {plugin['version']}, one of the {plugin['group']}", "bold")
    yield Text(plugin["about"])
    facts = ui.columns("", "")
    facts.show_header = False
    told = {
        "distribution": f"{plugin['distribution']} {plugin['version']}",
        "summary": plugin["summary"],
        "home page": plugin["home_page"],
        "lies at": plugin["file"],
        "api_version": str(plugin["api_version"]),
    }
    able = {what: plugin[name] for name, what in _CAPABILITIES.items() if name in plugin}
    told["can"] = ", ".join(what for what, can in able.items() if can)
    told["cannot"] = ", ".join(what for what, can in able.items() if not can)
    for name, value in told.items():
        if value:
            facts.add_row(name, Text(value))
    yield facts
    if plugin["options"]:
        table = ui.columns("option", "type", "default", "what it is")
        for option in plugin["options"]:
            shown = (option["key"], option["type"], _default(option), option["about"])
            table.add_row(Text(shown[0], "bold"), *map(Text, shown[1:]))
        yield table


def _default(option: dict[str, Any]) -> str:
    from kdcli.config.toml import inline

    if option["required"]:
        return "required"
    return "unset" if option["default"] is None else inline(option["default"])
