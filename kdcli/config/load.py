"""Profiles to typed settings: defaults < profile < environment < ``--set`` < flag, each value with its origin."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from textwrap import wrap
from typing import Any

import tomli
from pydantic import BaseModel, ValidationError

import kdcli
from kdcli import registry
from kdcli.config import files
from kdcli.config.schema import Settings, flags_of
from kdcli.config.table import explain, nearest, options_of, unknown
from kdcli.errors import KdError, PluginError, ProfileError, UsageError, each, raise_all

PREFIX = "KD_"
_FLAGS = {"task.text_columns": "--text-col", "task.kind": "--text2-col", "teacher.model": "--teacher"}
"""Flags that set something more than the setting of their name."""
_OF_PLUGINS: tuple[registry.Group, ...] = ("students", "generators", "teachers")


@dataclass(frozen=True)
class Profile:
    """Resolved settings."""

    name: str  # its file's name without .toml, or "default"
    settings: Settings  # the tables of installed plugins hold all of their options
    origins: Mapping[str, str]  # by dotted key: default, a file, KD_..., --set or --flag

    def to_toml(self, *, with_origins: bool = False) -> str:
        """Write the settings as a profile that gives the same ones again, without what it extends."""
        values = self.settings.model_dump(mode="json", exclude_none=True)
        text = to_toml(values, self.origins if with_origins else {})
        return f"# {self.name}, resolved by kd {kdcli.__version__}\n\n{text}"

    def explain(self) -> tuple[list[dict[str, Any]], str]:
        """Return the fields of each ``Option``, with value and origin; and a profile with comments."""
        values = self.settings.model_dump(mode="json")
        chapters: dict[str, type[BaseModel]] = {"": Settings}
        for group in _OF_PLUGINS:
            for name in values[group]:
                module: Any = registry.load(group, name)
                chapters[f"{group}.{name}."] = module.Options
        found: list[dict[str, Any]] = []
        blocks = [f"# {self.name}, every setting explained"]
        for prefix, model in chapters.items():
            for option in options_of(model, prefix):
                if option.key in _OF_PLUGINS:
                    continue
                value: Any = values
                for name in option.key.split("."):
                    value = (value or {}).get(name)
                origins = (origin for key, origin in self.origins.items() if f"{key}.".startswith(f"{option.key}."))
                origin = next(origins, "default")
                found.append({**asdict(option), "value": value, "origin": origin})
                default = "unset" if option.default is None else files.inline(option.default)
                facts = f"{option.type}; {'required' if option.required else f'default: {default}'}"
                lines = [option.about, facts + ("" if origin == "default" else f"; from {origin}")]
                comments = [f"# {part}" for line in lines for part in wrap(line, 110)]
                blocks.append("\n".join([*comments, files.line(option.key, value)]))
        return found, "\n\n".join(blocks) + "\n"


def load_profile(
    profile: str | Path | None,
    *,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    uses: Collection[registry.Group] = registry.GROUPS,
) -> Profile:
    """Load a profile, a name or a file, with everything that overrides it; None is the defaults alone.

    ``sets`` are ``key=value`` texts; ``flags`` values by dotted key, None for missing ones (``generators.*.lr`` is an
    option of the chosen one); ``environ`` holds ``KD_SECTION__KEY``. Plugins of groups that nobody ``uses`` are not
    checked. All that is wrong is reported at once.
    """
    environment, errors = _from_environment(environ)
    flags = {key: value for key, value in (flags or {}).items() if value is not None}
    stack = [*(_from_files(profile) if profile is not None else []), *environment, *from_sets(sets)]
    stack += _from_flags({key: flags[key] for key in flags if ".*." not in key})
    chosen = merge(stack)[0]
    stack += _from_flags({_of_chosen(key, chosen): flags[key] for key in flags if ".*." in key})
    values, origins = merge(stack)
    settings, wrong = None, []
    try:
        settings = Settings.model_validate(values)
        wrong += [error for group, error in settings.conflicts() if group in uses]
    except ValidationError as error:
        wrong += explain(error, Settings)
    tables, of_plugins = _check_plugins(values, settings, uses)
    wrong += of_plugins
    errors = [*(_trace(error, _source_of(error.key or "", origins)) for error in wrong), *errors]
    if errors or settings is None:
        raise_all(errors)
    settings = settings.model_copy(update=tables)
    resolved = flatten(settings.model_dump(mode="json"))
    sources = {key: _source_of(key, origins) for key, value in resolved if value != {} or "." not in key}
    named = {key: layer.origin if layer else "default" for key, layer in sources.items()}
    return Profile(files.find(profile).stem if profile else "default", settings, named)


@dataclass(frozen=True)
class Layer:
    """Values from one place, which ``origin`` names: a file, ``KD_...``, ``--set`` or ``--flag``."""

    origin: str
    values: Mapping[str, Any]
    file: Path | None = None


def _from_files(profile: str | Path) -> list[Layer]:
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
        ours = path.resolve().parent == files.folder().resolve()
        layers.insert(0, Layer(path.name if ours else str(path), values, path))
    return layers


def _from_environment(environ: Mapping[str, str]) -> tuple[list[Layer], list[KdError]]:
    """Read ``KD_SECTION__KEY``: a layer for each variable, and the errors.

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
            errors.append(_trace(unknown(key, Settings), Layer(name, {})))
    return layers, errors


def from_sets(sets: Sequence[str]) -> list[Layer]:
    """Read ``--set key=value`` texts: the value is a TOML value, else a string."""
    layers = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise UsageError(f"--set takes key=value, not {text!r}", hint="for example --set student.lr=0.5")
        try:
            document = tomli.loads(f"value = {value}")
        except tomli.TOMLDecodeError:
            document = {}
        layers.append(Layer("--set", _nest(key.strip(), document["value"] if len(document) == 1 else value)))
    return layers


def _from_flags(flags: Mapping[str, Any]) -> list[Layer]:
    """Make a layer of each flag; its name is that of its setting, or of an option of a plugin."""
    layers = []
    for key, value in flags.items():
        plain = f"--{key.rpartition('.')[2].replace('_', '-')}"
        own = () if key in _FLAGS or key.startswith(("generators.", "teachers.")) else flags_of(key)
        name = next((flag.names[0] for _, _, flag in own), _FLAGS.get(key, plain))
        layers.append(Layer(name, _nest(key, value)))
    return layers


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part.strip(): value}
    return dict(value)


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, Layer]]:
    """Lay the layers over each other, the last on top; return the values, and the layer of each dotted key."""
    values: Any = {}
    origins: dict[str, Layer] = {}
    for layer in layers:
        values = _over(values, layer.values)
        for key, value in flatten(layer.values):
            inside = [known for known in origins if known.startswith(f"{key}.")]
            if value != {} or not inside:
                # Removed first, so that the keys are in the order in which they were last set.
                for known in [key, *inside, *(known for known in origins if key.startswith(f"{known}."))]:
                    origins.pop(known, None)
                origins[key] = layer
    return values, origins


def _over(below: Any, above: Any) -> Any:
    """Return a value that lies over another one: of two tables both, else the upper one."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{name: _over(below.get(name), value) for name, value in above.items()}}


def to_toml(values: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """Write tables inside tables as TOML, one value a line behind its dotted key; ``notes`` by key are comments."""
    lines = {key: files.line(key, value) for key, value in flatten(values, write=files.quoted)}
    width = min(max(map(len, lines.values()), default=0), 60)
    return "".join(f"{line:<{width}}  # {notes[key]}\n" if key in notes else f"{line}\n" for key, line in lines.items())


def flatten(
    values: Mapping[str, Any], prefix: str = "", write: Callable[[str], str] = str
) -> Iterator[tuple[str, Any]]:
    """Go through the dotted keys and values of tables inside tables; ``write`` writes each name."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{write(name)}.", write)
        else:
            yield prefix + write(name), value


def _source_of(key: str, origins: Mapping[str, Layer]) -> Layer | None:
    """Return the layer of a key, of a table (the last that set something in it) or of an item in a key."""
    inside = [layer for known, layer in origins.items() if f"{known}.".startswith(f"{key}.")]
    outside = [layer for known, layer in origins.items() if key.startswith(f"{known}.")]
    return next(iter([*reversed(inside), *outside]), None)


def _trace(error: KdError, layer: Layer | None) -> KdError:
    """Add the place to an error that names none; a wrong value of a flag is a usage error."""
    if layer is None or error.file:
        return error
    kind = type(error)
    if layer.file:
        return kind(error.what, file=layer.file, key=error.key, hint=error.hint)
    if layer.origin.startswith("--") and layer.origin != "--set":
        kind = UsageError if kind is ProfileError else kind
        return kind(f"{layer.origin}: {error.what}", hint=error.hint)
    where = layer.origin if layer.origin == "--set" else f"{layer.origin} in the environment"
    return kind(f"{where}: {error.what}", key=error.key, hint=error.hint)


def _of_chosen(key: str, values: Mapping[str, Any]) -> str:
    """Return ``generators.*.lr`` with the name of the chosen plugin's table in it."""
    setting = next(setting for group, setting in registry.KEYS.items() if key.startswith(f"{group}."))
    name = dict(flatten(values)).get(setting)
    return key.replace("*", name if isinstance(name, str) else attrgetter(setting)(Settings()))


def _check_plugins(
    values: Mapping[str, Any], settings: Settings | None, uses: Collection[registry.Group]
) -> tuple[dict[str, dict[str, Any]], list[KdError]]:
    """Check the chosen plugins, and the options of all; return their tables, now complete, and all errors."""
    tables: dict[str, dict[str, Any]] = {}
    errors: list[KdError] = []
    for group in uses:
        written = values.get(group, {})
        named = dict(written) if isinstance(written, Mapping) else {}
        if settings:
            chosen = attrgetter(registry.KEYS[group])(settings)
            try:
                registry.load(group, chosen)
                named.setdefault(chosen, {})
            except KdError as error:
                named.pop(chosen, None)
                errors += _blamed(error, registry.KEYS[group])
        if group == "taggers":  # these have no options
            continue
        tables[group] = named
        for name, table in named.items():
            if isinstance(table, Mapping):  # else reported already
                try:
                    named[name] = registry.options(group, name, table).model_dump(mode="json", exclude_none=True)
                except KdError as error:
                    errors += _blamed(error, f"{group}.{name}")
    return tables, errors


def _blamed(error: KdError, key: str) -> list[KdError]:
    """Return the single errors; that of a plugin gets a key, those of its options name their own."""
    return [
        PluginError(one.what, hint=one.hint, file=one.file, row=one.row, key=key)
        if isinstance(one, PluginError)
        else one
        for one in each(error)
    ]
