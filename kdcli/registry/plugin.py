"""One plugin, installed or a file of ``--code``: its metadata, its import, and whether it keeps the contract.

A file is known by its text, and run only when it is chosen.
"""

import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from symtable import symtable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

from kdcli.api import API_VERSION
from kdcli.errors import KdError, PluginError, shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Group = Literal["generators", "students", "taggers", "teachers"]
GROUPS: tuple[Group, ...] = get_args(Group)
KEYS: Mapping[Group, str] = {
    "generators": "transfer.generator",
    "students": "student.model",
    "taggers": "transfer.lite.tagger",
    "teachers": "teacher.plugin",
}
"""The setting that chooses a plugin of a group."""
OURS = "kdcli"  # the distribution whose plugins come before others of the same name

NEEDED: Mapping[Group, tuple[str, ...]] = {
    "generators": ("Options", "fine_tune", "load"),
    "students": ("Options", "build", "pairs", "scores"),
    "taggers": ("tag",),
    "teachers": ("Options", "load"),
}
"""What the module of a plugin must hold beside ``api_version``, see ``kdcli.api``."""
OPTIONAL: Mapping[str, tuple[str, ...]] = {"students": ("fast", "to_onnx"), "teachers": ("estimate",)}
"""Functions that the module may hold."""
ENVIRONMENT = "KD_CODE"
"""The files, joined as in ``PATH``: an environment variable, so that child processes know them too."""
MARKS: Mapping[str, Group] = {"build": "students", "fine_tune": "generators", "tag": "taggers"}
"""The function that shows the group of a file's plugin."""


@dataclass(frozen=True)
class CodeFile:
    """A plugin's file: its absolute path, the groups that it belongs to, and its content."""

    path: Path
    groups: tuple[Group, ...]
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


@dataclass(frozen=True)
class Plugin:
    """What is known about a plugin without running it."""

    group: Group
    name: str
    distribution: str  # or the name of its file
    version: str  # of the distribution, or the beginning of the file's SHA-256
    module: str  # what its entry point names, or the path of its file
    source: "EntryPoint | CodeFile" = field(repr=False, compare=False)

    @property
    def full_name(self) -> str:
        """Its name, behind that of its distribution."""
        return f"{self.distribution}:{self.name}"

    @property
    def title(self) -> str:
        """The plugin's name in messages."""
        return f"the {self.group.removesuffix('s')} plugin {self.full_name}"

    @property
    def file(self) -> Path | None:
        """The file that ``--code`` names, or None for an installed plugin."""
        return self.source.path if isinstance(self.source, CodeFile) else None

    @property
    def is_ours(self) -> bool:
        """Whether it comes with ``kd``."""
        return normal(self.distribution) == OURS

    @property
    def remedy(self) -> str:
        """The hint for a broken plugin."""
        if self.file:
            return f"fix {self.file}"
        if self.is_ours:
            return f"install kd again: pip install --force-reinstall {OURS}"
        both = f"pip install -U {self.distribution} {OURS}"
        return f"update it and kd ({both}), or remove it: pip uninstall {self.distribution}"

    def load(self) -> Any:
        """Import the plugin, a module or an object, and check its contract."""
        try:
            module = self.source.load()
        except KdError:
            raise
        except (Exception, SystemExit) as error:
            file, row = self.place(error)
            what = f"{self.title} cannot be imported: {shown(error)}"
            raise PluginError(what, hint=self.remedy, file=file, row=row) from error
        if found := faults(self.group, module):
            raise PluginError(f"{self.title} {', and '.join(found)}", hint=self.remedy)
        return module

    def place(self, error: BaseException) -> tuple[Path | None, int | None]:
        """Return the plugin's file and row where an error was raised last; no row if it was raised elsewhere."""
        package = self.module.partition(":")[0].partition(".")[0].strip()
        for frame, row in reversed(list(traceback.walk_tb(error.__traceback__))):
            file = Path(frame.f_code.co_filename)
            if file == self.file or str(frame.f_globals.get("__name__")).partition(".")[0] == package:
                return file, row
        return self.file, None


def normal(distribution: str) -> str:
    """Return the form in which names of distributions are compared: ``Kd_Own`` is ``kd-own``."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def faults(group: Group, module: Any) -> list[str]:
    """Return what is wrong with a plugin's module, a verb phrase each: its version, or else all of its content."""
    from pydantic import BaseModel

    version = getattr(module, "api_version", None)
    if isinstance(version, bool) or version != API_VERSION:  # True == 1, and is no version
        wrong = "lacks api_version" if version is None else f"is written for api_version {version!r}"
        return [f"{wrong}; this kd has {API_VERSION}"]
    missing = [name for name in NEEDED[group] if not hasattr(module, name)]
    found = [f"lacks {', '.join(missing)}"] if missing else []
    for name in (*NEEDED[group], *OPTIONAL.get(group, ())):
        value = getattr(module, name, None)
        if name == "Options":
            right, kind = isinstance(value, type) and issubclass(value, BaseModel), "a Pydantic model class"
        elif name in ("pairs", "scores"):
            right, kind = isinstance(value, bool), "True or False"
        else:
            right, kind = callable(value), "a function"
        if hasattr(module, name) and not right:
            found.append(f"has {name} = {value!r:.40}, which must be {kind}")
    return found


def use(files: Iterable[str | Path]) -> None:
    """Add files to those that this process, and its child processes, take plugins from."""
    more = [str(Path(file).expanduser().resolve()) for file in files]
    joined = os.pathsep.join([*filter(None, [os.environ.get(ENVIRONMENT)]), *more])
    if more:
        os.environ[ENVIRONMENT] = os.pathsep.join(str(file.path) for file in read_code_files(joined))


def read_code_files(joined: str | None = None) -> list[CodeFile]:
    """Read files of plugins, joined as in ``PATH``, without running any; by default those of the environment."""
    found = []
    names = (os.environ.get(ENVIRONMENT, "") if joined is None else joined).split(os.pathsep)
    for path in dict.fromkeys(Path(name).expanduser().resolve() for name in names if name):
        try:
            state = path.stat()
        except OSError as error:
            raise PluginError("there is no such plugin file", file=path, hint="--code takes a FILE.py") from error
        found.append(_read(path, state.st_mtime_ns, state.st_size))
    return found


@lru_cache
def _read(path: Path, changed: int, size: int) -> CodeFile:
    """Read a file; the time of its last change and its size are part of the cache's key alone."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", path.stem) or path.suffix != ".py":
        hint = "name it with letters, digits, - and _, ending in .py: the plugin is named after it"
        raise PluginError("this is no name for a plugin's file", file=path, hint=hint)
    hint = f"fix it: python {path.name} shows where"
    try:
        source = path.read_bytes()
        symbols = symtable(source, str(path), "exec").get_symbols()  # type: ignore[arg-type]  # it takes bytes too
    except SyntaxError as error:
        raise PluginError(f"this is no Python: {error.msg}", file=path, row=error.lineno, hint=hint) from error
    except (OSError, ValueError) as error:
        raise PluginError(f"this is no Python: {error}", file=path, hint=hint) from error
    names = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    groups = tuple(group for mark, group in MARKS.items() if mark in names)
    if "load" in names and "generators" not in groups:  # a generator has one too
        groups = (*groups, "teachers")
    if not groups:
        hint = "it must define build (a student), fine_tune (a generator), tag (a tagger) or load (a teacher)"
        raise PluginError("this file is no plugin", file=path, hint=hint)
    return CodeFile(path, groups, source)
