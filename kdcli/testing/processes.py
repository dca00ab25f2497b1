"""``kd`` and Python in processes of their own."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli import registry
from kdcli.api import PluginError

HEAVY = (
    *("jax", "nltk", "onnx", "onnxruntime", "pandas", "polars", "pyarrow", "scipy", "sklearn", "tensorflow"),
    *("textblob", "torch", "transformers"),
)
"""Libraries that take long to import; a plugin imports them inside its functions."""


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
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def in_another_process(function: Callable[..., Any], address: tuple[str, str], arguments: Sequence[Any]) -> Any:
    """Call a function of a module with a plugin and JSON values in another process, where a set has another order.

    ``address`` is the plugin's group and name, or an empty text and its module. The result is JSON values too.
    """
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    main = "from kdcli.testing.processes import answer; answer()"
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
