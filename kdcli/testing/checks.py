"""How checks are run, also in other processes, and those that every plugin has: its module, options, imports."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from kdcli import registry
from kdcli.errors import KdError, PluginError, each, shown
from kdcli.registry import Group, Plugin
from kdcli.registry.plugin import faults

HEAVY = (
    *("jax", "nltk", "onnx", "onnxruntime", "pandas", "polars", "pyarrow", "scipy", "sklearn", "tensorflow"),
    *("textblob", "torch", "transformers"),
)
"""Libraries that take long to import; a plugin imports them inside its functions."""

Check = Callable[[Any], str]
"""Checks a ``Subject``; returns a detail, or raises ``Failure`` or ``Skip``. It has the function's name."""
Result = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class CheckOutcome:
    """The outcome of a check."""

    check: str  # its name
    result: Result  # skipped if it does not apply, or needs one that has failed
    detail: str  # what was found; of a failure the expected behaviour too, and where the contract describes it


class Failure(Exception):
    """A plugin breaks the contract."""

    def __init__(self, expected: str, actual: object) -> None:
        super().__init__(f"expected {expected}; came {actual}")
        self.expected, self.actual = expected, actual


class Skip(Exception):
    """A check does not apply: its text says why."""


@dataclass
class Subject:
    """A plugin under check."""

    group: Group
    source: Any  # its module, an object like one, or its installed name
    table: Mapping[str, Any]  # of a profile
    folder: Path  # where its checks may write
    plugin: Any = None  # the module, or the object, once it is loaded

    @property
    def known(self) -> Plugin:
        """Its metadata; without an installed name, just the name of its module."""
        if isinstance(self.source, str):
            return registry.find(self.group, self.source)
        name = self.source.__name__ if isinstance(self.source, ModuleType) else type(self.source).__module__
        return Plugin(self.group, name, name, "", name, EntryPoint(name, name, f"kdcli.{self.group}"))

    @property
    def options(self) -> Any:
        """The validated options."""
        return self.plugin.Options.model_validate(dict(self.table))

    def elsewhere(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function with the plugin and JSON values in another process; see ``in_another_process``.

        A plugin that is no module of a file cannot be imported there: the check is skipped.
        """
        if isinstance(self.source, str):
            return in_another_process(function, (self.group, self.source), arguments)
        module = self.plugin
        if not isinstance(module, ModuleType) or not module.__file__ or module.__name__ == "__main__":
            raise Skip("the plugin is no module of a file, and this check is for these")
        return in_another_process(function, ("", module.__name__), arguments)


@dataclass(frozen=True)
class Checks:
    """The checks of one kind of plugin."""

    subject: type[Subject]
    steps: tuple[Check, ...]  # each needs those before it
    others: tuple[Check, ...]  # each needs all steps


def expect(holds: bool, expected: str, actual: object) -> None:
    """Raise a failure unless something holds."""
    if not holds:
        raise Failure(expected, actual)


def expect_close(found: Any, wanted: Any, expected: str, tolerance: float) -> None:
    """Raise a failure unless two arrays are of one form and within the tolerance, absolute and relative to wanted."""
    import numpy as np

    form, right = (
        f"{type(one).__name__} of {getattr(one, 'dtype', '')} {getattr(one, 'shape', '')}" for one in (found, wanted)
    )
    expect(form == right, f"{expected}: {right}", form)
    close = bool(np.allclose(found, wanted, rtol=tolerance, atol=tolerance))
    expect(close, expected, f"{np.abs(found - wanted).max(initial=0):.2g} of difference, more than {tolerance:g}")


def run_checks(checks: Checks, subject: Subject) -> Iterator[CheckOutcome]:
    """Run checks in order; after a step that has failed the others are skipped."""
    failed = ""
    for check in (*checks.steps, *checks.others):
        name = check.__name__.replace("_", " ")
        if failed:
            yield CheckOutcome(name, "skipped", f"it needs what has not passed: {failed}")
            continue
        result, detail = _result(check, subject)
        if result == "failed" and check in checks.steps:
            failed = name
        see = f"; see docs/plugins.md, {subject.group.capitalize()}" if result == "failed" else ""
        yield CheckOutcome(name, result, detail + see)


def _result(check: Check, subject: Subject) -> tuple[Result, str]:
    try:
        return "passed", check(subject)
    except Skip as reason:
        return "skipped", str(reason)
    except Failure as reason:
        return "failed", str(reason)
    except KdError as error:
        actual = in_one_line(error)
    except (Exception, SystemExit) as error:  # whatever a plugin may do
        file, row = subject.known.place(error)
        actual = f"{shown(error)} ({file}, line {row})" if row else shown(error)
    return "failed", f"expected no error; came {actual}"


def in_one_line(*errors: KdError) -> str:
    """Join errors, each with its hint."""
    every = [one for error in errors for one in each(error)]
    return "; ".join(f"{one} ({one.hint})" if one.hint else str(one) for one in every)


@dataclass(frozen=True)
class Run:
    """A finished command: its exit code, its result, and its progress, warnings and errors."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The result of a command with ``--json``."""
        return json.loads(self.stdout)


def run_cli(*arguments: object, cwd: str | Path | None = None) -> Run:
    """Run ``kd`` with these arguments, in a process of its own with this one's environment, in the folder ``cwd``."""
    return run_python("-m", "kdcli", *map(str, arguments), cwd=cwd)


def run_python(*arguments: str, cwd: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Run:
    """Run this Python on a command line, with this process's modules and these variables beside its own."""
    # A plugin may be importable here only because somebody has added its folder to sys.path. With -P the current folder
    # is not added: a random.py there must not replace Python's.
    path = os.pathsep.join(dict.fromkeys(str(Path(entry).absolute()) for entry in sys.path))
    env = {**os.environ, "PYTHONPATH": path, **(environ or {})}
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "encoding": "utf-8", "errors": "replace", "check": False}
    done = subprocess.run([sys.executable, "-P", *arguments], cwd=cwd, env=env, capture_output=True, **how)
    return Run(done.returncode, done.stdout, done.stderr)


def in_another_process(function: Callable[..., Any], address: tuple[str, str], arguments: Sequence[Any]) -> Any:
    """Call a function of a module with a plugin and JSON values in another process, where a set has another order.

    ``address`` is the plugin's group and name, or an empty text and its module. The result is JSON values too.
    """
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    main = "from kdcli.testing.checks import answer; answer()"
    call = json.dumps([function.__module__, function.__name__, *address, *arguments])
    done = run_python("-c", main, call, environ={"PYTHONHASHSEED": seed})
    if done.code:
        last = (done.stderr.strip() or f"exit code {done.code}").splitlines()[-1]
        raise PluginError(f"the plugin does not work in another process: {last}")
    return json.loads(done.stdout.splitlines()[-1])  # behind what the plugin prints


def answer() -> None:
    """Make the call that the command line describes, and print its result as JSON."""
    module, function, group, name, *arguments = json.loads(sys.argv[1])
    # Without the contract's check: another check reports what breaks it.
    plugin = registry.find(group, name).source.load() if group else importlib.import_module(name)
    found = getattr(importlib.import_module(module), function)(plugin, *arguments)
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def loads(subject: Subject) -> str:
    """Import the plugin as ``kd`` does when it is chosen, and look for what it must hold."""
    if isinstance(subject.source, str):
        subject.plugin = subject.known.load()
        return f"{subject.known.full_name} {subject.known.version}, {subject.known.module}"
    subject.plugin = subject.source
    found = faults(subject.group, subject.plugin)
    expect(not found, "a plugin with all that its contract names", f"one that {', and '.join(found)}")
    return "a module or an object"


def options(subject: Subject) -> str:
    """Validate the options of this check, and look for a description of each option."""
    from pydantic import ValidationError

    from kdcli.config.table import explain

    model = subject.plugin.Options
    try:
        model.model_validate(dict(subject.table))
    except ValidationError as error:
        errors = in_one_line(*explain(error, model))
        raise Failure("options that are valid (--set key=value, or options={...})", errors) from None
    if silent := [name for name, field in model.model_fields.items() if not (field.description or "").strip()]:
        expected = "a description of each option: a docstring below it and use_attribute_docstrings=True, or Field(...)"
        raise Failure(expected, f"none of {', '.join(silent)}")
    return ", ".join(f"{name} = {value!r}" for name, value in subject.table.items()) or "the defaults"


def cheap_import(subject: Subject) -> str:
    """Import the module in another process, and list the heavy libraries that came with it."""
    heavy = ", ".join(subject.elsewhere(heavy_modules))
    expect(not heavy, "an import that costs next to nothing", f"{heavy} too: import that inside the functions")
    return "no torch, no other heavy library"


def heavy_modules(plugin: Any) -> list[str]:
    """Return the heavy libraries that this process has imported."""
    return sorted(set(sys.modules) & set(HEAVY))
