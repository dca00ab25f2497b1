"""How the tables are read that a model is given: as a profile says, else as the model's own task does."""

from __future__ import annotations

from pathlib import Path

from kdcli.api import Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, UsageError
from kdcli.tasks.task import settings_of, task_from

HOW = ("text_columns", "label_column", "layout", "bad_rows")
"""The settings that are asked for without a profile."""


def reading(task: Task, asked: TaskSettings, place: str | Path, *, profiled: bool) -> TaskSettings:
    """Return how to read a table for a model.

    Args:
        task: The model's task.
        asked: The settings of the command.
        place: Where the model lies, for messages.
        profiled: Whether a profile says what the task is; else the settings hold no more than ``HOW``.

    Raises:
        DataError: The model is one of another task than the profile's.
        UsageError: The task has another number of text columns.
    """
    if profiled:
        check_task(task, task_from(asked), place)
        return asked
    if len(asked.text_columns) not in (0, len(task.columns)):
        needs = "--text-col alone" if task.kind == "single" else "--text-col and --text2-col"
        raise UsageError(f"the model's task {task.name} is one of {_texts(task)}", hint=f"it takes {needs}")
    return settings_of(task).model_copy(update={name: getattr(asked, name) for name in HOW})


def check_task(found: Task, wanted: Task, place: str | Path) -> None:
    """Refuse a model of another task.

    Raises:
        DataError: It reads another number of texts, or has other labels.
    """
    plain = [(one.kind, one.labels) for one in (found, wanted)]
    if plain[0] != plain[1]:
        what = f"the model is one of task {found.name} ({_shown(found)}), not of {wanted.name} ({_shown(wanted)})"
        raise DataError(what, file=place, hint="name a model of this task, or the profile of that one")


def _shown(task: Task) -> str:
    return f"{_texts(task)}, {'labels ' + ', '.join(task.labels) if task.labels else 'a score'}"


def _texts(task: Task) -> str:
    return "single texts" if task.kind == "single" else "pairs of texts"
