"""Every option of a table of settings in words: its type, its default and what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

_PLAIN = {"integer": "whole number", "number": "number", "boolean": "true | false", "null": "unset", "string": "text"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<", "multipleOf": "times"}


@dataclass(frozen=True)
class Option:
    """One key of a table.

    Attributes:
        key: The key, with the tables that it stands in.
        type: What it takes, in words.
        default: Its default as a JSON value; None where there is none.
        required: Whether it has to be given.
        about: What it means.
    """

    key: str
    type: str
    default: Any
    required: bool
    about: str


def options_of(model: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """Go through the options of a model and of the models inside it.

    Args:
        model: Settings, or a plugin's ``Options``.
        prefix: What the keys begin with, its dot included: ``students.bilstm.``.
    """
    for name, field in model.model_fields.items():
        key, inside = prefix + name, field.annotation
        if isinstance(inside, type) and issubclass(inside, BaseModel):
            yield from options_of(inside, f"{key}.")
            continue
        default = None if field.is_required() else _default(field)
        about = " ".join((field.description or "").split())
        plain = to_jsonable_python(default, fallback=str)
        yield Option(key, type_of(field), plain, field.is_required(), about)


def type_of(field: FieldInfo) -> str:
    """Say in words what an option takes: ``whole number >= 1``, ``lstm | gru``."""
    annotated: Any = Annotated[field.annotation, field]
    try:
        schema = TypeAdapter(annotated).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):  # a plugin may have types of its own
        return getattr(field.annotation, "__name__", str(field.annotation))
    return _words(schema, schema.get("$defs", {}))


def _default(field: FieldInfo) -> Any:
    if getattr(field, "default_factory_takes_validated_data", False):  # it depends on the other options
        return None
    return field.get_default(call_default_factory=True)


def _words(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _words(known[schema["$ref"].rpartition("/")[2]], known)
    if options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " | ".join(dict.fromkeys(_words(option, known) for option in options))
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "")
    if kind == "array":
        if places := schema.get("prefixItems"):
            return f"list of {len(places)} ({', '.join(_words(place, known) for place in places)})"
        return f"list of {_together(_words(schema.get('items', {}), known))}"
    if kind == "object":
        inside = schema.get("additionalProperties")
        return f"table of {_together(_words(inside, known))}" if isinstance(inside, dict) else "table"
    words = "path" if schema.get("format") in ("path", "file-path", "directory-path") else _PLAIN.get(kind, "anything")
    bounds = [f"{sign} {schema[name]}" for name, sign in _BOUNDS.items() if name in schema]
    return f"{words} {', '.join(bounds)}".rstrip()


def _together(words: str) -> str:
    return f"({words})" if " | " in words else words
