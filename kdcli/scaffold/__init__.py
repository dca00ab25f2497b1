"""``kd plugins new``: write a plugin to begin with, from a template.

A template is a package that works as it stands. Its name, ``example``, is replaced by the plugin's wherever it occurs,
in file names too; no template uses the word otherwise.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kdcli import registry
from kdcli.errors import PluginError, UsageError
from kdcli.files import atomic, check_output

GROUPS = {group.removesuffix("s"): group for group in registry.GROUPS}  # the group of each kind of plugin
EXAMPLE = "example"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
SUFFIXES = (".py", ".toml", ".md")  # files of a template; an installed kd has compiled files beside them
TEST = '''"""The contract that every {kind} keeps."""

from kdcli.testing import check_{kind}

import {package}


def test_the_contract():
    check_{kind}({package}{more})
'''
"""The test of each new plugin."""


@dataclass(frozen=True)
class NewPlugin:
    """A new plugin: its kind, its names as plugin, distribution and package, its folder, and its files there."""

    kind: str
    name: str
    distribution: str
    package: str
    folder: Path
    files: tuple[str, ...]


def new_plugin(*, kind: str, name: str, folder: Path | None = None, force: bool = False) -> NewPlugin:
    """Write a plugin that works, by default into ``kd-NAME``; ``force`` replaces one, but no files of others."""
    if not NAME.fullmatch(name):
        hint = "take lower-case letters, digits and single underscores between them, a letter first"
        likely = re.sub(r"[^a-z0-9]+", "_", name.lower()).removeprefix("kd_").strip("_")
        hint += f": {likely}" if NAME.fullmatch(likely) else ""
        raise UsageError(f"{name!r} cannot name a plugin", key="NAME", hint=hint)
    files = template(kind, name)
    new = NewPlugin(kind, name, f"kd-{name}", f"kd_{name}", folder or Path(f"kd-{name}"), tuple(files))
    _check_free(new, force)
    check_output(new.folder, force=force)
    with atomic(new.folder) as temporary:
        for file, text in files.items():
            path = temporary / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return new


def template(kind: str, name: str) -> dict[str, str]:
    """Return the text of each file of a new plugin, by its path in the plugin's folder."""
    folder = Path(__file__).resolve().parent / kind
    files = {
        path.relative_to(folder).as_posix().replace(EXAMPLE, name): path.read_text("utf-8").replace(EXAMPLE, name)
        for path in sorted(folder.rglob("*"))
        if path.suffix in SUFFIXES
    }
    more = ', model="textblob"' if kind == "teacher" else ""
    return {**files, f"tests/test_kd_{name}.py": TEST.format(kind=kind, package=f"kd_{name}", more=more)}


def _check_free(new: NewPlugin, force: bool) -> None:
    """Raise an error if the plugin's name, or its package's, is taken; with ``force`` it may replace itself."""
    hint = "take another name; `kd plugins list` shows those that are taken"
    namesakes = [plugin for plugin in registry.plugins(GROUPS[new.kind]) if plugin.name == new.name]
    for plugin in namesakes:
        if not (force and plugin.distribution == new.distribution):
            raise PluginError(f"a {new.kind} is named {new.name} already: {plugin.full_name}", key="NAME", hint=hint)
    if not namesakes and (spec := find_spec(new.package)) and spec.origin:
        what = f"a package named {new.package} is installed already"
        raise PluginError(what, file=spec.origin, key="NAME", hint=hint)
