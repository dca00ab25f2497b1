"""``kd`` and Python in processes of their own, which find the modules that this one finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """What a command left.

    Attributes:
        code: Its exit code.
        stdout: What it printed as its result.
        stderr: Its progress, warnings and errors.
    """

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What a command with ``--json`` has printed."""
        return json.loads(self.stdout)


def run_cli(*arguments: object, cwd: str | Path | None = None) -> Run:
    """Run ``kd`` as on the command line, in a process of its own that gets this one's environment.

    Args:
        arguments: The command line after ``kd``; each is turned into a text.
        cwd: The folder to run in; by default the current one.
    """
    return run_python("-m", "kdcli", *map(str, arguments), cwd=cwd)


def run_python(*arguments: str, cwd: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Run:
    """Run this Python on ``arguments``.

    Args:
        arguments: The command line after ``python``.
        cwd: The folder to run in; by default the current one.
        environ: Variables beside those of this process.
    """
    # A plugin may be importable here only because somebody has added its folder to sys.path. Nothing else is: -P, or
    # else a random.py of the current folder would stand in for Python's.
    path = os.pathsep.join(dict.fromkeys(str(Path(entry).absolute()) for entry in sys.path))
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)
