"""What the JSON files in a student's folder must hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from kdcli.api import Task
from kdcli.config.table import metrics_of
from kdcli.errors import DataError

Schema = TypeVar("Schema", bound=BaseModel)
REMAKE = "name the folder that `kd student` has written, or have it written again"


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
