"""``kd plugins``: which there are, and what one takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdcli import registry
from kdcli.cli import complete, flags, ui
from kdcli.errors import PluginError
from kdcli.mistakes import nearest

app = typer.Typer(name="plugins", help="Students, taggers and generators: list and show plugins.")


@app.command("list", epilog=flags.example("kd plugins list"))
def list_() -> None:
    """List the installed plugins, from their metadata alone."""
    found = [plugin for group in registry.GROUPS for plugin in registry.plugins(group)]
    names = [(plugin.group, plugin.name) for plugin in found]
    rows = [{**_described(plugin), "clash": names.count((plugin.group, plugin.name)) > 1} for plugin in found]
    for row in rows:
        if row["clash"]:
            ui.warn(f"{row['name']} is more than one of the {row['group']}: write {row['full_name']} to choose it")
    ui.show({"plugins": rows}, _listed)


@app.command(epilog=flags.example("kd plugins show bilstm"))
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A plugin: NAME, or DISTRIBUTION:NAME.", autocompletion=complete.plugin),
    ],
) -> None:
    """Show what a plugin is and which options it takes."""
    shown = [_shown(plugin) for plugin in _named(name)]
    ui.show({"plugins": shown}, _pages)


def _named(name: str) -> list[registry.Plugin]:
    """Find a name in every group: the same name in two groups is no clash."""
    groups = [
        group
        for group in registry.GROUPS
        if any(name in (plugin.name, plugin.full_name) for plugin in registry.plugins(group))
    ]
    if groups:
        return [registry.find(group, name) for group in groups]
    names = [plugin.name for group in registry.GROUPS for plugin in registry.plugins(group)]
    close = nearest(name, names)
    hint = f"did you mean {close}?" if close else f"installed: {', '.join(dict.fromkeys(names)) or 'none'}"
    raise PluginError(f"no plugin is named {name}", hint=hint)


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
    loaded = registry.load(plugin.group, plugin.full_name)
    fields = loaded.Options.model_fields if hasattr(loaded, "Options") else {}
    options = [
        {
            "key": f"{plugin.group}.{plugin.name}.{key}",
            "default": "required" if field.is_required() else field.get_default(call_default_factory=True),
            "about": " ".join((field.description or "").split()),
        }
        for key, field in fields.items()
    ]
    about = (getattr(loaded, "__doc__", None) or "").strip().partition("\n")[0]
    can = {name: getattr(loaded, name) for name in ("pairs", "scores") if hasattr(loaded, name)}
    return {**_described(plugin), "about": about, **can, "options": options}


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
    able = [name for name in ("pairs", "scores") if plugin.get(name)]
    if able:
        yield Text(f"also for {' and '.join(able)}")
    if plugin["options"]:
        table = ui.columns("option", "default", "what it is")
        for option in plugin["options"]:
            table.add_row(Text(option["key"], "bold"), Text(str(option["default"])), Text(option["about"]))
        yield table
