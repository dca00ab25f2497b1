"""What it takes to load a student: its folder from the Hub, its plugin, and the plugin's model in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kdcli import registry
from kdcli.api import Task
from kdcli.errors import MissingError, PluginError, first_line
from kdcli.student.vocabulary import Compute


def numpy_form(config: Mapping[str, Any], task: Task, weights: Mapping[str, NDArray[Any]]) -> Compute:
    """Return the plugin's NumPy form; weights that do not fit are a ``LookupError`` or a ``ValueError``."""
    name = config["plugin"]
    options, plugin = registry.options("students", name, config["options"]), cast(Any, registry.load("students", name))
    texts, size = len(task.columns), config["vocabulary_size"]

    def shape_at(word: int) -> tuple[int, ...]:
        return compute((np.array([[word]]),) * texts, (np.ones(1, np.int64),) * texts).shape

    with registry.blaming("students", name, "fast", but=(LookupError, ValueError)):
        # Matrix products of some processors flag an invalid value in the room that they pad a matrix with.
        compute: Compute = np.errstate(invalid="ignore")(plugin.fast(options, task, weights))
        # The last word of the vocabulary, and one beyond it: weights of another student show at once.
        found = shape_at(size - 1)
        if found != (1, task.outputs):
            raise ValueError(f"they give logits of shape {found}, and the task has {task.outputs}")
        with suppress(IndexError):
            shape_at(size)
            raise ValueError(f"they have vectors of more words than the {size} of the vocabulary")
    return registry.blaming("students", name, "fast")(compute)


def check_plugin(config: Mapping[str, Any], folder: Path) -> None:
    """Check that the plugin is there; warn if its file has changed since the student was trained."""
    distribution, version = next(iter(config.get("plugin_version", {}).items()), ("", ""))
    try:
        registry.find("students", config["plugin"])
    except PluginError as error:
        hint = error.hint
        if distribution.endswith(".py"):
            hint = f"the student was made with --code {distribution}: add that, with the file's path; "
            hint += f'in Python, load_student(folder, code="{distribution}"), or set KD_CODE'
        elif distribution and not any(metadata.distributions(name=distribution)):
            hint = f"the student was made with {distribution} {version}: pip install {distribution}"
        raise PluginError(error.what, file=folder / "config.json", hint=hint) from error
    now = registry.versions("students", config["plugin"]).get(distribution, version)
    if distribution.endswith(".py") and now != version:
        registry.warn(f"{distribution} has changed since the student in {folder} was trained: {version} -> {now}")


def fetch(name: str, revision: str | None = None) -> Path:
    """Return the folder of a student of the Hub: its newest revision, or without a network the one fetched last."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # no network, no such name, or one that needs a login
        what = f"{name} is no folder, and cannot be fetched from the Hub: {first_line(error)}"
        raise MissingError(what, hint="check the name; `hf auth login` for one that is private") from error
