"""``kd plugins new``: a plugin of one's own to begin with.

A template is a package that works as it stands, so that it is linted and tested like all other code. Its name,
``example``, stands for the plugin's wherever it comes up, in names of files too; no template uses the word otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from kdcli import registry
from kdcli.errors import PluginError, UsageError
from kdcli.files import atomic

Kind = Literal["generator", "student", "tagger"]
GROUPS: dict[Kind, registry.Group] = {"generator": "generators", "student": "students", "tagger": "taggers"}

EXAMPLE = "example"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_KEPT = (".py", ".toml", ".md")
"""What a template consists of; where kd is installed, compiled files stand beside it."""


@dataclass(frozen=True)
class NewPlugin:
    """A plugin that was written.

    Attributes:
        kind: What it is.
        name: Its name, that of its entry point.
        distribution: What is installed and published.
        package: What is imported.
        folder: Where it lies.
        files: Its files, relative to the folder.
    """

    kind: Kind
    name: str
    distribution: str
    package: str
    folder: Path
    files: tuple[str, ...]


def new_plugin(*, kind: Kind, name: str, folder: Path | None = None, force: bool = False) -> NewPlugin:
    """Write a plugin that works: packaging, code, tests and a README.

    Args:
        kind: ``generator``, ``student`` or ``tagger``.
        name: Its name: lower-case letters, digits and underscores.
        folder: Where to write it; by default ``kd-NAME``.
        force: Write over the files of a plugin that stands there; its other files stay.

    Raises:
        PluginError: The name is another plugin's, or its package's.
        UsageError: It is no name, or the folder is there already.
    """
    _check_name(name)
    files = contents(kind, name)
    new = NewPlugin(kind, name, f"kd-{name}", f"kd_{name}", folder or Path(f"kd-{name}"), tuple(files))
    _check_free(new, force)
    if new.folder.exists() and not (force and new.folder.is_dir()):
        hint = "it is a file: name another place with --output" if new.folder.is_file() else "--force writes over it"
        raise UsageError("the folder is there already", file=new.folder, hint=hint)
    for file, text in files.items():
        with atomic(new.folder / file) as temporary:
            temporary.write_text(text, "utf-8")
    return new


def contents(kind: Kind, name: str) -> dict[str, str]:
    """Return what the files of a plugin hold, by their place in its folder."""
    template = Path(__file__).resolve().parent / kind
    return {
        path.relative_to(template).as_posix().replace(EXAMPLE, name): path.read_text("utf-8").replace(EXAMPLE, name)
        for path in sorted(template.rglob("*"))
        if path.suffix in _KEPT
    }


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name):
        return
    likely = re.sub(r"[^a-z0-9]+", "_", name.lower()).removeprefix("kd_").strip("_")
    hint = "take lower-case letters, digits and single underscores between them, a letter first"
    if _NAME.fullmatch(likely):
        hint += f": {likely}"
    raise UsageError(f"{name!r} cannot name a plugin", key="NAME", hint=hint)


def _check_free(new: NewPlugin, force: bool) -> None:
    """Raise an error where the plugin's name, or its package's, is taken; ``force`` lets it take its own place."""
    hint = "take another name; `kd plugins list` shows those that are taken"
    named = [plugin for plugin in registry.plugins(GROUPS[new.kind]) if plugin.name == new.name]
    for plugin in named:
        if not (force and plugin.is_called(f"{new.distribution}:{new.name}")):
            raise PluginError(f"a {new.kind} is named {new.name} already: {plugin.full_name}", key="NAME", hint=hint)
    if not named and (spec := find_spec(new.package)) and spec.origin:
        what = f"a package named {new.package} is installed already"
        raise PluginError(what, file=spec.origin, key="NAME", hint=hint)
