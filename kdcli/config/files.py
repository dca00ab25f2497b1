"""Profiles as text: their places and their TOML. Light: listings and completion import it."""

import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import tomli
import tomli_w

import kdcli
from kdcli.config.table import nearest
from kdcli.errors import ProfileError


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
