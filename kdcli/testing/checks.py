"""The checks of every plugin (its module, version, options, imports), and how a list of checks is run."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from kdcli import registry
from kdcli.api import API_VERSION
from kdcli.config.table import explain
from kdcli.errors import KdError, each, shown
from kdcli.registry import Group, Plugin
from kdcli.registry.plugin import NEEDED, faults, version_fault
from kdcli.testing.processes import run_elsewhere

PUBLIC = ("kdcli.api", "kdcli.lm", "kdcli.models", "kdcli.testing", "kdcli.load_student")
"""What plugins may import of ``kdcli``; the rest changes without notice."""
ODD: tuple[Any, ...] = ({"no": "such"}, [[]], "\x00", -1.5)
"""Values that a profile can hold; no option of a sensible type accepts all of them."""
GUIDE = "docs/plugins.md"

Result = Literal["passed", "failed", "skipped", "warned"]


@dataclass(frozen=True)
class CheckOutcome:
    """The outcome of a check: its name, its result, and what was found.

    A check is skipped if it does not apply, or needs one that has failed. The detail of a failure holds the expected
    behaviour, and where the contract describes it.
    """

    check: str
    result: Result
    detail: str


class Failure(Exception):
    """A plugin breaks the contract."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"expected {expected}; came {actual}")
        self.expected, self.actual = expected, actual


class Doubt(Failure):
    """A plugin works, but will trouble somebody: a warning."""


class Skip(Exception):
    """A check does not apply: its text says why."""


@dataclass(frozen=True)
class Check:
    """One check: ``run`` returns a detail, or raises ``Failure``, ``Doubt`` or ``Skip``."""

    run: Callable[[Any], str]
    see: str  # where the contract is described
    needs: tuple[Callable[[Any], str], ...] = ()  # checks that have to pass before

    @property
    def names(self) -> list[str]:
        """Its name, then those of its needs: the names of the functions, in words."""
        return [run.__name__.replace("_", " ") for run in (self.run, *self.needs)]


def expect(holds: bool, expected: str, actual: object) -> None:
    """Raise a failure unless something holds."""
    if not holds:
        raise Failure(expected, str(actual))


def expect_error(call: Callable[[], object], kinds: tuple[type[Exception], ...], expected: str) -> Exception:
    """Return the error of these kinds that a call raises; another one, or none, is a failure."""
    try:
        call()
    except kinds as error:
        return error
    except Exception as error:  # whatever a plugin may do
        raise Failure(expected, shown(error)) from None
    raise Failure(expected, "no error")


def expect_close(found: Any, wanted: Any, expected: str, tolerance: float) -> None:
    """Raise a failure unless two arrays are of one form and within the tolerance, absolute and relative to wanted."""
    import numpy as np

    form, right = (
        f"{type(one).__name__} of {getattr(one, 'dtype', '')} {getattr(one, 'shape', '')}" for one in (found, wanted)
    )
    expect(form == right, f"{expected}: {right}", form)
    close = bool(np.allclose(found, wanted, rtol=tolerance, atol=tolerance))
    expect(close, expected, f"{np.abs(found - wanted).max(initial=0):.2g} of difference, more than {tolerance:g}")


def in_one_line(errors: Iterable[KdError]) -> str:
    """Join errors, each with its hint."""
    every = [one for error in errors for one in each(error)]
    return "; ".join(f"{one} ({one.hint})" if one.hint else str(one) for one in every)


def run_checks(checks: Sequence[Check], subject: Subject) -> Iterator[CheckOutcome]:
    """Run checks one after the other; skip one whose needs have not passed."""
    results: dict[str, Result] = {}
    for check in checks:
        name, *needs = check.names
        if lacking := [need for need in needs if results[need] not in ("passed", "warned")]:
            outcome = CheckOutcome(name, "skipped", f"it needs what has not passed: {', '.join(lacking)}")
        else:
            outcome = CheckOutcome(name, *_result(check, subject))
        results[name] = outcome.result
        yield outcome


def _result(check: Check, subject: Subject) -> tuple[Result, str]:
    try:
        return "passed", check.run(subject)
    except Skip as reason:
        return "skipped", str(reason)
    except Failure as reason:
        return "warned" if isinstance(reason, Doubt) else "failed", f"{reason}; see {check.see}"
    except KdError as error:
        actual = in_one_line([error])
    except (Exception, SystemExit) as error:  # whatever a plugin may do
        file, row = subject.known.place(error)
        actual = f"{shown(error)} ({file}, line {row})" if row else shown(error)
    return "failed", f"expected no error; came {actual}; see {check.see}"


class Echo(StringIO):
    """Stands for stdout: keeps the output of a plugin, and passes it on to stderr."""

    def write(self, text: str) -> int:
        """Keep the text, and pass it on."""
        sys.stderr.write(text)
        return super().write(text)


@dataclass
class Subject:
    """A plugin under check."""

    group: Group
    source: Any  # its module, an object like one, or its installed name
    table: Mapping[str, Any]  # of a profile
    folder: Path  # where its checks may write
    plugin: Any = None  # the module, or the object, once it is loaded
    stdout: StringIO = field(default_factory=Echo)  # its output so far

    @property
    def module(self) -> ModuleType:
        """The plugin, if it is a module; else the check is skipped."""
        if not isinstance(self.plugin, ModuleType):
            raise Skip("the plugin is an object, and this check is for modules")
        return self.plugin

    @property
    def known(self) -> Plugin:
        """Its metadata; without an installed name, just the name of its module."""
        if isinstance(self.source, str):
            return registry.find(self.group, self.source)
        name = self.source.__name__ if isinstance(self.source, ModuleType) else type(self.source).__module__
        return Plugin(self.group, name, name, "", name, EntryPoint(name, name, f"kdcli.{self.group}"))

    @property
    def address(self) -> list[str]:
        """The first arguments of ``run_elsewhere``: how another process finds the plugin."""
        if isinstance(self.source, str):
            return [self.group, self.source]
        if self.module.__spec__ is None or self.module.__name__ == "__main__":
            raise Skip("another process cannot import a module that has no file")
        return ["module", self.module.__name__]

    @property
    def options(self) -> Any:
        """The validated options."""
        return self.plugin.Options.model_validate(dict(self.table))


def loads(subject: Subject) -> str:
    """Import the plugin, as ``kd`` does when it is chosen."""
    if not isinstance(subject.source, str):
        subject.plugin = subject.source
        return "a module or an object"
    found = registry.find(subject.group, subject.source)
    # If it can be imported but breaks the contract, the checks below say how.
    with suppress(Exception, SystemExit):
        subject.plugin = found.source.load()
    if subject.plugin is None:
        found.load()
    return f"{found.full_name} {found.version}, {found.module}"


def api_version(subject: Subject) -> str:
    """Compare the version of the contract."""
    fault = version_fault(subject.plugin)
    expect(not fault, f"api_version = {API_VERSION}", f"a module that {fault}")
    return str(API_VERSION)


def members(subject: Subject) -> str:
    """Look for the names that the module must hold."""
    needed = ", ".join(NEEDED[subject.group])
    found = ", and ".join(faults(subject.group, subject.plugin))
    expect(not found, f"a module with {needed}", f"one that {found}")
    return needed


def about(subject: Subject) -> str:
    """Look for the line that ``kd plugins show`` prints."""
    first = registry.about(subject.plugin)
    if not first:
        raise Doubt("a docstring of the module, whose first line `kd plugins show` prints", "none")
    return first


def cheap_import(subject: Subject) -> str:
    """Import the module in another process, and list the heavy libraries that came with it."""
    heavy = ", ".join(run_elsewhere("imports", *subject.address))
    expect(not heavy, "an import that costs next to nothing", f"{heavy} too: import that inside the functions")
    return "no torch, no other heavy library"


def public_imports(subject: Subject) -> str:
    """Read the sources of the plugin's package for imports of ``kdcli`` that are not public."""
    module = subject.module
    if not module.__file__:
        raise Skip("the module has no file")
    file = Path(module.__file__)
    files = sorted(file.parent.rglob("*.py")) if hasattr(module, "__path__") else [file]
    inside = [f"{path.name}, line {line}: {name}" for path in files for line, name in _internals(path)]
    if inside:
        names = ", ".join(PUBLIC)
        raise Doubt(f"imports of {names} alone, the rest changes without notice", f"{'; '.join(inside[:5])}")
    return f"{len(files)} file{'s' * (len(files) > 1)} read"


def options_given(subject: Subject) -> str:
    """Validate the options of this check, and write them to JSON and back, as ``kd`` keeps them."""
    from pydantic import ValidationError

    try:
        options = subject.options
    except ValidationError as error:
        errors = in_one_line(explain(error, subject.plugin.Options))
        raise Failure("options that are valid (--set key=value, or options={...})", errors) from None
    again = type(options).model_validate(json.loads(json.dumps(options.model_dump(mode="json"))))
    expect(again == options, "options that are the same after JSON, where they are kept", f"{again!r} of {options!r}")
    return ", ".join(f"{name} = {value!r}" for name, value in subject.table.items()) or "the defaults"


def options_unknown(subject: Subject) -> str:
    """Try an option that does not exist."""
    expected = 'model_config = ConfigDict(extra="forbid"), so that a misspelt option is an error'
    expect(not _accepts(subject, {"no_such_option": 1}), expected, "an Options that takes no_such_option")
    return "refused"


def options_wrong(subject: Subject) -> str:
    """Try values of the wrong type for each option."""
    names = subject.plugin.Options.model_fields
    for name in names:
        refused = not all(_accepts(subject, {name: value}) for value in ODD)
        expect(refused, "a type for each option, so that a wrong value is an error", f"{name}, which takes anything")
    return f"{len(names)} options refuse them"


def options_described(subject: Subject) -> str:
    """Look for a description of each option, which ``kd plugins show`` and ``kd profile show --docs`` print."""
    fields = subject.plugin.Options.model_fields
    silent = [name for name, field in fields.items() if not (field.description or "").strip()]
    expected = "a description of each option: a docstring below it and use_attribute_docstrings=True, or Field(...)"
    expect(not silent, expected, f"none of {', '.join(silent)}")
    return f"{len(fields)} described"


def prints_nothing(subject: Subject) -> str:
    """Look at the output of all checks before this one."""
    if printed := subject.stdout.getvalue().strip():
        raise Doubt("nothing on stdout, which belongs to the result", f"{printed[:80]!r}")
    return "nothing on stdout"


MODULE_CHECKS = (
    Check(loads, f"{GUIDE}, Packaging"),
    Check(api_version, f"{GUIDE}, Versioning", (loads,)),
    Check(members, f"{GUIDE}, The contract", (loads,)),
    Check(about, f"{GUIDE}, The contract", (loads,)),
    Check(cheap_import, f"{GUIDE}, The contract", (loads,)),
    Check(public_imports, f"{GUIDE}, What is public", (loads,)),
)
OPTIONS_CHECKS = (
    Check(options_given, f"{GUIDE}, Options", (members,)),
    Check(options_unknown, f"{GUIDE}, Options", (options_given,)),
    Check(options_wrong, f"{GUIDE}, Options", (options_given,)),
    Check(options_described, f"{GUIDE}, Options", (members,)),
)
PRINTS_NOTHING = Check(prints_nothing, f"{GUIDE}, The contract", (loads,))
"""The last check of each plugin."""


def _accepts(subject: Subject, values: Mapping[str, Any]) -> bool:
    from pydantic import ValidationError

    try:
        subject.plugin.Options.model_validate({**subject.table, **values})
    except ValidationError:
        return False
    return True


def _internals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield imports of ``kdcli`` that are not public, with their lines."""
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
