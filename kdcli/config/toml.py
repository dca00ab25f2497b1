"""Settings to TOML, one value a line, so that a note can stand behind each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w


def to_toml(values: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> str:
    """Write tables inside tables.

    Args:
        values: What TOML can hold.
        notes: Comments by dotted key.
    """
    return "\n".join(_table(values, notes or {}, ())).strip() + "\n"


def _table(values: Mapping[str, Any], notes: Mapping[str, str], path: tuple[str, ...]) -> Iterator[str]:
    inside = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in values.items() if name not in inside}
    if path and (plain or not inside):
        yield f"[{'.'.join(quoted(name) for name in path)}]"
    width = max((len(f"{quoted(name)} = {inline(value)}") for name, value in plain.items()), default=0)
    for name, value in plain.items():
        line = f"{quoted(name)} = {inline(value)}"
        note = notes.get(".".join((*path, name)))
        yield f"{line:<{min(width, 60)}}  # {note}" if note else line
    if plain or not inside:
        yield ""
    for name, value in inside.items():
        yield from _table(value, notes, (*path, name))


def quoted(name: str) -> str:
    """Write a key, in quotes where it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else inline(name)


def inline(value: Any) -> str:
    """Write a value in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted(name)} = {inline(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")
