"""Where settings come from: profile files, the environment, ``--set`` and flags, each a layer over the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from kdcli.config import files
from kdcli.config.schema import Settings, flags_of
from kdcli.config.validation import nearest, unknown
from kdcli.errors import KdError, ProfileError, UsageError

PREFIX = "KD_"
_FLAGS = {"task.text_columns": "--text-col", "task.kind": "--text2-col", "teacher.model": "--teacher"}
"""Flags that set something more than the setting of their name."""


@dataclass(frozen=True)
class Layer:
    """Values from one place, which ``origin`` names: a file, ``KD_...``, ``--set`` or ``--flag``."""

    origin: str
    values: Mapping[str, Any]
    file: Path | None = None


def from_files(profile: str | Path) -> list[Layer]:
    """Read a profile and those that it extends, the base first."""
    layers: list[Layer] = []
    seen: list[Path] = []
    wanted, beside = profile, None
    while wanted:
        try:
            path = files.find(wanted, beside)
        except ProfileError as error:
            if not seen:
                raise
            raise ProfileError(f"extends: {error.what}", file=seen[-1], key="extends", hint=error.hint) from error
        if path.resolve() in seen:
            circle = " -> ".join(file.name for file in [*seen, path])
            raise ProfileError(f"the profiles extend each other in a circle: {circle}", file=path, key="extends")
        seen.append(path.resolve())
        values = files.read(path)
        wanted, beside = values.pop("extends", ""), path.parent
        if not isinstance(wanted, str):
            raise ProfileError("extends is the name or file of one profile, in quotes", file=path, key="extends")
        layers.insert(0, Layer(path.name if files.is_kds(path) else str(path), values, path))
    return layers


def from_environment(environ: Mapping[str, str]) -> tuple[list[Layer], list[KdError]]:
    """Read ``KD_SECTION__KEY`` through pydantic-settings: a layer for each variable, and the errors.

    A name without a section that resembles no setting belongs to another program.
    """
    names = sorted(name for name in environ if name.startswith(PREFIX))
    if not names:
        return [], []
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError  # slow, and seldom needed

    environment = type("Environment", (BaseSettings, Settings), {"__module__": __name__})
    source = EnvSettingsSource(environment, env_prefix=PREFIX, env_nested_delimiter="__")
    layers: list[Layer] = []
    errors: list[KdError] = []
    for name in names:
        key = name.removeprefix(PREFIX).lower().replace("__", ".")
        source.env_vars = {name.lower(): environ[name]}
        try:
            values = source()
        except SettingsError:
            hint = f'lists and tables are written as JSON: {name}=\'["a", "b"]\''
            errors.append(ProfileError(f"{name} in the environment cannot be read", key=key, hint=hint))
            continue
        if values:
            layers.append(Layer(name, values))
        elif "." in key or nearest(key, Settings.model_fields):
            errors.append(trace(unknown(key, Settings), Layer(name, {})))
    return layers, errors


def from_sets(sets: Sequence[str]) -> list[Layer]:
    """Read ``--set key=value`` texts: the value is a TOML value, else a string."""
    layers = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise UsageError(f"--set takes key=value, not {text!r}", hint="for example --set student.lr=0.5")
        layers.append(Layer("--set", _nest(key.strip(), _value(value))))
    return layers


def from_flags(flags: Mapping[str, Any]) -> list[Layer]:
    """Make a layer of each flag by its dotted key."""
    return [Layer(_flag(key), _nest(key, value)) for key, value in flags.items()]


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, Layer]]:
    """Lay the layers over each other, the last on top; return the values, and the layer of each dotted key."""
    values: dict[str, Any] = {}
    origins: dict[str, Layer] = {}
    for layer in layers:
        _lay(values, origins, layer.values, layer, "")
    return values, origins


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Go through the dotted keys and values of tables inside tables."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def source_of(key: str, origins: Mapping[str, Layer]) -> Layer | None:
    """Return the layer of a key, of a table (the last that set something in it) or of an item in a key."""
    if key in origins:
        return origins[key]
    inside = [layer for known, layer in origins.items() if known.startswith(f"{key}.")]
    outside = [layer for known, layer in origins.items() if key.startswith(f"{known}.")]
    return next(iter([*reversed(inside), *outside]), None)


def trace(error: KdError, layer: Layer | None) -> KdError:
    """Add the place to an error that names none; a wrong value of a flag is a usage error."""
    if layer is None or error.file:
        return error
    kind = type(error)
    if layer.file:
        return kind(error.what, file=layer.file, key=error.key, hint=error.hint)
    if layer.origin == "--set":
        return kind(f"--set: {error.what}", key=error.key, hint=error.hint)
    if layer.origin.startswith("--"):
        kind = UsageError if kind is ProfileError else kind
        return kind(f"{layer.origin}: {error.what}", hint=error.hint)
    return kind(f"{layer.origin} in the environment: {error.what}", key=error.key, hint=error.hint)


def _lay(
    values: dict[str, Any], origins: dict[str, Layer], table: Mapping[str, Any], layer: Layer, prefix: str
) -> None:
    for name, value in table.items():
        key = prefix + name
        below = values.get(name)
        if isinstance(value, Mapping) and (value or isinstance(below, Mapping)):
            inside = dict(below) if isinstance(below, Mapping) else {}
            if not inside:
                origins.pop(key, None)
            values[name] = inside
            _lay(inside, origins, value, layer, f"{key}.")
        else:
            for known in [known for known in origins if known.startswith(f"{key}.")]:
                del origins[known]
            # Removed first, so that the keys are in the order in which they were last set.
            origins.pop(key, None)
            origins[key] = layer
            values[name] = value


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part.strip(): value}
    nested: dict[str, Any] = value
    return nested


def _value(text: str) -> Any:
    try:
        document = tomli.loads(f"value = {text}")
    except tomli.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def _flag(key: str) -> str:
    """Return the name of a setting's flag, also where it is an option of a plugin (``generators.gpt2.lr``)."""
    plain = f"--{key.rpartition('.')[2].replace('_', '-')}"
    if key in _FLAGS or key.startswith("generators."):
        return _FLAGS.get(key, plain)
    return next((flag.names[0] for _, _, flag in flags_of(key)), plain)
