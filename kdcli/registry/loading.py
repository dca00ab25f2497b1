"""Running a plugin's module, and checking that it keeps its contract."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

from kdcli.api import API_VERSION
from kdcli.errors import KdError, PluginError, first_line
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
        remedy = f"update kd (pip install -U {OURS}), or remove it: pip uninstall {plugin.distribution}"
        raise PluginError(f"{plugin.title} {fault}", hint=remedy if newer and not plugin.file else plugin.remedy)
    if found := list(faults(plugin.group, module)):
        raise PluginError(f"{plugin.title} {', and '.join(found)}", hint=plugin.remedy)
    return module


def _import(plugin: Plugin) -> Any:
    try:
        return plugin.source.load()
    except KdError:
        raise
    except (Exception, SystemExit) as error:
        file, row = place(error, plugin.file)
        what = f"{plugin.title} {_why_not(plugin, error)}"
        raise PluginError(what, hint=plugin.remedy, file=file, row=row) from error


def _why_not(plugin: Plugin, error: BaseException) -> str:
    """Say why a plugin cannot be imported: there is nothing at its entry point, or its code fails."""
    module, _, attribute = plugin.module.replace(" ", "").partition(":")
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return f"has an entry point to nothing: there is no module {error.name}"
    if attribute and isinstance(error, AttributeError) and error.name in attribute.split(".") and module in sys.modules:
        return f"has an entry point to nothing: the module {module} has no {attribute}"
    return f"cannot be imported: {type(error).__name__}: {first_line(error)}"


def place(error: BaseException, file: Path | None) -> tuple[Path | None, int | None]:
    """Return where in the plugin's file an error came up, where it is one file and did so there."""
    rows = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return file, rows[-1] if rows else None
