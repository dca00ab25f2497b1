"""What is checked of every plugin: its module, its version, its options, its imports."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

from kdcli import registry
from kdcli.api import API_VERSION
from kdcli.config.validation import explain
from kdcli.errors import PluginError
from kdcli.registry import Group, Plugin
from kdcli.registry.contracts import NEEDED, faults, version_fault
from kdcli.testing.elsewhere import elsewhere
from kdcli.testing.outcomes import Check, Failure, Skipped, Warned, expect, told

PUBLIC = (
    *("kdcli.api", "kdcli.models.embedding", "kdcli.lm", "kdcli.models.inference", "kdcli.testing"),
    "kdcli.load_student",
)
"""What plugins may import of ``kdcli``; the rest changes without notice."""
ODD: tuple[Any, ...] = ({"no": "such"}, [[]], "\x00", -1.5)
"""Values that a profile can hold, and of which an option can take some at most."""
_GUIDE = "docs/plugins.md"


class Heard(StringIO):
    """Stands for stdout: keeps what a plugin prints, and hands it on to stderr."""

    def write(self, text: str) -> int:
        """Keep it, and hand it on."""
        sys.stderr.write(text)
        return super().write(text)


@dataclass
class Subject:
    """A plugin that is checked.

    Attributes:
        group: Its group.
        given: Its module, an object like one, or its installed name.
        table: Its table of a profile.
        folder: Where its checks may write.
        plugin: The module, or the object, as soon as it is loaded.
        stdout: What it has printed so far.
    """

    group: Group
    given: Any
    table: Mapping[str, Any]
    folder: Path
    plugin: Any = None
    stdout: StringIO = field(default_factory=Heard)

    @property
    def module(self) -> ModuleType:
        """The plugin, if it is a module.

        Raises:
            Skipped: It is an object.
        """
        if not isinstance(self.plugin, ModuleType):
            raise Skipped("the plugin is an object, and this is about modules")
        return self.plugin

    @property
    def known(self) -> Plugin:
        """What is known about it; of one without a name, the module alone, which is that of an object's class."""
        if isinstance(self.given, str):
            return registry.find(self.group, self.given)
        name = self.given.__name__ if isinstance(self.given, ModuleType) else type(self.given).__module__
        return Plugin(self.group, name, name, "", name, EntryPoint(name, name, f"kdcli.{self.group}"))

    @property
    def address(self) -> list[str]:
        """How another process gets at the plugin: what ``kdcli.testing.elsewhere`` is to be told.

        Raises:
            Skipped: It cannot: the plugin is an object, or a module that nobody has imported from a file.
        """
        if isinstance(self.given, str):
            return [self.group, self.given]
        if self.module.__spec__ is None or self.module.__name__ == "__main__":
            raise Skipped("the module was made on the spot, and another process cannot import it")
        return ["module", self.module.__name__]

    @property
    def options(self) -> Any:
        """The validated options."""
        return self.plugin.Options.model_validate(dict(self.table))


def loads(subject: Subject) -> str:
    """Import the plugin, as ``kd`` does when it is chosen."""
    if not isinstance(subject.given, str):
        subject.plugin = subject.given
        return "given as it is"
    found = registry.find(subject.group, subject.given)
    try:
        subject.plugin = registry.load(subject.group, subject.given)
    except PluginError:
        # One that can be imported breaks the contract: the checks below say in what.
        with suppress(Exception, SystemExit):
            subject.plugin = found.source.load()
        if subject.plugin is None:
            raise
    return f"{found.full_name} {found.version}, {found.module}"


def api_version(subject: Subject) -> str:
    """Compare the version of the contract."""
    fault = version_fault(subject.plugin)
    expect(not fault, f"api_version = {API_VERSION}", f"a module that {fault}")
    return f"{API_VERSION}"


def members(subject: Subject) -> str:
    """Look for what the module must hold."""
    needed = ", ".join(NEEDED[subject.group])
    found = ", and ".join(faults(subject.group, subject.plugin))
    expect(not found, f"a module with {needed}", f"one that {found}")
    return needed


def cheap_import(subject: Subject) -> str:
    """Import the module in a process of its own, and look what came with it."""
    heavy = ", ".join(elsewhere("imports", *subject.address))
    expect(not heavy, "an import that costs next to nothing", f"{heavy} too: import that inside the functions")
    return "no torch, no other heavy library"


def public_imports(subject: Subject) -> str:
    """Read the sources of the plugin's package for imports of what ``kdcli`` keeps to itself."""
    module = subject.module
    if not module.__file__:
        raise Skipped("the module has no file")
    file = Path(module.__file__)
    files = sorted(file.parent.rglob("*.py")) if module.__package__ else [file]
    inside = [f"{path.name}, line {line}: {name}" for path in files for line, name in _internals(path)]
    if inside:
        names = ", ".join(PUBLIC)
        raise Warned(f"imports of {names} alone, the rest changes without notice", f"{'; '.join(inside[:5])}")
    return f"{len(files)} file{'s' * (len(files) > 1)} read"


def options_given(subject: Subject) -> str:
    """Validate the options of this check, and write them to JSON and back, as ``kd`` keeps them."""
    from pydantic import ValidationError

    try:
        options = subject.options
    except ValidationError as error:
        mistakes = told(explain(error, subject.plugin.Options))
        raise Failure("options that are valid (--set key=value, or options={...})", mistakes) from None
    kept = json.loads(json.dumps(options.model_dump(mode="json")))
    again = type(options).model_validate(kept)
    expect(again == options, "options that are the same after JSON, where they are kept", f"{again!r} of {options!r}")
    return ", ".join(f"{name} = {value!r}" for name, value in subject.table.items()) or "the defaults"


def options_unknown(subject: Subject) -> str:
    """Try an option that there is not."""
    expected = 'model_config = ConfigDict(extra="forbid"), so that a misspelt option is an error'
    expect(not _takes(subject, {"no_such_option": 1}), expected, "an Options that takes no_such_option")
    return "refused"


def options_wrong(subject: Subject) -> str:
    """Try values of the wrong type for each option."""
    model = subject.plugin.Options
    for name in model.model_fields:
        refused = any(not _takes(subject, {name: value}) for value in ODD)
        expect(refused, "a type for each option, so that a wrong value is an error", f"{name}, which takes anything")
    return f"{len(model.model_fields)} options refuse them"


def options_described(subject: Subject) -> str:
    """Look for a description of each option, which ``kd plugins show`` and ``kd profile show --docs`` print."""
    fields = subject.plugin.Options.model_fields
    silent = [name for name, field in fields.items() if not (field.description or "").strip()]
    expected = "a description of each option: a docstring below it and use_attribute_docstrings=True, or Field(...)"
    expect(not silent, expected, f"none of {', '.join(silent)}")
    return f"{len(fields)} described"


def about(subject: Subject) -> str:
    """Look for the line that ``kd plugins show`` prints."""
    first = registry.about(subject.plugin)
    if not first:
        raise Warned("a docstring of the module, whose first line `kd plugins show` prints", "none")
    return first


def prints_nothing(subject: Subject) -> str:
    """Look what it has printed in all checks before this one."""
    if printed := subject.stdout.getvalue().strip():
        raise Warned("nothing on stdout, which belongs to the result", f"{printed[:80]!r}")
    return "nothing on stdout"


MODULE_CHECKS: tuple[Check[Any], ...] = (
    Check(loads, f"{_GUIDE}, Packaging"),
    Check(api_version, f"{_GUIDE}, Versioning", (loads,)),
    Check(members, f"{_GUIDE}, The contract", (loads,)),
    Check(about, f"{_GUIDE}, The contract", (loads,)),
    Check(cheap_import, f"{_GUIDE}, The contract", (loads,)),
    Check(public_imports, f"{_GUIDE}, What is public", (loads,)),
)
PRINTS_NOTHING: Check[Any] = Check(prints_nothing, f"{_GUIDE}, The contract", (loads,))
"""The last of each plugin."""
OPTIONS_CHECKS: tuple[Check[Any], ...] = (
    Check(options_given, f"{_GUIDE}, Options", (members,)),
    Check(options_unknown, f"{_GUIDE}, Options", (options_given,)),
    Check(options_wrong, f"{_GUIDE}, Options", (options_given,)),
    Check(options_described, f"{_GUIDE}, Options", (members,)),
)


def _takes(subject: Subject, values: Mapping[str, Any]) -> bool:
    from pydantic import ValidationError

    try:
        subject.plugin.Options.model_validate({**subject.table, **values})
    except ValidationError:
        return False
    return True


def _internals(path: Path) -> Iterator[tuple[int, str]]:
    """Find imports of ``kdcli`` beyond what is public, with their lines."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # a template, or for another Python
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("kdcli.") and not any(f"{name}.".startswith(f"{public}.") for public in PUBLIC):
                yield node.lineno, name
