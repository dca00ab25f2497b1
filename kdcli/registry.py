"""Plugins over entry points: names from metadata alone, code imported only when it is chosen.

A plugin is named ``NAME``, or ``DISTRIBUTION:NAME`` where two distributions use the same name.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from kdcli.api import API_VERSION
from kdcli.errors import KdError, PluginError
from kdcli.mistakes import each, explain, nearest, raise_all, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pydantic import BaseModel

    from kdcli.api import Generator, Student, Tagger

Group = Literal["generators", "students", "taggers"]
GROUPS: tuple[Group, ...] = get_args(Group)
NEEDED: Mapping[str, tuple[str, ...]] = {
    "generators": ("Options", "fine_tune", "load"),
    "students": ("Options", "build", "pairs", "scores"),
    "taggers": ("tag",),
}
"""What the module of a plugin must hold beside ``api_version``."""


@dataclass(frozen=True)
class Plugin:
    """What the metadata of an installed distribution says about a plugin."""

    group: Group
    name: str
    distribution: str
    version: str
    module: str
    entry_point: EntryPoint = field(repr=False, compare=False)

    @property
    def full_name(self) -> str:
        """The name that is never ambiguous: ``DISTRIBUTION:NAME``."""
        return f"{self.distribution}:{self.name}"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the {self.group.removesuffix('s')} plugin {self.full_name}"


def plugins(group: Group) -> list[Plugin]:
    """List the installed plugins of a group by name, without importing any.

    A distribution whose metadata cannot be read is a warning.
    """
    return [plugin for plugin in _scan(tuple(sys.path)) if plugin.group == group]


def find(group: Group, name: str) -> Plugin:
    """Find a plugin by its name, without importing it.

    Raises:
        PluginError: There is none of that name, or more than one.
    """
    there = plugins(group)
    distribution, _, short = name.rpartition(":")
    found = [plugin for plugin in there if plugin.name == short and _same(distribution, plugin.distribution)]
    if len(found) == 1:
        return found[0]
    one = group.removesuffix("s")
    if found:
        names = [plugin.full_name for plugin in found]
        hint = f"write which one you mean: {' or '.join(names)}"
        raise PluginError(f"{len(found)} {one} plugins are named {short}: {', '.join(names)}", hint=hint)
    close = nearest(name, [known for plugin in there for known in (plugin.name, plugin.full_name)])
    known = ", ".join(dict.fromkeys(plugin.name for plugin in there)) or "none"
    hint = f"did you mean {close}?" if close else f"installed: {known}; `kd plugins list` shows them"
    raise PluginError(f"no {one} plugin is named {name}", hint=hint)


@overload
def load(group: Literal["generators"], name: str) -> Generator: ...
@overload
def load(group: Literal["students"], name: str) -> Student: ...
@overload
def load(group: Literal["taggers"], name: str) -> Tagger: ...
@overload
def load(group: Group, name: str) -> Any: ...
def load(group: Group, name: str) -> Any:
    """Import a plugin and check that it keeps the contract.

    Returns:
        The module, or the object, that its entry point names.

    Raises:
        PluginError: It is not there, its name is ambiguous, it cannot be imported or breaks the contract.
    """
    plugin = find(group, name)
    hint = f"update or remove it: pip install -U {plugin.distribution}, or pip uninstall {plugin.distribution}"
    try:
        module = plugin.entry_point.load()
    except KdError:
        raise
    except (Exception, SystemExit) as error:
        what = f"{plugin.title} cannot be imported: {type(error).__name__}: {error}"
        raise PluginError(what, hint=hint) from error
    version = getattr(module, "api_version", None)
    if version != API_VERSION:
        what = f"{plugin.title} is written for api_version {version}; this kd has {API_VERSION}"
        raise PluginError(what, hint=hint)
    missing = [name for name in NEEDED[group] if not hasattr(module, name)]
    if missing:
        raise PluginError(f"{plugin.title} lacks {', '.join(missing)}", hint=hint)
    return module


def options(group: Group, name: str, table: Mapping[str, Any]) -> BaseModel:
    """Check a plugin's options.

    Args:
        group: The plugin's group.
        name: The plugin's name.
        table: Its table of the profile.

    Returns:
        An instance of the plugin's ``Options``.

    Raises:
        ProfileError: Keys or values are wrong; every one is reported.
        PluginError: The plugin cannot be loaded.
    """
    from pydantic import ValidationError

    module: Any = load(group, name)
    model: type[BaseModel] = module.Options
    prefix = f"{group}.{name.rpartition(':')[2]}."
    mistakes: list[KdError] = []
    try:
        valid = model.model_validate(dict(table))
    except ValidationError as error:
        mistakes = explain(error, model, prefix)
    if model.model_config.get("extra", "ignore") == "ignore":
        # A misspelt option of a plugin that forgot to forbid extra keys would pass in silence.
        mistakes += [unknown(prefix + key, model, prefix) for key in table if key not in model.model_fields]
    if mistakes:
        raise_all(mistakes)
    return valid


def broken(plugin: Plugin) -> str | None:
    """Import a plugin and say what is wrong with it, or None."""
    try:
        load(plugin.group, plugin.full_name)
    except KdError as error:
        return "; ".join(str(mistake) for mistake in each(error))
    return None


@lru_cache(maxsize=1)
def _scan(path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Read the metadata of everything on ``path`` (``sys.path``: the key of the cache)."""
    from importlib.metadata import distributions

    found: dict[tuple[str, str, str], Plugin] = {}
    groups = {f"kdcli.{group}": group for group in GROUPS}
    for distribution in distributions(path=list(path)):
        try:
            for entry_point in distribution.entry_points:
                if entry_point.group in groups:
                    group, name = groups[entry_point.group], distribution.metadata["Name"]
                    plugin = Plugin(group, entry_point.name, name, distribution.version, entry_point.value, entry_point)
                    # The first on the path wins, as it does when it is imported.
                    found.setdefault((group, plugin.name, _normal(name)), plugin)
        except Exception as error:
            where = getattr(distribution, "_path", "a distribution")
            warnings.warn(f"plugins of {where} left out: its metadata cannot be read ({error})", stacklevel=2)
    return tuple(sorted(found.values(), key=lambda plugin: (plugin.name, plugin.distribution)))


def _same(wanted: str, distribution: str) -> bool:
    return not wanted or _normal(wanted) == _normal(distribution)


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
