"""What the module of a plugin must hold, see ``kdcli.api``: checked as it is loaded, before anything is asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdcli.api import API_VERSION

NEEDED: Mapping[str, tuple[str, ...]] = {
    "generators": ("Options", "fine_tune", "load"),
    "students": ("Options", "build", "pairs", "scores"),
    "taggers": ("tag",),
}
"""What the module of a plugin must hold beside ``api_version``."""
MORE: Mapping[str, tuple[str, ...]] = {"students": ("fast", "to_onnx")}
"""Functions that it may hold."""
FLAGS = ("pairs", "scores")


def version_fault(module: Any) -> str:
    """Say what is wrong with the ``api_version`` of a plugin; an empty text where nothing is."""
    if not hasattr(module, "api_version"):
        return f"lacks api_version; this kd has {API_VERSION}"
    version = module.api_version
    # True == 1, and is no version.
    if isinstance(version, bool) or version != API_VERSION:
        return f"is written for api_version {version!r}; this kd has {API_VERSION}"
    return ""


def faults(group: str, module: Any) -> Iterator[str]:
    """Say everything that is wrong with what a plugin's module holds, one verb phrase a fault."""
    if missing := [name for name in NEEDED[group] if not hasattr(module, name)]:
        yield f"lacks {', '.join(missing)}"
    for name in (*NEEDED[group], *MORE.get(group, ())):
        if not hasattr(module, name):
            continue
        value = getattr(module, name)
        if name == "Options":
            if not _is_model(value):
                yield f"has Options that are no Pydantic model class, but {_described(value)}"
        elif name in FLAGS:
            if not isinstance(value, bool):
                yield f"has {name} = {value!r:.40}, which is to be True or False"
        elif not callable(value):
            yield f"has a {name} that is no function, but {_described(value)}"


def _is_model(options: object) -> bool:
    from pydantic import BaseModel

    return isinstance(options, type) and issubclass(options, BaseModel)


def _described(value: object) -> str:
    return f"the class {value.__qualname__}" if isinstance(value, type) else f"of type {type(value).__name__}"
