"""Plugins: found by their metadata alone, imported only when they are chosen, a broken one isolated.

A plugin is an entry point of an installed distribution, or a file of ``--code``. If two have the same name, kd takes
its own; if neither is its own, that is an error.
"""

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.errors import KdError, PluginError, raise_all, shown
from kdcli.registry.plugin import GROUPS, KEYS, Group, Plugin, normal, read_code_files

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["GROUPS", "KEYS", "Group", "Plugin"]


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Read the metadata of everything on ``path`` (``sys.path``: the key of the cache); what is unreadable warns."""
    from importlib.metadata import distributions

    found: dict[tuple[str, str, str], Plugin] = {}
    groups = {f"kdcli.{group}": group for group in GROUPS}
    for distribution in distributions(path=list(path)):
        try:
            for entry in distribution.entry_points:
                if entry.group in groups:
                    group, name = groups[entry.group], distribution.metadata["Name"]
                    plugin = Plugin(group, entry.name, name, distribution.version, entry.value, entry)
                    # The first on the path wins, as it does when it is imported.
                    found.setdefault((group, plugin.name, normal(name)), plugin)
        except Exception as error:
            where = getattr(distribution, "_path", "a distribution")
            warn(f"plugins of {where} left out: its metadata cannot be read ({error})")
    return tuple(found.values())


def all_plugins() -> list[Plugin]:
    """List the plugins of all groups by name, without importing any."""
    found = list(_installed(tuple(sys.path)))
    for file in read_code_files():
        found += [Plugin(group, file.name, file.path.name, file.version, str(file.path), file) for group in file.groups]
    return sorted(found, key=lambda plugin: (plugin.name, plugin.distribution))


def all_versions() -> dict[str, str]:
    """Return the versions of all plugins but kd's own, by distribution."""
    return {plugin.distribution: plugin.version for plugin in all_plugins() if not plugin.is_ours}


def plugins(group: Group) -> list[Plugin]:
    """List the plugins of a group, see ``all_plugins``."""
    return [plugin for plugin in all_plugins() if plugin.group == group]


def find(group: Group, name: str) -> Plugin:
    """Find a plugin by its name, without importing it; kd's own comes before others of the same name."""
    kind, named = group.removesuffix("s"), [plugin for plugin in plugins(group) if plugin.name == name]
    chosen = [plugin for plugin in named if plugin.is_ours] or named
    if not chosen:
        raise _no_such(name, f"{kind} ", plugins(group))
    others = " and ".join(str(plugin.file or plugin.full_name) for plugin in named if plugin is not chosen[0])
    if len(chosen) > 1:
        what = f"{len(chosen)} {kind} plugins are named {name}: {chosen[0].file or chosen[0].full_name} and {others}"
        raise PluginError(what, hint="uninstall all but one, or rename your file")
    if others:
        warn(f"{name} is kd's own {kind}, not {others}: give yours another name")
    return chosen[0]


def find_all(name: str) -> list[Plugin]:
    """Find the plugins of all groups by their name: the same name in two groups is no clash."""
    groups = dict.fromkeys(plugin.group for plugin in all_plugins() if plugin.name == name)
    if not groups:
        raise _no_such(name, "", all_plugins())
    return [find(group, name) for group in groups]


def _no_such(name: str, kind: str, installed: list[Plugin]) -> PluginError:
    """Return the error for a name that no plugin of a kind has."""
    from kdcli.config.table import nearest

    names = list(dict.fromkeys(plugin.name for plugin in installed))
    if name.endswith(".py"):
        hint = f"a plugin is named after its file, which each command has to name: {Path(name).stem} --code {name}"
    elif close := nearest(name, names):
        hint = f"did you mean {close}?"
    else:
        hint = f"installed: {', '.join(names)}; `kd plugins list` shows them; for your own file add --code {name}.py"
    return PluginError(f"no {kind}plugin is named {name}", hint=hint)


used: dict[str, str] = {}
"""The versions of the installed plugins that this process has loaded, but for kd's own, by distribution."""


def load(group: Group, name: str) -> Any:
    """Import a plugin, a module or an object, and check its contract, see ``kdcli.api``."""
    plugin = find(group, name)
    if not (plugin.is_ours or plugin.file):
        used[plugin.distribution] = plugin.version
    return plugin.load()


def options(group: Group, name: str, table: Mapping[str, Any]) -> "BaseModel":
    """Validate a plugin's table of the profile, and return its ``Options``; each wrong key or value is reported."""
    from pydantic import ValidationError

    module: Any = load(group, name)
    model: type[BaseModel] = module.Options
    prefix = f"{group}.{name}."
    invalid: ValidationError | None = None
    with blaming(group, name, "Options"):
        try:
            valid = model.model_validate(dict(table))
            valid.model_dump(mode="json")  # as kd.lock and config.json keep them
        except ValidationError as error:
            invalid = error
    # A plugin that forgot to forbid extra keys would ignore a misspelt option.
    ignores = model.model_config.get("extra", "ignore") == "ignore"
    extra = [key for key in table if ignores and key not in model.model_fields]
    if invalid or extra:
        from kdcli.config.table import explain, unknown

        wrong = explain(invalid, model, prefix) if invalid else []
        raise_all(wrong + [unknown(prefix + key, model, prefix) for key in extra])
    return valid


def effective(group: Group, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a plugin's table that its results depend on: all but those in its ``no_effect``."""
    model = getattr(load(group, name), "Options", None)
    return {key: value for key, value in table.items() if key not in getattr(model, "no_effect", ())}


@contextmanager
def blaming(group: Group, name: str, inside: str, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Name the plugin in an exception inside its function, unless it is a ``KdError`` or one of ``but``."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, (KdError, *but)):
            raise
        plugin = find(group, name)
        file, row = plugin.place(error)
        hint = f"fix {plugin.file}" if plugin.file else "run it again with --debug, and show its author the output"
        what = f"{plugin.title} failed in {inside}: {shown(error)}"
        raise PluginError(what, hint=hint, file=file, row=row) from error


def breach(group: Group, name: str, what: str) -> PluginError:
    """Return the error for a plugin that breaks its contract; ``what`` follows the plugin's title."""
    plugin = find(group, name)
    wanted = f"{name} --code {plugin.file}" if plugin.file else name
    return PluginError(f"{plugin.title} {what}", hint=f"`kd plugins check {wanted}` shows what it must keep")


def code_of(group: Group, name: str) -> dict[str, Path]:
    """Return a plugin's file of ``--code`` by its name, or nothing: results depend on its content."""
    plugin = find(group, name)
    return {plugin.distribution: plugin.file} if plugin.file else {}


def versions(group: Group, name: str) -> dict[str, str]:
    """Return the version of a plugin by its distribution; nothing for kd's own."""
    plugin = find(group, name)
    return {} if plugin.is_ours else {plugin.distribution: plugin.version}


@lru_cache
def warn(what: str) -> None:
    """Warn once, and not again in each worker process."""
    if parent_process() is None:
        warnings.warn(what, stacklevel=2)
