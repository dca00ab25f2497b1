"""Profile files: their places, names and text. Light: listings and completion import it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tomli

import kdcli
from kdcli.config.validation import nearest
from kdcli.errors import ProfileError


def folder() -> Path:
    """Return the folder of the profiles that come with ``kd``."""
    package = Path(kdcli.__file__).resolve().parent
    inside = package / "profiles"
    return inside if inside.is_dir() else package.parent / "profiles"


def is_kds(file: Path) -> bool:
    """Return whether a profile's file comes with ``kd``."""
    return file.resolve().parent == folder().resolve()


def names() -> list[str]:
    """List the profiles that come with ``kd``."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(profile: str | Path, beside: Path | None = None) -> Path:
    """Return the file of a profile.

    Args:
        profile: A name, or a file: what ends in ``.toml`` or holds a slash.
        beside: The folder that a relative file is relative to; by default the current one.

    Raises:
        ProfileError: There is no such profile.
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


def label(path: Path) -> str:
    """Return the name of a profile file in origins: the bare name for kd's own."""
    return path.name if path.parent == folder() else str(path)


def read(path: Path) -> dict[str, Any]:
    """Read the tables of a profile as they are in the file, ``extends`` among them.

    Raises:
        ProfileError: The file is unreadable or not TOML.
    """
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
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return "\n".join(lines).strip()
