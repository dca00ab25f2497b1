"""Profiles as text: their places, their TOML, and every setting in words. Light: listings and completion import it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tomli
import tomli_w
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

import kdcli
from kdcli.config.table import nearest
from kdcli.errors import ProfileError

_PLAIN: dict[Any, str] = {
    **{int: "whole number", float: "number", bool: "true | false", str: "text"},
    **{NoneType: "unset", Path: "path", Any: "anything"},
}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def folder() -> Path:
    """Return the folder of the profiles that come with ``kd``."""
    package = Path(kdcli.__file__).resolve().parent
    inside = package / "profiles"
    return inside if inside.is_dir() else package.parent / "profiles"


def names() -> list[str]:
    """List the profiles that come with ``kd``."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(profile: str | Path, beside: Path | None = None) -> Path:
    """Return the file of a profile: of a name, or itself, which ends in ``.toml`` or holds a slash.

    ``beside`` is the folder that it is relative to, by default the current one.
    """
    text = str(profile)
    if isinstance(profile, Path) or text.endswith(".toml") or "/" in text:
        path = (beside or Path()) / Path(text).expanduser()
        if not path.exists():
            raise ProfileError("there is no such profile file", file=path, hint="`kd profile list` shows those of kd")
        return path
    path = folder() / f"{text}.toml"
    if path.exists():
        return path
    close = f"{text}.toml" if Path(f"{text}.toml").exists() else nearest(text, names())
    hint = f"did you mean {close}?" if close else f"there are {', '.join(names())}; a file ends in .toml"
    raise ProfileError(f"no profile is named {text}", hint=hint)


def read(path: Path) -> dict[str, Any]:
    """Read the tables of a profile as they are in the file, ``extends`` among them."""
    try:
        return tomli.loads(path.read_bytes().decode("utf-8"))
    except tomli.TOMLDecodeError as error:
        message, line = str(error), re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        row = int(line[1]) if line else None
        what = f"this is not TOML: {message[: line.start()] if line else message}"
        raise ProfileError(what, file=path, row=row, hint="texts stand in quotes; a table is [name]") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"this is not UTF-8, at byte {error.start + 1}", file=path) from error
    except OSError as error:
        raise ProfileError(f"the profile cannot be read: {error.strerror}", file=path) from error


def about(path: Path) -> str:
    """Return the comment that a profile opens with, without its ``#`` signs."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
    return "\n".join(line.lstrip("#").strip() for line in lines).strip()


def quoted(name: str) -> str:
    """Write a key of TOML, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else inline(name)


def inline(value: Any) -> str:
    """Write a value of TOML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted(name)} = {inline(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")


def line(key: str, value: Any) -> str:
    """Write a line of TOML; None becomes a comment."""
    return f"# {key} =" if value is None else f"{key} = {inline(value)}"


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
        if isinstance(inside, type) and issubclass(inside, BaseModel):
            yield from options_of(inside, f"{key}.")
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
