"""Running a plugin's module, and checking that it keeps its contract."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

from kdcli.api import API_VERSION
from kdcli.errors import KdError, PluginError, shown
from kdcli.registry.contracts import faults, version_fault
from kdcli.registry.plugin import OURS, Plugin


def load_plugin(plugin: Plugin) -> Any:
    """Import a plugin and check that it keeps the contract.

    Returns:
        The module, or the object, that its entry point names.

    Raises:
        PluginError: It cannot be imported, or breaks the contract.
    """
    module = _import(plugin)
    if fault := version_fault(module):
        newer = isinstance(version := getattr(module, "api_version", None), int) and version > API_VERSION
        remedy = plugin.remedy
        if newer and not plugin.file:
            remedy = f"update kd (pip install -U {OURS}), or remove it: pip uninstall {plugin.distribution}"
        elif not hasattr(module, "api_version") and ":" in plugin.module and not plugin.file:
            remedy = f"an entry point names a module: {plugin.module.partition(':')[0].strip()}, not {plugin.module}"
        raise PluginError(f"{plugin.title} {fault}", hint=remedy)
    if found := list(faults(plugin.group, module)):
        raise PluginError(f"{plugin.title} {', and '.join(found)}", hint=plugin.remedy)
    return module


def _import(plugin: Plugin) -> Any:
    try:
        return plugin.source.load()
    except KdError:
        raise
    except (Exception, SystemExit) as error:
        file, row = place(error, plugin)
        what = f"{plugin.title} {_why_not(plugin, error)}"
        raise PluginError(what, hint=plugin.remedy, file=file, row=row) from error


def _why_not(plugin: Plugin, error: BaseException) -> str:
    """Say why a plugin cannot be imported: there is nothing at its entry point, or its code fails."""
    module, _, attribute = plugin.module.replace(" ", "").partition(":")
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return f"has an entry point to nothing: there is no module {error.name}"
    if attribute and isinstance(error, AttributeError) and error.name in attribute.split(".") and module in sys.modules:
        return f"has an entry point to nothing: the module {module} has no {attribute}"
    return f"cannot be imported: {shown(error)}"


def place(error: BaseException, plugin: Plugin) -> tuple[Path | None, int | None]:
    """Return the file and the row of a plugin where an error came up last; no row where it did so elsewhere alone."""
    package = plugin.module.partition(":")[0].partition(".")[0].strip()
    for frame, row in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = Path(frame.f_code.co_filename)
        if file == plugin.file or str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            return file, row
    return plugin.file, None
