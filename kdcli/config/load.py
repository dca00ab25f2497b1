"""Profiles to typed settings: defaults < profile < environment < ``--set`` < flag, each value with its origin."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import kdcli
from kdcli import registry
from kdcli.config import files, layers
from kdcli.config.layers import Layer, flatten, source_of, trace
from kdcli.config.schema import Settings
from kdcli.config.toml import to_toml
from kdcli.config.validation import each, explain, nearest, raise_all
from kdcli.errors import KdError, PluginError


@dataclass(frozen=True)
class Profile:
    """Resolved settings.

    Attributes:
        name: The profile's name: its file's without ``.toml``, or ``default`` without one.
        settings: The settings; the tables of installed plugins hold all of their options.
        origins: Where each dotted key came from: ``default``, a file, ``KD_...``, ``--set`` or ``--flag``.
        warnings: What the user should look at, though nothing is wrong with the settings.
    """

    name: str
    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def to_toml(self, *, with_origins: bool = False) -> str:
        """Write the settings as a profile that gives the same ones again, whatever it extended.

        Args:
            with_origins: Note after each value, as a comment, where it came from.
        """
        values = self.settings.model_dump(mode="json", exclude_none=True)
        head = f"# {self.name}, resolved by kd {kdcli.__version__}\n\n"
        return head + to_toml(values, self.origins if with_origins else {})


def load_profile(
    profile: str | Path | None,
    *,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    uses: Collection[registry.Group] = registry.GROUPS,
) -> Profile:
    """Load a profile with everything that overrides it.

    Args:
        profile: A name or a file; None for the defaults alone.
        sets: ``key=value`` texts.
        flags: Values by dotted key; None says that a flag was not given.
        environ: Where ``KD_SECTION__KEY`` is looked up.
        uses: The groups of plugins that are needed: what is said of others is left as it is.

    Raises:
        ProfileError: Keys or values are wrong; every one is reported (``Mistakes`` where there are several).
        UsageError: A flag or ``--set`` is wrong.
        PluginError: A plugin that it names is not there, or is broken.
    """
    environment, mistakes = layers.from_environment(environ)
    stack = [
        *(layers.from_files(profile) if profile is not None else []),
        *environment,
        *layers.from_sets(sets),
        *layers.from_flags(flags or {}),
    ]
    values, origins = layers.merge(stack)
    settings, wrong = _validate(values)
    checked = _plugins(values, settings, uses, origins)
    wrong += checked.mistakes
    mistakes = [*(trace(mistake, source_of(mistake.key or "", origins)) for mistake in wrong), *mistakes]
    if mistakes or settings is None:
        raise_all(mistakes)
    settings = settings.model_copy(update=checked.tables)
    name = "default" if profile is None else files.find(profile).stem
    return Profile(name, settings, _origins(settings, origins), tuple(checked.warnings))


def _validate(values: Mapping[str, Any]) -> tuple[Settings | None, list[KdError]]:
    """Validate twice if there are unknown keys: Pydantic does not check a table as a whole while it has any."""
    try:
        return Settings.model_validate(values), []
    except ValidationError as error:
        unknown = [finding["loc"] for finding in error.errors() if finding["type"] == "extra_forbidden"]
        mistakes = explain(error, Settings)
    if unknown:
        try:
            Settings.model_validate(_without(values, unknown))
        except ValidationError as error:
            known = {(mistake.key, mistake.what) for mistake in mistakes}
            mistakes += [new for new in explain(error, Settings) if (new.key, new.what) not in known]
    return None, mistakes


@dataclass
class _Checked:
    """What was found out about the plugins that a profile names."""

    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    mistakes: list[KdError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _plugins(
    values: Mapping[str, Any], settings: Settings | None, uses: Collection[registry.Group], origins: dict[str, Layer]
) -> _Checked:
    """Check what the profile says about plugins.

    Returns:
        The tables ``students`` and ``generators``, those of installed plugins complete; the mistakes; the warnings.
    """
    checked = _Checked()
    registry.plugins("taggers")  # what is wrong with the plugins as a whole is no mistake of a key's
    chosen: dict[registry.Group, str] = {}
    if settings:
        chosen["students"] = settings.student.model
        chosen["generators"] = settings.transfer.generator
        chosen["taggers"] = settings.transfer.lite.tagger
    for group in uses:
        there = group in chosen and _is_there(checked, group, chosen[group])
        if group != "taggers":
            given = values.get(group, {})
            if there and not registry.find(group, chosen[group]).is_ours:
                given = _without_kds(given, registry.table_name(chosen[group]), f"{group}.", origins)
            _options(checked, group, given, chosen.get(group, ""), there)
    return checked


def _is_there(checked: _Checked, group: registry.Group, name: str) -> bool:
    """Look up and load the chosen plugin, and keep what is wrong with it."""
    if doubt := registry.passed_over(group, name):
        checked.warnings.append(doubt)
    try:
        registry.load(group, name)
    except PluginError as error:
        checked.mistakes.append(_of_key(error, registry.KEYS[group]))
    except KdError as error:
        checked.mistakes += each(error)
    else:
        return True
    return False


def _without_kds(given: Any, name: str, prefix: str, origins: dict[str, Layer]) -> Any:
    """Leave out what kd's own profiles say of a plugin that is somebody else's: they mean kd's own of that name."""
    if not isinstance(given, Mapping) or not isinstance(given.get(name), Mapping):
        return given
    sources = {option: source_of(f"{prefix}{name}.{option}", origins) for option in given[name]}
    kds = [option for option, layer in sources.items() if layer and layer.file and files.is_kds(layer.file)]
    for key in [key for key in origins if any(f"{key}.".startswith(f"{prefix}{name}.{option}.") for option in kds)]:
        del origins[key]
    return {**given, name: {option: value for option, value in given[name].items() if option not in kds}}


def _options(checked: _Checked, group: registry.Group, given: Any, chosen: str, there: bool) -> None:
    """Check the tables ``group.NAME``; the chosen plugin has one, if it is there."""
    tables = {name: dict(table) for name, table in given.items() if isinstance(table, Mapping)} if given else {}
    short = registry.table_name(chosen)
    if there:
        tables.setdefault(short, {})
    checked.tables[group] = tables
    installed = {plugin.name for plugin in registry.plugins(group)}
    for name, table in tables.items():
        if name == short and not there:  # said already
            continue
        key = f"{group}.{name}"
        if name not in installed:
            what = f"no {group.removesuffix('s')} plugin is named {name}"
            if close := nearest(name, installed):
                checked.mistakes.append(PluginError(what, key=key, hint=f"did you mean {group}.{close}?"))
            else:
                checked.warnings.append(f"{key} is not checked: {what}")
            continue
        try:
            valid = registry.options(group, chosen if name == short else name, table)
            tables[name] = valid.model_dump(mode="json", exclude_none=True)
        except PluginError as error:
            if name == short:
                checked.mistakes.append(_of_key(error, registry.KEYS[group]))
            else:
                checked.warnings.append(f"{key} is not checked: {error.what}")
        except KdError as error:
            checked.mistakes += each(error)


def _of_key(error: PluginError, key: str) -> PluginError:
    return PluginError(error.what, hint=error.hint, file=error.file, row=error.row, key=key)


def _without(values: Mapping[str, Any], places: Sequence[tuple[str | int, ...]], at: tuple[str, ...] = ()) -> Any:
    return {
        name: _without(value, places, (*at, name)) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if (*at, name) not in places
    }


def _origins(settings: Settings, origins: Mapping[str, Layer]) -> dict[str, str]:
    found = {key: source_of(key, origins) for key, _ in flatten(settings.model_dump(mode="json"))}
    return {key: layer.origin if layer else "default" for key, layer in found.items()}
