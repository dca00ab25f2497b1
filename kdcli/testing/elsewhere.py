"""A plugin in a process of its own: what it imports, and whether it says there what it says here.

Python gives texts other hashes in each process, so a plugin that goes through a set has another order there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from kdcli.testing.outcomes import Failure
from kdcli.testing.process import run_python

HEAVY = (
    *("jax", "nltk", "onnx", "onnxruntime", "pandas", "pyarrow", "scipy", "sklearn", "tensorflow", "textblob"),
    *("torch", "transformers"),
)
"""What takes long to import; a plugin does so inside its functions."""
_MAIN = "from kdcli.testing.elsewhere import answer; answer()"


def elsewhere(task: str, *arguments: str) -> Any:
    """Do a task of this module in another process.

    Args:
        task: ``imports``, ``samples``, ``fast`` or ``tags``.
        arguments: The plugin's address, then what the task takes.

    Returns:
        What it returned there.

    Raises:
        Failure: It broke down there.
    """
    # Without a seed of its own this process has a random one.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = run_python("-c", _MAIN, task, *arguments, environ={"PYTHONHASHSEED": seed})
    if done.code:
        last = (done.stderr.strip() or f"exit code {done.code}").splitlines()[-1]
        raise Failure("a plugin that works in another process too", last)
    printed, _, answered = done.stdout.removesuffix("\n").rpartition("\n")
    sys.stdout.write(printed)
    return json.loads(answered)


def imports(group: str, name: str) -> list[str]:
    """Return which heavy libraries the plugin imports."""
    before = set(sys.modules)
    _plugin(group, name)
    return sorted((set(sys.modules) - before) & set(HEAVY))


def samples(group: str, name: str, folder: str, table: str, starts: str, part: str) -> list[str]:
    """Return the texts of a part."""
    from kdcli.api import Part, QuietReporter
    from kdcli.testing.generator_checks import settings_of

    plugin = _plugin(group, name)
    settings = settings_of(plugin.Options.model_validate(json.loads(table)), "single")
    sampler = plugin.load(Path(folder), settings, QuietReporter())
    texts: list[str] = sampler.sample(json.loads(starts), Part(*json.loads(part))).texts
    return texts


def fast(group: str, name: str, file: str, table: str) -> bool:
    """Return whether a student that predicts by ``fast`` has imported torch."""
    import numpy as np
    from safetensors.numpy import load_file

    from kdcli.testing.tiny import tiny_task

    plugin = _plugin(group, name)
    compute = plugin.fast(plugin.Options.model_validate(json.loads(table)), tiny_task(), load_file(file))
    compute((np.array([[1, 2, 0]]),), (np.array([2]),))
    return "torch" in sys.modules


def tags(group: str, name: str, texts: str) -> list[list[str]]:
    """Return the tags of texts."""
    found: list[list[str]] = _plugin(group, name).tag(json.loads(texts))
    return found


def _plugin(group: str, name: str) -> Any:
    if group == "module":
        return import_module(name)
    from kdcli import registry

    # Not by registry.load: what else is wrong with it is told by another check.
    return registry.find(cast(registry.Group, group), name).source.load()


def answer() -> None:
    """Do what the command line says, and print what came of it."""
    tasks: dict[str, Callable[..., Any]] = {"imports": imports, "samples": samples, "fast": fast, "tags": tags}
    found = tasks[sys.argv[1]](*sys.argv[2:])
    sys.stdout.write("\n" + json.dumps(found) + "\n")
