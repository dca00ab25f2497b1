"""What it takes to load a student: its folder from the Hub, its JSON files, its plugin, and the model in NumPy."""

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from kdcli import registry
from kdcli.api import Task
from kdcli.config.table import metrics_of
from kdcli.errors import DataError, MissingError, PluginError, first_line
from kdcli.student.vocabulary import Compute

Schema = TypeVar("Schema", bound=BaseModel)
REMAKE = "name a run, or the folder of its student; `kd distil`, `kd run-all` and `kd student` write it"


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON file of a student's folder; a missing or broken one is a ``DataError``."""
    try:
        content = json.loads((folder / name).read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{name} holds no object")
    except (OSError, ValueError) as error:
        raise DataError(f"this is not a folder of a student: {error}", file=folder / name, hint=REMAKE) from error
    return content


def _possible(task: Task) -> Task:
    labels, limits = task.labels, task.score_range
    for what, wrong in {
        "a task has several different labels, or none for a score": len(labels) == 1 or len(set(labels)) < len(labels),
        "there are not as many names as labels": task.names and len(task.names) != len(labels),
        "a score_range is the lowest and the highest score": limits and not limits[0] < limits[1],
        "positive is one of two labels": task.positive and (task.positive not in labels or len(labels) > 2),
        "a metric is none of such a task": not {task.metric, *task.more_metrics}
        <= set(metrics_of(bool(labels), task.multi_label)),
        "a task with thresholds has one from 0 to 1 for each label": task.thresholds
        and not (
            len(task.thresholds) == len(labels) * task.multi_label and all(0 < one < 1 for one in task.thresholds)
        ),
    }.items():
        if wrong:
            raise ValueError(what)
    return task


PossibleTask = Annotated[Task, AfterValidator(_possible)]
"""A task that a model can have; another one is a ``ValueError`` of Pydantic's."""
_Size = Annotated[int, Field(strict=True, ge=1)]


class Config(BaseModel, extra="allow"):
    """What ``config.json`` must hold."""

    task: PossibleTask
    plugin: str
    options: dict[str, Any]
    vocabulary_size: _Size
    dimension: _Size
    max_length: _Size
    plugin_version: dict[str, str] = {}
    vectors: str | None = None
    training: dict[str, Any] = {}


class Metrics(BaseModel, extra="allow"):
    """What ``metrics.json`` must hold."""

    dev: dict[str, Annotated[float, Field(strict=True)]]
    history: list[dict[str, float]] = []


def checked(schema: type[Schema], content: Mapping[str, Any], file: Path) -> Schema:
    """Check a JSON file; an error names the first key that is wrong."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ").lower()
        what = "this is missing" if first["type"] == "missing" else f"{message}, and it is {first['input']!r:.80}"
        raise DataError(what, file=file, key=".".join(map(str, first["loc"])), hint=REMAKE) from error


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
