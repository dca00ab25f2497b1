"""GLUE's submission files: predictions of the test tables under the names, and with the labels, that GLUE wants."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, UsageError
from kdcli.evaluate.pair import Model
from kdcli.evaluate.predict import PredictResult, predict_file
from kdcli.files import write_json
from kdcli.parts import Loaded
from kdcli.tasks.glue import TASKS
from kdcli.tasks.split import needed_files, table_name

UNFINISHED = ".kd-glue.json"
"""The names of GLUE's files that a command has begun to write into this folder, until all are there."""


def submission_files(settings: TaskSettings, folder: Path) -> dict[Path, Path]:
    """Return the files that GLUE wants for a task, each with its test table."""
    if settings.name not in TASKS:
        hint = f"it has {', '.join(TASKS)}; --output writes the predictions of any task"
        raise UsageError(f"GLUE has no task {settings.name!r}", key="task.name", hint=hint)
    names = TASKS[settings.name].submission
    files = {}
    for table in needed_files(settings, "test"):
        name = table_name(table, "test")
        if name not in names:
            what = f"GLUE's test tables of {settings.name} are {' and '.join(names)}"
            raise DataError(what, file=table, hint="name them so, or write the predictions with --output")
        files[folder / names[name]] = table
    return files


def begun_files(folder: Path) -> list[Path]:
    """Return the files of GLUE that a command has begun to write here and not ended."""
    try:
        return [folder / str(name) for name in json.loads((folder / UNFINISHED).read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def predict_glue(model: Model | Loaded[Model], settings: TaskSettings, folder: Path, **how: Any) -> list[PredictResult]:
    """Write GLUE's submission files for a task's test tables, with their index; ``how`` is for ``predict_file``."""
    loaded = model if isinstance(model, Loaded) else Loaded(model, type(model), ())
    files = submission_files(settings, folder)
    task = glue_task(loaded.value.task, settings.name)
    spelled = Loaded[Model](_RenamedLabels(loaded, task), _RenamedLabels, (loaded, task), loaded.files)
    write_json(folder / UNFINISHED, [file.name for file in files])
    results = [predict_file(spelled, table, file, settings, **how) for file, table in files.items()]
    (folder / UNFINISHED).unlink()
    return results


def glue_task(task: Task, name: str) -> Task:
    """Return a task with its labels as GLUE writes those of ``name``: as they are, or by their readable names."""
    wanted = TASKS[name].labels
    for spelling in (task.labels, task.names):
        if set(spelling) == set(wanted) and task.is_score == (not wanted):
            return replace(task, labels=spelling)
    found, wants = (f"the labels {', '.join(labels)}" if labels else "scores" for labels in (task.labels, wanted))
    what = f"the model's task {task.name} has {found}, and GLUE's {name} has {wants}"
    raise DataError(what, hint="name a model of this task")


@dataclass(frozen=True)
class _RenamedLabels:
    model: Loaded[Model]
    task: Task
    answers_all = True  # GLUE takes a label for each row

    def logits(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        return self.model.value.logits(columns)
