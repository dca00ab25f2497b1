"""Settings in words: the options of a model, and ``kd profile show --docs``, which explains a whole profile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from kdcli import registry
from kdcli.config.files import inline, quoted
from kdcli.errors import KdError

if TYPE_CHECKING:
    from kdcli.config.load import Profile

WIDTH = 110
_PLAIN = {"integer": "whole number", "number": "number", "boolean": "true | false", "null": "unset", "string": "text"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<", "multipleOf": "times"}
_OF_PLUGINS: tuple[registry.Group, ...] = ("students", "generators", "teachers")


@dataclass(frozen=True)
class Option:
    """One key of a table: its dotted key, type in words, default as a JSON value, and meaning."""

    key: str
    type: str
    default: Any
    required: bool
    about: str


@dataclass(frozen=True)
class Setting(Option):
    """A setting of a profile, with its value (None: unset) and the origin of that."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Chapter:
    """A table of a profile: its dotted name (empty above all tables), its purpose, its settings."""

    table: str
    about: str
    settings: list[Setting]


def options_of(model: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """Go through the options of a model and of the models inside it; keys begin with ``prefix``."""
    for name, field in model.model_fields.items():
        key, inside = prefix + name, field.annotation
        if isinstance(inside, type) and issubclass(inside, BaseModel):
            yield from options_of(inside, f"{key}.")
            continue
        depends = getattr(field, "default_factory_takes_validated_data", False)  # on the other options
        default = None if field.is_required() or depends else field.get_default(call_default_factory=True)
        about = " ".join((field.description or "").split())
        yield Option(key, type_of(field), to_jsonable_python(default, fallback=str), field.is_required(), about)


def type_of(field: FieldInfo) -> str:
    """Return in words what an option takes: ``whole number >= 1``, ``lstm | gru``."""
    annotated: Any = Annotated[field.annotation, field]
    try:
        schema = TypeAdapter(annotated).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):  # a plugin may have types of its own
        return getattr(field.annotation, "__name__", str(field.annotation))
    return _words(schema, schema.get("$defs", {}))


def explain(profile: Profile) -> tuple[list[Chapter], list[str]]:
    """Explain every setting of a profile; plugins that it does not choose have their defaults.

    Returns:
        The tables in order, those of all installed plugins too; warnings of plugins that cannot be explained.
    """
    from kdcli.config.schema import Settings

    values = profile.settings.model_dump(mode="json")
    own = [option for option in options_of(Settings) if option.key not in _OF_PLUGINS]
    chapters = _chapters(own, values, profile.origins, _abouts(Settings))
    warnings: list[str] = []
    for group in _OF_PLUGINS:
        for name, plugin in _plugins(group, profile).items():
            try:
                module: Any = registry.load(group, plugin.full_name)
            except KdError as error:
                if name not in values[group]:  # else load_profile has warned
                    warnings.append(f"{group}.{name} is not explained: {error.what}")
                continue
            about = " ".join(registry.about(module).split())
            abouts = {f"{group}.{name}": f"{about} ({plugin.distribution} {plugin.version})".strip()}
            chapters += _chapters(options_of(module.Options, f"{group}.{name}."), values, profile.origins, abouts)
    return chapters, warnings


def to_toml(name: str, chapters: Iterable[Chapter]) -> str:
    """Write explained settings as a profile of the same settings, with comments."""
    blocks = [[f"# {name}, every setting explained"]]
    for chapter in chapters:
        if chapter.table:
            blocks.append([*_comment(chapter.about), f"[{'.'.join(map(quoted, chapter.table.split('.')))}]"])
        blocks += [[*_comment(one.about), f"# {_facts(one)}", _line(one)] for one in chapter.settings]
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def _plugins(group: registry.Group, profile: Profile) -> dict[str, registry.Plugin]:
    """Return the plugins of a group by the name of their tables; of two with one name, the chosen one."""
    chosen = registry.find(group, attrgetter(registry.KEYS[group])(profile.settings))
    there = sorted(registry.plugins(group), key=lambda plugin: not plugin.is_ours)
    return {plugin.name: plugin for plugin in reversed(there)} | {chosen.name: chosen}


def _chapters(
    options: Iterable[Option], values: Mapping[str, Any], origins: Mapping[str, str], abouts: Mapping[str, str]
) -> list[Chapter]:
    tables: dict[str, list[Setting]] = {"": []}  # in TOML, keys without a table come first
    for option in options:
        inside = (origin for key, origin in origins.items() if f"{key}.".startswith(f"{option.key}."))
        setting = Setting(**vars(option), value=_value(option, values), origin=next(inside, "default"))
        tables.setdefault(option.key.rpartition(".")[0], []).append(setting)
    return [Chapter(table, abouts.get(table, ""), settings) for table, settings in tables.items() if settings]


def _value(option: Option, values: Any) -> Any:
    for name in option.key.split("."):
        if name not in values:  # of a plugin without a table in the profile
            return option.default
        values = values[name]
    return values


def _abouts(model: type[BaseModel], table: str = "") -> dict[str, str]:
    """Return the first line of each table's docstring, by the table's name."""
    found = {table: (model.__doc__ or "").partition("\n")[0]} if table else {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _abouts(field.annotation, f"{table}.{name}" if table else name)
    return found


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in wrap(text, WIDTH)]


def _facts(setting: Setting) -> str:
    default = "unset" if setting.default is None else inline(setting.default)
    default = "required" if setting.required else f"default: {default}"
    return f"{setting.type}; {default}" + ("" if setting.origin == "default" else f"; from {setting.origin}")


def _line(setting: Setting) -> str:
    name = quoted(setting.key.rpartition(".")[2])
    return f"# {name} =" if setting.value is None else f"{name} = {inline(setting.value)}"


def _words(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Put a JSON schema into words."""
    if "$ref" in schema:
        return _words(known[schema["$ref"].rpartition("/")[2]], known)
    if options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " | ".join(dict.fromkeys(_words(option, known) for option in options))
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "")
    if kind == "array":
        if items := schema.get("prefixItems"):
            return f"list of {len(items)} ({', '.join(_words(item, known) for item in items)})"
        return f"list of {_together(_words(schema.get('items', {}), known))}"
    if kind == "object":
        inside = schema.get("additionalProperties")
        return f"table of {_together(_words(inside, known))}" if isinstance(inside, dict) else "table"
    words = "path" if schema.get("format") in ("path", "file-path", "directory-path") else _PLAIN.get(kind, "anything")
    bounds = [f"{sign} {schema[name]}" for name, sign in _BOUNDS.items() if name in schema]
    return f"{words} {', '.join(bounds)}".rstrip()


def _together(words: str) -> str:
    return f"({words})" if " | " in words else words
