"""Where settings come from: profile files, the environment, ``--set`` and flags, each a layer over the last."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from kdcli.config import files
from kdcli.config.schema import Settings
from kdcli.config.validation import nearest, unknown
from kdcli.errors import KdError, ProfileError, UsageError

PREFIX = "KD_"

_FLAGS = {
    "task.text_columns": "--text-col",
    "task.kind": "--text2-col",
    "task.label_column": "--label-col",
    "transfer.heavy.temperature": "--sample-temperature",
    "transfer.corpus.files": "--input",
    "transfer.corpus.columns": "--column",
}
"""The flags that are not called what their setting is called."""


class _Environment(BaseSettings, Settings):  # type: ignore[misc]
    """The settings in the form that pydantic-settings reads from the environment."""


@dataclass(frozen=True)
class Layer:
    """Values from one place.

    Attributes:
        origin: What the place is called: a file, ``KD_...``, ``--set`` or ``--flag``.
        values: Tables inside tables, as TOML has them.
        file: The file, if it is one.
    """

    origin: str
    values: Mapping[str, Any]
    file: Path | None = None


def from_files(profile: str | Path) -> list[Layer]:
    """Read a profile and all that it extends, the furthest first.

    Raises:
        ProfileError: A file is not there or cannot be read, or the profiles extend each other in a circle.
    """
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
        layers.insert(0, Layer(files.label(path), values, path))
    return layers


def from_environment(environ: Mapping[str, str]) -> tuple[list[Layer], list[KdError]]:
    """Read ``KD_SECTION__KEY`` through pydantic-settings.

    ``KD_X`` without a section, and unlike every setting, is taken for another program's and left alone.

    Returns:
        A layer for each variable, and the mistakes.
    """
    source = EnvSettingsSource(_Environment, env_prefix=PREFIX, env_nested_delimiter="__")
    layers: list[Layer] = []
    mistakes: list[KdError] = []
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        key = name.removeprefix(PREFIX).lower().replace("__", ".")
        source.env_vars = {name.lower(): environ[name]}
        try:
            values = source()
        except SettingsError:
            hint = f'lists and tables are written as JSON: {name}=\'["a", "b"]\''
            mistakes.append(ProfileError(f"{name} in the environment cannot be read", key=key, hint=hint))
            continue
        if values:
            layers.append(Layer(name, values))
        elif "." in key or nearest(key, Settings.model_fields):
            mistakes.append(trace(unknown(key, Settings), Layer(name, {})))
    return layers, mistakes


def from_sets(sets: Sequence[str]) -> list[Layer]:
    """Read ``--set key=value`` texts: the value is a TOML value, else a string.

    Raises:
        UsageError: A text has no ``=``, or no key before it.
    """
    layers = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise UsageError(f"--set takes key=value, not {text!r}", hint="for example --set student.lr=0.5")
        layers.append(Layer("--set", _nest(key.strip(), _value(value))))
    return layers


def from_flags(flags: Mapping[str, Any]) -> list[Layer]:
    """Make a layer of each flag that was given; None says that it was not.

    Most flags are called what their setting is called: ``transfer.lite.n_iter`` is ``--n-iter``.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    names = {key: _FLAGS.get(key, f"--{key.rpartition('.')[2].replace('_', '-')}") for key in given}
    return [Layer(names[key], _nest(key, value)) for key, value in given.items()]


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, Layer]]:
    """Lay the layers over each other, the last on top; tables are joined key by key.

    Returns:
        The values, and the layer that each dotted key came from.
    """
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
    """Return the layer a key, a table (the last that set something in it) or an item in a key came from."""
    if key in origins:
        return origins[key]
    inside = [layer for known, layer in origins.items() if known.startswith(f"{key}.")]
    outside = [layer for known, layer in origins.items() if key.startswith(f"{known}.")]
    return next(iter([*reversed(inside), *outside]), None)


def trace(mistake: KdError, layer: Layer | None) -> KdError:
    """Add to a mistake where it was made, unless it tells that; a wrong value of a flag is a usage error."""
    if layer is None or mistake.file:
        return mistake
    kind = type(mistake)
    if layer.file:
        return kind(mistake.what, file=layer.file, key=mistake.key, hint=mistake.hint)
    if layer.origin == "--set":
        return kind(f"--set: {mistake.what}", key=mistake.key, hint=mistake.hint)
    if layer.origin.startswith("--"):
        kind = UsageError if kind is ProfileError else kind
        return kind(f"{layer.origin}: {mistake.what}", hint=mistake.hint)
    return kind(f"{layer.origin} in the environment: {mistake.what}", key=mistake.key, hint=mistake.hint)


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
            # Taken out first, so that the order of the keys is the order in which they were last set.
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
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text
