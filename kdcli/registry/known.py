"""The plugins that this process knows: those that are installed, by their metadata, and the files of ``--code``."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path

from kdcli.config.validation import each, nearest, raise_all
from kdcli.errors import KdError, PluginError
from kdcli.registry.code_files import code_files
from kdcli.registry.loading import load_plugin
from kdcli.registry.plugin import GROUPS, KEYS, OURS, Group, Plugin, normal, same, table_name

ALLOWED = "KD_LOAD_PLUGINS"
STRICT = "KD_STRICT_PLUGINS"


def plugins(group: Group) -> list[Plugin]:
    """List the plugins of a group by name, without importing any.

    A distribution whose metadata cannot be read is a warning.

    Raises:
        PluginError: A file of ``--code`` is no plugin, or with ``KD_STRICT_PLUGINS`` any plugin is broken.
    """
    return [plugin for plugin in seen() if plugin.group == group]


def left_out() -> list[Plugin]:
    """List the installed plugins that ``KD_LOAD_PLUGINS`` does not name."""
    return [plugin for plugin in _scan(tuple(sys.path)).plugins if not _is_allowed(plugin.distribution, plugin.name)]


def find(group: Group, name: str) -> Plugin:
    """Find a plugin by its name, without importing it; kd's own comes before others of the same name.

    Raises:
        PluginError: There is none of that name, or other people have more than one.
    """
    there = plugins(group)
    found = [plugin for plugin in there if plugin.is_called(name)]
    if chosen := [plugin for plugin in found if plugin.is_ours or len(found) == 1]:
        return chosen[0]
    if found:
        one = group.removesuffix("s")
        names = [plugin.full_name for plugin in found]
        hint = f"write which one you mean: {' or '.join(names)} (--set {KEYS[group]}={names[0]} chooses it)"
        raise PluginError(f"{len(found)} {one} plugins are named {found[0].name}: {', '.join(names)}", hint=hint)
    raise _no_such(name, group, there)


def passed_over(group: Group, name: str) -> str:
    """Say which other plugins a name could mean that is taken for kd's own; an empty text where there are none."""
    found = [plugin for plugin in plugins(group) if plugin.is_called(name)]
    others = [plugin.full_name for plugin in found if not plugin.is_ours]
    if len(others) == len(found) or not others:
        return ""
    choose = f"--set {KEYS[group]}={others[0]} chooses the other"
    return f"{name} is taken for kd's own {group.removesuffix('s')}, and not for {', '.join(others)}: {choose}"


def find_all(name: str) -> list[Plugin]:
    """Find the plugins of all groups by their name: the same name in two groups is no clash.

    Raises:
        PluginError: There is none of that name, or other people have more than one in a group.
    """
    there = [plugin for group in GROUPS for plugin in plugins(group)]
    groups = dict.fromkeys(plugin.group for plugin in there if plugin.is_called(name))
    if not groups:
        raise _no_such(name, None, there)
    for doubt in filter(None, (passed_over(group, name) for group in groups)):
        warn(doubt)
    return [find(group, name) for group in groups]


def _no_such(name: str, group: Group | None, there: list[Plugin]) -> PluginError:
    """Return the error for a name that no plugin of a group (None: of any) has; ``there`` are those that it has."""
    distribution = name.rpartition(":")[0]
    names = [known for plugin in there for known in (plugin.name, plugin.full_name)]
    shut = [plugin.full_name for plugin in left_out() if group in (None, plugin.group) and plugin.is_called(name)]
    stem = Path(name).name.removesuffix(".py")
    if shut:
        hint = f"{ALLOWED} leaves out {shut[0]}: name it there"
    elif name.endswith(".py"):
        given = stem if stem in names else f"{stem} --code {name}"
        hint = f"`kd plugins check {given}`" if group is None else f"a plugin is named after its file: {given}"
    elif distribution.endswith(".py"):
        hint = f"it is a file, which every command that needs it has to name: --code {distribution}"
    elif close := nearest(name, names):
        hint = f"did you mean {close}?"
    else:
        known = ", ".join(dict.fromkeys(plugin.name for plugin in there)) or "none"
        hint = f"installed: {known}; `kd plugins list` shows them; "
        hint += f"if it is a file of yours, add --code {table_name(name)}.py"
    return PluginError(f"no {group.removesuffix('s') + ' ' if group else ''}plugin is named {name}", hint=hint)


def seen() -> tuple[Plugin, ...]:
    """Return the plugins of all groups, see ``plugins``."""
    scanned = _scan(tuple(sys.path))
    found = [plugin for plugin in scanned.plugins if _is_allowed(plugin.distribution, plugin.name)]
    for file in code_files():
        found += [Plugin(group, file.name, file.path.name, file.version, str(file.path), file) for group in file.groups]
    every = tuple(sorted(found, key=lambda plugin: (plugin.name, plugin.distribution)))
    torn = tuple(what for distribution, what in scanned.torn if _is_allowed(distribution))
    if unknown := _unknown_allowed(scanned):
        warn(f"{ALLOWED} names {', '.join(unknown)}: no plugin, and no distribution of plugins, is called so")
    if strict():
        _refuse_broken(every, torn)
    else:
        for what in torn:
            warn(what)
    return every


def odd_entry_points() -> tuple[tuple[str, str], ...]:
    """Return the distributions whose entry points are in a group that is nearly one of kd's, and that group."""
    return _scan(tuple(sys.path)).odd


def strict() -> bool:
    """Return whether a broken plugin is an error even if nobody chose it."""
    return os.environ.get(STRICT, "0") not in ("", "0")


def _is_allowed(distribution: str, name: str = "") -> bool:
    """Return whether ``KD_LOAD_PLUGINS`` names the distribution, or its plugin of this name."""
    wanted = _allowed()
    return wanted is None or normal(distribution) == OURS or any(_means(one, distribution, name) for one in wanted)


def _allowed() -> list[str] | None:
    """Return the entries of ``KD_LOAD_PLUGINS``; None where it is not set."""
    wanted = os.environ.get(ALLOWED)
    return None if wanted is None else [entry for text in wanted.split(",") if (entry := text.strip())]


def _means(entry: str, distribution: str, name: str) -> bool:
    """Return whether an entry of ``KD_LOAD_PLUGINS`` means a distribution, or its plugin of this name."""
    of, _, short = entry.rpartition(":")
    return same(entry, distribution) or (short == name and same(of, distribution))


def _unknown_allowed(scanned: _Scan) -> list[str]:
    """Return the entries of ``KD_LOAD_PLUGINS`` that mean nothing that is installed."""
    known = [*((plugin.distribution, plugin.name) for plugin in scanned.plugins), *((of, "") for of, _ in scanned.torn)]
    return [entry for entry in _allowed() or () if not any(_means(entry, *one) for one in known)]


@lru_cache
def _refuse_broken(every: tuple[Plugin, ...], torn: tuple[str, ...]) -> None:
    mistakes: list[KdError] = [PluginError(what, hint="install it again, or remove it") for what in torn]
    for plugin in every:
        try:
            load_plugin(plugin)
        except KdError as error:
            mistakes += each(error)
    if mistakes:
        raise_all(mistakes)


@lru_cache
def warn(what: str) -> None:
    """Warn once, and not in each worker process again."""
    if parent_process() is None:
        warnings.warn(what, stacklevel=2)


@dataclass(frozen=True)
class _Scan:
    """What the installed distributions say, which say nothing that can be read, and which are in an odd group."""

    plugins: tuple[Plugin, ...]
    torn: tuple[tuple[str, str], ...]
    odd: tuple[tuple[str, str], ...]


@lru_cache(maxsize=1)
def _scan(path: tuple[str, ...]) -> _Scan:
    """Read the metadata of everything on ``path`` (``sys.path``: the key of the cache)."""
    from importlib.metadata import distributions

    found: dict[tuple[str, str, str], Plugin] = {}
    torn: list[tuple[str, str]] = []
    odd: dict[tuple[str, str], None] = {}
    groups = {f"kdcli.{group}": group for group in GROUPS}
    for distribution in distributions(path=list(path)):
        try:
            for entry_point in distribution.entry_points:
                if entry_point.group in groups:
                    group, name = groups[entry_point.group], distribution.metadata["Name"]
                    plugin = Plugin(group, entry_point.name, name, distribution.version, entry_point.value, entry_point)
                    # The first on the path wins, as it does when it is imported.
                    found.setdefault((group, plugin.name, normal(name)), plugin)
                elif entry_point.group.startswith(OURS):
                    odd[distribution.metadata["Name"], entry_point.group] = None
        except Exception as error:
            where = Path(getattr(distribution, "_path", "a distribution"))
            what = f"plugins of {where} left out: its metadata cannot be read ({error})"
            torn.append((where.name.partition("-")[0], what))
    return _Scan(tuple(found.values()), tuple(torn), tuple(odd))
