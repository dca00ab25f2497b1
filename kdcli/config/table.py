"""What the tables of settings are made of: the types of values, the option of each, in words too, and the errors."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from kdcli.errors import KdError, ProfileError

Metric = Literal[
    "accuracy", "f1", "mcc", "macro_f1", "balanced_accuracy", "micro_f1", "subset_accuracy", "pearson", "spearman"
]
BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]
Probability = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]

_PLAIN: dict[Any, str] = {
    **{int: "whole number", float: "number", bool: "true | false", str: "text"},
    **{NoneType: "unset", Path: "path", Any: "anything"},
}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def metrics_of(labels: bool, multi_label: bool) -> tuple[str, ...]:
    """Return the metrics that fit a task with labels, with sets of labels, or with neither: of scores."""
    if multi_label:
        return "micro_f1", "macro_f1", "subset_accuracy"
    return ("accuracy", "f1", "mcc", "macro_f1", "balanced_accuracy") if labels else ("pearson", "spearman")


@dataclass(frozen=True)
class Flag:
    """The option of a setting; its names are by default the setting's own with dashes."""

    panel: str
    metavar: str | None = None
    names: tuple[str, ...] = ()
    plugins: Literal["generators", "students", "taggers"] | None = None


class Table(BaseModel):
    """A table of a profile: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, defer_build=True
    )


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is spelt most like ``name``, or None."""
    return next(iter(get_close_matches(name, list(names), n=1)), None)


@dataclass(frozen=True)
class Option:
    """One key of a table: its dotted key, type in words, default as a JSON value, and meaning."""

    key: str
    type: str
    default: Any
    required: bool
    about: str


def options_of(model: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """Go through the options of a model and of the models inside it; keys begin with ``prefix``."""
    for name, field in model.model_fields.items():
        key, inside = prefix + name, field.annotation
        if table := _model(inside):
            yield from options_of(table, f"{key}.")
            continue
        depends = getattr(field, "default_factory_takes_validated_data", False)  # on the other options
        default = None if field.is_required() or depends else field.get_default(call_default_factory=True)
        kind, about = type_of(inside, field.metadata), " ".join((field.description or "").split())
        yield Option(key, kind, to_jsonable_python(default, fallback=str), field.is_required(), about)


def type_of(kind: Any, bounds: Iterable[Any] = ()) -> str:
    """Return in words what an option takes: ``whole number >= 1``, ``lstm | gru``."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return type_of(inside[0], [one for more in inside[1:] for one in getattr(more, "metadata", [more])])
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(type_of(one, bounds) for one in inside))
    if origin is Literal:
        return " | ".join(map(str, inside))
    if origin is dict:
        return "table" if inside[1] is Any else f"table of {type_of(inside[1])}"
    if origin in (list, tuple, set, frozenset):
        words = ", ".join(type_of(one) for one in inside if one is not ...)
        return f"list of ({words})" if " | " in words or ", " in words else f"list of {words}"
    words = _PLAIN.get(kind, getattr(kind, "__name__", str(kind)))
    signs = [f"{sign} {getattr(one, name)}" for one in bounds for name, sign in _BOUNDS.items() if hasattr(one, name)]
    return f"{words} {', '.join(signs)}" if signs and kind in (int, float) else words


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[KdError]:
    """Turn an error of Pydantic's into one error a key; ``prefix`` is what the keys begin with, dot included."""
    findings: dict[str, list[Any]] = {}
    fields: dict[str, FieldInfo | None] = {}
    for finding in error.errors(include_url=False):
        path, field = _locate(model, finding["loc"])
        key = prefix + ".".join(path)
        findings.setdefault(key, []).append(finding)
        fields[key] = field
    return [
        unknown(key, model, prefix) if found[0]["type"] == "extra_forbidden" else _wrong(key, found, fields[key])
        for key, found in findings.items()
    ]


def unknown(key: str, model: type[BaseModel], prefix: str = "") -> KdError:
    """Return the error for a key that ``model`` does not have, with the nearest one that it has.

    A similar name in the same table comes first, then the same name in another table.
    """
    table, _, name = key.removeprefix(prefix).rpartition(".")
    known, start = [one.key for one in options_of(model)], f"{table}." if table else ""
    siblings = list(dict.fromkeys(key.removeprefix(start).split(".")[0] for key in known if key.startswith(start)))
    if close := nearest(name, siblings):
        meant = [start + close]
    else:
        meant = [other for other in known if other.rpartition(".")[2] == name]
        meant = [close] if (close := nearest(start + name, meant)) else meant
    if meant:
        hint = f"did you mean {' or '.join(prefix + other for other in meant)}?"
    elif siblings:
        hint = f"the keys of {(prefix + table).rstrip('.') or 'a profile'} are {', '.join(siblings)}"
    else:
        hint = "it takes no keys"
    return ProfileError("unknown key", key=key, hint=hint)


def _wrong(key: str, findings: Sequence[Mapping[str, Any]], field: FieldInfo | None) -> KdError:
    first = findings[0]
    if first["type"] == "missing":
        about = f": {' '.join(field.description.split())}" if field and field.description else ""
        return ProfileError("this needs a value, and has no default", key=key, hint=f"--set {key}=VALUE{about}")
    texts = []
    for finding in findings:
        text = re.sub("^(Value error, |Input |String )", "", finding["msg"])
        if finding["type"] == "string_pattern_mismatch":  # the description, which is the hint, says it in words
            text = "is no value of this setting"
        elif finding["type"] != "value_error":
            text = text.partition(",")[0].replace("valid tuple", "list")
            text = re.sub(r"valid dictionary( or instance of \w+)?", "table", text)
        texts.append(text)
    what = ", or ".join(dict.fromkeys(texts))
    if first["type"] != "value_error":
        what = f"{first['input']!r} {what}"
    hint = "`kd profile show base` explains every key"
    if first["type"] == "string_type":
        hint = f'put it in quotes: "{first["input"]}"'
    elif first["type"] == "tuple_type" and isinstance(first["input"], str):
        hint = f"write it as a list: {json.dumps(first['input'].split(','))}"
    elif field and field.description:
        hint = f"{key}: {' '.join(field.description.split())}"
    return ProfileError(what, key=key or None, hint=hint)


def _locate(model: type[BaseModel], place: Sequence[str | int]) -> tuple[list[str], FieldInfo | None]:
    """Follow a location through tables; after the last table come Pydantic's own steps (a union's branch, an item)."""
    path: list[str] = []
    field: FieldInfo | None = None
    inside: Any = model
    for step in place:
        table = _model(inside)
        if isinstance(step, int) or (table is None and get_origin(inside) is not dict):
            break
        path.append(step)
        field = table.model_fields.get(step) if table else field
        inside = (field.annotation if field else None) if table else get_args(inside)[1]
    return path, field


def _model(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
