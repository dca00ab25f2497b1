"""``kd plugins list`` and ``show``: the plugins, and the options of one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from rich.console import Group

from kdcli import registry
from kdcli.cli import ui
from kdcli.cli.options import PluginName, Request, command
from kdcli.cli.plugins_check import check
from kdcli.cli.plugins_new import new

__all__ = ["check", "list_", "new", "show"]


@command("kd plugins list")
def list_(request: Request) -> None:
    """List the plugins."""
    found = [plugin for group in registry.GROUPS for plugin in registry.plugins(group)]
    names = [(plugin.group, plugin.name) for plugin in found]
    rows = [{**_described(plugin), "clash": names.count((plugin.group, plugin.name)) > 1} for plugin in found]
    for row in rows:
        if row["clash"]:
            ui.warn(f"{row['name']} is more than one of the {row['group']}: write {row['full_name']} to choose it")
    if hidden := registry.left_out():
        ui.info(f"left out by KD_LOAD_PLUGINS: {', '.join(plugin.full_name for plugin in hidden)}")
    ui.show({"plugins": rows})


@command("kd plugins show bilstm")
def show(request: Request, *, name: PluginName) -> None:
    """Show a plugin."""
    shown = [_shown(plugin) for plugin in registry.find_all(name)]
    ui.show({"plugins": shown}, lambda _: Group(*map(ui.describe, shown)))


def _described(plugin: registry.Plugin) -> dict[str, Any]:
    names = ("group", "name", "full_name", "distribution", "version", "module")
    return {name: getattr(plugin, name) for name in names}


def _shown(plugin: registry.Plugin) -> dict[str, Any]:
    from kdcli.config.docs import options_of

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
