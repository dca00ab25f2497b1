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
from kdcli.config.layers import Layer, flatten, merge, source_of, trace
from kdcli.config.schema import Settings
from kdcli.config.validation import explain, nearest
from kdcli.errors import KdError, PluginError, each, raise_all

GENERATOR = "generators.*."
"""What the keys of flags begin with that are options of the chosen generator."""


@dataclass(frozen=True)
class Profile:
    """Resolved settings.

    Attributes:
        name: Its file's name without ``.toml``, or ``default``.
        settings: The settings; the tables of installed plugins hold all of their options.
        origins: By dotted key: ``default``, a file, ``KD_...``, ``--set`` or ``--flag``.
        warnings: For the user, though the settings are valid.
    """

    name: str
    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def to_toml(self, *, with_origins: bool = False) -> str:
        """Write the settings as a profile that gives the same ones again, without what it extends."""
        values = self.settings.model_dump(mode="json", exclude_none=True)
        head = f"# {self.name}, resolved by kd {kdcli.__version__}\n\n"
        return head + files.to_toml(values, self.origins if with_origins else {})


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
        flags: Values by dotted key, None for missing ones; ``generators.*.lr`` is an option of the chosen generator.
        environ: Holds ``KD_SECTION__KEY``.
        uses: The groups of plugins that are needed: the tables of others are not checked.

    Raises:
        ProfileError: Keys or values are wrong; every one is reported (``ValidationErrors`` where there are several).
        UsageError: A flag or ``--set`` is wrong.
        PluginError: A plugin that it names is missing or broken.
    """
    environment, errors = layers.from_environment(environ)
    flags = {key: value for key, value in (flags or {}).items() if value is not None}
    stack = layers.from_files(profile) if profile is not None else []
    stack += [*environment, *layers.from_sets(sets)]
    stack += layers.from_flags({key: flags[key] for key in flags if not key.startswith(GENERATOR)})
    values, origins = merge(stack)
    table = f"generators.{registry.table_name(_generator(values))}."
    stack += layers.from_flags({key.replace(GENERATOR, table): flags[key] for key in flags if GENERATOR in key})
    values, origins = merge(stack)
    settings, wrong = _validate(values)
    if settings:
        wrong += [error for group, error in settings.conflicts() if group in uses]
    checked = _check_plugins(values, settings, uses, origins)
    wrong += checked.errors
    errors = [*(trace(error, source_of(error.key or "", origins)) for error in wrong), *errors]
    if errors or settings is None:
        raise_all(errors)
    settings = settings.model_copy(update=checked.tables)
    name = "default" if profile is None else files.find(profile).stem
    return Profile(name, settings, _origins(settings, origins), tuple(checked.warnings))


def _generator(values: Mapping[str, Any]) -> str:
    transfer = values.get("transfer")
    chosen = transfer.get("generator") if isinstance(transfer, Mapping) else None
    return chosen if isinstance(chosen, str) else Settings().transfer.generator


def _validate(values: Mapping[str, Any]) -> tuple[Settings | None, list[KdError]]:
    """Validate twice if there are unknown keys: Pydantic does not check a table as a whole while it has any."""
    try:
        return Settings.model_validate(values), []
    except ValidationError as error:
        unknown = [finding["loc"] for finding in error.errors() if finding["type"] == "extra_forbidden"]
        errors = explain(error, Settings)
    if unknown:
        try:
            Settings.model_validate(_without(values, unknown))
        except ValidationError as error:
            known = {(one.key, one.what) for one in errors}
            errors += [new for new in explain(error, Settings) if (new.key, new.what) not in known]
    return None, errors


@dataclass
class _Checked:
    """The tables of plugins, those of installed ones complete, with errors and warnings."""

    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    errors: list[KdError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _check_plugins(
    values: Mapping[str, Any], settings: Settings | None, uses: Collection[registry.Group], origins: dict[str, Layer]
) -> _Checked:
    """Check the chosen plugins and the tables ``students`` and ``generators``."""
    checked = _Checked()
    registry.plugins("taggers")  # an error of the installed plugins as a whole belongs to no key
    chosen: dict[registry.Group, str] = {}
    if settings:
        chosen["students"] = settings.student.model
        chosen["generators"] = settings.transfer.generator
        chosen["taggers"] = settings.transfer.lite.tagger
    for group in uses:
        found = group in chosen and _load(checked, group, chosen[group])
        if group != "taggers":
            tables = values.get(group, {})
            if found and not registry.find(group, chosen[group]).is_ours:
                tables = _without_kds(tables, registry.table_name(chosen[group]), f"{group}.", origins)
            _check_tables(checked, group, tables, chosen.get(group, ""), found)
    return checked


def _load(checked: _Checked, group: registry.Group, name: str) -> bool:
    """Find and load the chosen plugin; return whether that worked."""
    if doubt := registry.passed_over(group, name):
        checked.warnings.append(doubt)
    try:
        registry.load(group, name)
    except KdError as error:
        checked.errors += [_with_key(one, registry.KEYS[group]) for one in each(error)]
        return False
    return True


def _without_kds(tables: Any, name: str, prefix: str, origins: dict[str, Layer]) -> Any:
    """Leave out what kd's own profiles set for kd's plugin of this name: the chosen plugin is somebody else's."""
    if not isinstance(tables, Mapping) or not isinstance(tables.get(name), Mapping):
        return tables
    sources = {option: source_of(f"{prefix}{name}.{option}", origins) for option in tables[name]}
    kds = [option for option, layer in sources.items() if layer and layer.file and files.is_kds(layer.file)]
    for key in list(origins):
        if any(f"{key}.".startswith(f"{prefix}{name}.{option}.") for option in kds):
            del origins[key]
    return {**tables, name: {option: value for option, value in tables[name].items() if option not in kds}}


def _check_tables(checked: _Checked, group: registry.Group, written: Any, chosen: str, found: bool) -> None:
    """Check the tables ``group.NAME``; the chosen plugin always has one."""
    written = written if isinstance(written, Mapping) else {}
    tables = {name: dict(table) for name, table in written.items() if isinstance(table, Mapping)}
    short = registry.table_name(chosen)
    if found:
        tables.setdefault(short, {})
    checked.tables[group] = tables
    installed = {plugin.name for plugin in registry.plugins(group)}
    for name, table in tables.items():
        if name == short and not found:  # reported by _load
            continue
        key = f"{group}.{name}"
        if name not in installed:
            what = f"no {group.removesuffix('s')} plugin is named {name}"
            if close := nearest(name, installed):
                checked.errors.append(PluginError(what, key=key, hint=f"did you mean {group}.{close}?"))
            else:
                checked.warnings.append(f"{key} is not checked: {what}")
            continue
        try:
            valid = registry.options(group, chosen if name == short else name, table)
            tables[name] = valid.model_dump(mode="json", exclude_none=True)
        except KdError as error:
            if isinstance(error, PluginError) and name != short:
                checked.warnings.append(f"{key} is not checked: {error.what}")
            else:
                checked.errors += [_with_key(one, registry.KEYS[group]) for one in each(error)]


def _with_key(error: KdError, key: str) -> KdError:
    """Say which setting chose a plugin that has an error; errors of its options name their own key."""
    if not isinstance(error, PluginError):
        return error
    return PluginError(error.what, hint=error.hint, file=error.file, row=error.row, key=key)


def _without(values: Mapping[str, Any], keys: Sequence[tuple[str | int, ...]], at: tuple[str, ...] = ()) -> Any:
    return {
        name: _without(value, keys, (*at, name)) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if (*at, name) not in keys
    }


def _origins(settings: Settings, origins: Mapping[str, Layer]) -> dict[str, str]:
    found = {key: source_of(key, origins) for key, _ in flatten(settings.model_dump(mode="json"))}
    return {key: layer.origin if layer else "default" for key, layer in found.items()}
