"""Plugins that are one file each, ``--code FILE.py``: known by their text, run only when they are chosen."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Literal

from kdcli.errors import PluginError

ENVIRONMENT = "KD_CODE"
"""The files, joined as in ``PATH``: an environment variable, so that child processes know them too."""
MARKS: Mapping[str, Literal["generators", "students", "taggers"]] = {
    "build": "students",
    "fine_tune": "generators",
    "tag": "taggers",
}
"""The function that shows the group of a file's plugin."""


@dataclass(frozen=True)
class CodeFile:
    """A plugin's file: its absolute path, the groups that it belongs to, and its content."""

    path: Path
    groups: tuple[Literal["generators", "students", "taggers"], ...]
    source: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """The plugin's name: the file's, without ``.py``."""
        return self.path.stem

    @property
    def version(self) -> str:
        """The first 8 hex digits of its SHA-256."""
        return sha256(self.source).hexdigest()[:8]

    def load(self) -> ModuleType:
        """Run the file, once for each content of it."""
        name = f"kd_code_{self.name}_{self.version}"
        if name in sys.modules:
            return sys.modules[name]
        spec = spec_from_file_location(name, self.path)
        assert spec
        module = sys.modules[name] = module_from_spec(spec)
        try:
            # Not by the file's loader, which could run an older compiled form of the file.
            exec(compile(self.source, str(self.path), "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
        return module


def use(files: Iterable[str | Path]) -> None:
    """Add files to those that this process, and its child processes, take plugins from."""
    more = [str(Path(file).expanduser().resolve()) for file in files]
    for file in more:
        if os.pathsep in file:
            raise PluginError(f"a plugin's file has no {os.pathsep!r} in its path", file=file, hint="rename it")
    joined = os.pathsep.join([*filter(None, [os.environ.get(ENVIRONMENT)]), *more])
    if more:
        os.environ[ENVIRONMENT] = os.pathsep.join(str(file.path) for file in _read_all(joined))


def read_code_files() -> list[CodeFile]:
    """Read the files that the environment names, without running any."""
    return _read_all(os.environ.get(ENVIRONMENT, ""))


def _read_all(joined: str) -> list[CodeFile]:
    found: dict[str, CodeFile] = {}
    for path in dict.fromkeys(Path(name).expanduser().resolve() for name in joined.split(os.pathsep) if name):
        try:
            state = path.stat()
        except OSError as error:
            raise PluginError("there is no such plugin file", file=path, hint="--code takes a FILE.py") from error
        file = _read(path, state.st_mtime_ns, state.st_size)
        if file.name in found:
            what = f"two plugin files are named {file.name}: {found[file.name].path} and {path}"
            raise PluginError(what, hint="a plugin is named after its file: rename one of them")
        found[file.name] = file
    return list(found.values())


@lru_cache
def _read(path: Path, changed: int, size: int) -> CodeFile:
    """Read a file; the time of its last change and its size are part of the cache's key alone."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", path.stem) or path.suffix != ".py":
        hint = "name it with letters, digits, - and _, ending in .py: the plugin is named after it"
        raise PluginError("this is no name for a plugin's file", file=path, hint=hint)
    hint = f"mend it: python {path.name} shows where"
    try:
        source = path.read_bytes()
        tree = ast.parse(source, path)
    except SyntaxError as error:
        raise PluginError(f"this is no Python: {error.msg}", file=path, row=error.lineno, hint=hint) from error
    except (OSError, ValueError) as error:
        raise PluginError(f"this is no Python: {error}", file=path, hint=hint) from error
    groups = tuple(dict.fromkeys(MARKS[name] for name in _names(tree) if name in MARKS))
    if not groups:
        hint = "it must define build (a student), fine_tune (a generator) or tag (a tagger)"
        raise PluginError("this file is no plugin", file=path, hint=hint)
    return CodeFile(path, groups, source)


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines or imports at its top level."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (name.asname or name.name for name in names)
