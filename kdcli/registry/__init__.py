"""Plugins over entry points, and files of ``--code``: names from metadata alone, code run only when it is chosen.

A plugin is named ``NAME``, or ``DISTRIBUTION:NAME`` where two distributions use the same name. Two variables of the
environment have a say: ``KD_LOAD_PLUGINS`` lists the distributions or plugins that are seen beside kd's own (unset:
all; empty: none), and with ``KD_STRICT_PLUGINS=1`` a broken plugin is an error even if nobody chose it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, overload

from kdcli.config.validation import each, explain, raise_all, unknown
from kdcli.errors import KdError, PluginError, shown
from kdcli.registry.known import find, find_all, left_out, odd_entry_points, passed_over, plugins, seen, warn
from kdcli.registry.loading import load_plugin, place
from kdcli.registry.plugin import GROUPS, KEYS, Group, Plugin, table_name

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from kdcli.api import Generator, Student, Tagger

__all__ = [
    "GROUPS",
    "KEYS",
    "Group",
    "Plugin",
    "about",
    "all_versions",
    "blaming",
    "breach",
    "broken",
    "code_of",
    "find",
    "find_all",
    "left_out",
    "load",
    "odd_entry_points",
    "options",
    "passed_over",
    "plugins",
    "table_name",
    "title",
    "versions",
    "warn",
]


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
    return load_plugin(find(group, name))


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
    prefix = f"{group}.{table_name(name)}."
    mistakes: list[KdError] = []
    with blaming(group, name, "Options"):
        try:
            valid = model.model_validate(dict(table))
            valid.model_dump(mode="json")  # as they are kept beside what is made with them
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
        load_plugin(plugin)
    except KdError as error:
        return "; ".join(str(mistake) for mistake in each(error))
    return None


@contextmanager
def blaming(group: Group, name: str, inside: str, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what goes wrong inside a plugin into an error that names it; its own errors for the user stay as they are.

    Args:
        group: The plugin's group.
        name: The plugin's name.
        inside: What of it was called, ``fine_tune`` for one.
        but: What it may raise.

    Raises:
        PluginError: Its code has failed.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, (KdError, *but)):
            raise
        what = f"{title(group, name)} failed in {inside}: {shown(error)}"
        plugin = _known(group, name)
        file, row = place(error, plugin) if plugin else (None, None)
        mine = plugin and plugin.file
        hint = f"mend {mine}" if mine else "run it again with --debug, and show its author what it prints"
        raise PluginError(what, hint=hint, file=file, row=row) from error


def breach(group: Group, name: str, what: str) -> PluginError:
    """Return the error for a plugin that does not keep its contract; ``what`` goes on after the plugin's title."""
    plugin = _known(group, name)
    asked = f"{plugin.name} --code {plugin.file}" if plugin and plugin.file else name
    return PluginError(f"{title(group, name)} {what}", hint=f"`kd plugins check {asked}` tells what it has to keep")


def about(module: Any) -> str:
    """Return what a loaded plugin says about itself: the first line of its docstring."""
    return (getattr(module, "__doc__", None) or "").strip().partition("\n")[0]


def title(group: Group, name: str) -> str:
    """Return what messages call the plugin of that name, be it there or not."""
    plugin = _known(group, name)
    return plugin.title if plugin else f"the {group.removesuffix('s')} plugin {name}"


def code_of(group: Group, name: str) -> dict[str, Path]:
    """Return the file of ``--code`` that a plugin is, by its name, or nothing: what is made with it depends on it."""
    plugin = _known(group, name)
    return {plugin.distribution: plugin.file} if plugin and plugin.file else {}


def versions(group: Group, name: str) -> dict[str, str]:
    """Return the version of a plugin by its distribution; nothing where that is ``kd``, or it is not there."""
    plugin = _known(group, name)
    return {plugin.distribution: plugin.version} if plugin and not plugin.is_ours else {}


def all_versions() -> dict[str, str]:
    """Return the versions of all plugins there are but kd's own."""
    return {plugin.distribution: plugin.version for plugin in seen() if not plugin.is_ours}


def _known(group: Group, name: str) -> Plugin | None:
    try:
        return find(group, name)
    except PluginError:
        return None
