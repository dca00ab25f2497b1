"""Plugins: found by their metadata alone, imported only when they are chosen, a broken one isolated.

A plugin is an entry point of an installed distribution, or a file of ``--code``. Its name is ``NAME``, or
``DISTRIBUTION:NAME`` where two distributions use the same name. ``KD_LOAD_PLUGINS`` lists the distributions or plugins
that are seen beside kd's own (unset: all; empty: none). With ``KD_STRICT_PLUGINS=1`` any broken plugin is an error.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from kdcli.errors import KdError, PluginError, each, raise_all, shown
from kdcli.registry.plugin import GROUPS, KEYS, OURS, Group, Plugin, normal, read_code_files, same, table_name

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kdcli.api import GeneratorPlugin, StudentPlugin, TaggerPlugin, TeacherPlugin

__all__ = ["GROUPS", "KEYS", "Group", "Plugin", "table_name"]

ALLOW_LIST = "KD_LOAD_PLUGINS"
STRICT = "KD_STRICT_PLUGINS"


# Finding


class _Scan(NamedTuple):
    plugins: tuple[Plugin, ...]
    unreadable: dict[str, str]  # distribution: what is wrong with its metadata
    odd: tuple[tuple[str, str], ...]  # distribution and misspelt group


@lru_cache(maxsize=1)
def _scan(path: tuple[str, ...]) -> _Scan:
    """Read the metadata of everything on ``path`` (``sys.path``: the key of the cache)."""
    from importlib.metadata import distributions

    found: dict[tuple[str, str, str], Plugin] = {}
    unreadable: dict[str, str] = {}
    odd: dict[tuple[str, str], None] = {}
    groups = {f"kdcli.{group}": group for group in GROUPS}
    for distribution in distributions(path=list(path)):
        try:
            for entry in distribution.entry_points:
                if entry.group in groups:
                    group, name = groups[entry.group], distribution.metadata["Name"]
                    plugin = Plugin(group, entry.name, name, distribution.version, entry.value, entry)
                    # The first on the path wins, as it does when it is imported.
                    found.setdefault((group, plugin.name, normal(name)), plugin)
                elif entry.group.startswith(OURS):
                    odd[distribution.metadata["Name"], entry.group] = None
        except Exception as error:
            where = Path(getattr(distribution, "_path", "a distribution"))
            what = f"plugins of {where} left out: its metadata cannot be read ({error})"
            unreadable[where.name.partition("-")[0]] = what
    return _Scan(tuple(found.values()), unreadable, tuple(odd))


def all_plugins() -> tuple[Plugin, ...]:
    """List the plugins of all groups by name, without importing any; unreadable metadata is a warning."""
    scan = _scan(tuple(sys.path))
    found = [plugin for plugin in scan.plugins if _is_allowed(plugin.distribution, plugin.name)]
    for file in read_code_files():
        found += [Plugin(group, file.name, file.path.name, file.version, str(file.path), file) for group in file.groups]
    every = tuple(sorted(found, key=lambda plugin: (plugin.name, plugin.distribution)))
    unreadable = tuple(what for distribution, what in scan.unreadable.items() if _is_allowed(distribution))
    known = [*((plugin.distribution, plugin.name) for plugin in scan.plugins), *((of, "") for of in scan.unreadable)]
    if wrong := [entry for entry in _allow_list() or () if not any(_means(entry, *one) for one in known)]:
        warn(f"{ALLOW_LIST} names {', '.join(wrong)}: no plugin, and no distribution of plugins, is called so")
    if os.environ.get(STRICT, "0") not in ("", "0"):
        _check_all(every, unreadable)
    for what in unreadable:
        warn(what)
    return every


@lru_cache
def _check_all(every: tuple[Plugin, ...], unreadable: tuple[str, ...]) -> None:
    errors: list[KdError] = [PluginError(what, hint="install it again, or remove it") for what in unreadable]
    for plugin in every:
        try:
            plugin.load()
        except KdError as error:
            errors += each(error)
    if errors:
        raise_all(errors)


def _allow_list() -> list[str] | None:
    wanted = os.environ.get(ALLOW_LIST)
    return None if wanted is None else [entry for text in wanted.split(",") if (entry := text.strip())]


def _is_allowed(distribution: str, name: str = "") -> bool:
    wanted = _allow_list()
    return wanted is None or normal(distribution) == OURS or any(_means(entry, distribution, name) for entry in wanted)


def _means(entry: str, distribution: str, name: str) -> bool:
    """Return whether an entry of the allow list means a distribution, or its plugin of this name."""
    of, _, short = entry.rpartition(":")
    return same(entry, distribution) or (short == name and same(of, distribution))


def plugins(group: Group) -> list[Plugin]:
    """List the plugins of a group, see ``all_plugins``."""
    return [plugin for plugin in all_plugins() if plugin.group == group]


def left_out() -> list[Plugin]:
    """List the installed plugins that ``KD_LOAD_PLUGINS`` does not name."""
    return [plugin for plugin in _scan(tuple(sys.path)).plugins if not _is_allowed(plugin.distribution, plugin.name)]


def odd_entry_points() -> tuple[tuple[str, str], ...]:
    """Return distributions with a misspelt group of entry points (``kdcli.student``), and that group."""
    return _scan(tuple(sys.path)).odd


def find(group: Group, name: str) -> Plugin:
    """Find a plugin by its name, without importing it; kd's own comes before others of the same name."""
    found = [plugin for plugin in plugins(group) if plugin.is_called(name)]
    if chosen := [plugin for plugin in found if plugin.is_ours or len(found) == 1]:
        return chosen[0]
    if found:
        names = [plugin.full_name for plugin in found]
        hint = f"write which one you mean: {' or '.join(names)} (--set {KEYS[group]}={names[0]} chooses it)"
        what = f"{len(found)} {group.removesuffix('s')} plugins are named {found[0].name}: {', '.join(names)}"
        raise PluginError(what, hint=hint)
    raise _no_such(name, group, plugins(group))


def find_all(name: str) -> list[Plugin]:
    """Find the plugins of all groups by their name: the same name in two groups is no clash."""
    groups = dict.fromkeys(plugin.group for plugin in all_plugins() if plugin.is_called(name))
    if not groups:
        raise _no_such(name, None, list(all_plugins()))
    for doubt in filter(None, (passed_over(group, name) for group in groups)):
        warn(doubt)
    return [find(group, name) for group in groups]


def passed_over(group: Group, name: str) -> str:
    """Return a warning that names the other plugins of a name that kd's own has; else an empty text."""
    found = [plugin for plugin in plugins(group) if plugin.is_called(name)]
    others = [plugin.full_name for plugin in found if not plugin.is_ours]
    if len(others) == len(found) or not others:
        return ""
    choose = f"--set {KEYS[group]}={others[0]} chooses the other"
    return f"{name} is kd's own {group.removesuffix('s')}, not {' or '.join(others)}: {choose}"


def _no_such(name: str, group: Group | None, installed: list[Plugin]) -> PluginError:
    """Return the error for a name that no plugin of a group (None: of any group) has."""
    from kdcli.config.validation import nearest

    file = name if name.endswith(".py") else name.rpartition(":")[0]
    names = [known for plugin in installed for known in (plugin.name, plugin.full_name)]
    hidden = [plugin.full_name for plugin in left_out() if group in (None, plugin.group) and plugin.is_called(name)]
    if hidden:
        hint = f"{ALLOW_LIST} leaves out {hidden[0]}: name it there"
    elif file.endswith(".py"):
        hint = f"a plugin is named after its file, which each command has to name: {Path(file).stem} --code {file}"
    elif close := nearest(name, names):
        hint = f"did you mean {close}?"
    else:
        known = ", ".join(dict.fromkeys(plugin.name for plugin in installed)) or "none"
        hint = f"installed: {known}; `kd plugins list` shows them; for your own file add --code {table_name(name)}.py"
    return PluginError(f"no {group.removesuffix('s') + ' ' if group else ''}plugin is named {name}", hint=hint)


# Loading


@overload
def load(group: Literal["generators"], name: str) -> GeneratorPlugin: ...
@overload
def load(group: Literal["students"], name: str) -> StudentPlugin: ...
@overload
def load(group: Literal["taggers"], name: str) -> TaggerPlugin: ...
@overload
def load(group: Literal["teachers"], name: str) -> TeacherPlugin: ...
@overload
def load(group: Group, name: str) -> Any: ...
def load(group: Group, name: str) -> Any:
    """Import a plugin, a module or an object, and check its contract.

    Raises:
        PluginError: The plugin is missing, its name is ambiguous, it cannot be imported or breaks the contract.
    """
    return find(group, name).load()


def options(group: Group, name: str, table: Mapping[str, Any]) -> BaseModel:
    """Validate a plugin's table of the profile, and return its ``Options``.

    Raises:
        ProfileError: Keys or values are wrong; it reports every one.
    """
    from pydantic import ValidationError

    module: Any = load(group, name)
    model: type[BaseModel] = module.Options
    prefix = f"{group}.{table_name(name)}."
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
        from kdcli.config.validation import explain, unknown

        wrong = explain(invalid, model, prefix) if invalid else []
        raise_all(wrong + [unknown(prefix + key, model, prefix) for key in extra])
    return valid


def effective(group: Group, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a plugin's table that its results depend on: all but those in its ``no_effect``."""
    model = getattr(load(group, name), "Options", None)
    return {key: value for key, value in table.items() if key not in getattr(model, "no_effect", ())}


@contextmanager
def blaming(group: Group, name: str, inside: str, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn an exception inside a plugin's function into an error that names the plugin.

    A ``KdError``, and the exceptions of ``but``, stay as they are.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, (KdError, *but)):
            raise
        plugin = _find_or_none(group, name)
        file, row = plugin.place(error) if plugin else (None, None)
        hint = "run it again with --debug, and show its author the output"
        if plugin and plugin.file:
            hint = f"fix {plugin.file}"
        what = f"{title(group, name)} failed in {inside}: {shown(error)}"
        raise PluginError(what, hint=hint, file=file, row=row) from error


def breach(group: Group, name: str, what: str) -> PluginError:
    """Return the error for a plugin that breaks its contract; ``what`` follows the plugin's title."""
    plugin = _find_or_none(group, name)
    wanted = f"{plugin.name} --code {plugin.file}" if plugin and plugin.file else name
    return PluginError(f"{title(group, name)} {what}", hint=f"`kd plugins check {wanted}` shows what it must keep")


# Describing


def about(module: Any) -> str:
    """Return the first line of a loaded plugin's docstring."""
    return (getattr(module, "__doc__", None) or "").strip().partition("\n")[0]


def title(group: Group, name: str) -> str:
    """Return the name of a plugin, installed or not, in messages."""
    plugin = _find_or_none(group, name)
    return plugin.title if plugin else f"the {group.removesuffix('s')} plugin {name}"


def code_of(group: Group, name: str) -> dict[str, Path]:
    """Return a plugin's file of ``--code`` by its name, or nothing: results depend on its content."""
    plugin = _find_or_none(group, name)
    return {plugin.distribution: plugin.file} if plugin and plugin.file else {}


def versions(group: Group, name: str) -> dict[str, str]:
    """Return the version of a plugin by its distribution; nothing for kd's own or a missing one."""
    plugin = _find_or_none(group, name)
    return {plugin.distribution: plugin.version} if plugin and not plugin.is_ours else {}


def all_versions() -> dict[str, str]:
    """Return the versions of all plugins but kd's own."""
    return {plugin.distribution: plugin.version for plugin in all_plugins() if not plugin.is_ours}


def _find_or_none(group: Group, name: str) -> Plugin | None:
    try:
        return find(group, name)
    except PluginError:
        return None


@lru_cache
def warn(what: str) -> None:
    """Warn once, and not again in each worker process."""
    if parent_process() is None:
        warnings.warn(what, stacklevel=2)
