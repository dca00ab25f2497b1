"""The task of a profile, and how tables are read for a model of a task."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from kdcli.api import Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, UsageError

_WITHOUT_PROFILE = ("text_columns", "label_column", "layout", "bad_rows")
"""The settings that a command takes without a profile."""


def task_from(settings: TaskSettings) -> Task:
    """Make the task that a profile's table ``[task]`` describes."""
    return Task(
        name=settings.name,
        kind=settings.kind,
        labels=settings.labels,
        names=settings.names,
        score_range=settings.score_range,
        metric=settings.metric,
        more_metrics=settings.more_metrics,
    )


def settings_of(task: Task) -> TaskSettings:
    """Return settings that read tables of a task in any known layout; the inverse of ``task_from``."""
    return TaskSettings(**asdict(task))


def table_settings(task: Task, asked: TaskSettings, place: str | Path, *, profiled: bool) -> TaskSettings:
    """Return how to read a table for a model: as the profile says, else as the model's own task does.

    Args:
        task: The model's task.
        asked: The settings of the command.
        place: Where the model lies, for messages.
        profiled: Whether a profile describes the task.

    Raises:
        DataError: The model is one of another task than the profile's.
        UsageError: The task has another number of text columns.
    """
    if profiled:
        check_task(task, task_from(asked), place)
        return asked
    if len(asked.text_columns) not in (0, len(task.columns)):
        needs = "--text-col alone" if task.kind == "single" else "--text-col and --text2-col"
        raise UsageError(f"the model's task {task.name} has {_texts(task)}", hint=f"it takes {needs}")
    return settings_of(task).model_copy(update={name: getattr(asked, name) for name in _WITHOUT_PROFILE})


def check_task(found: Task, wanted: Task, place: str | Path) -> None:
    """Check that a model reads as many texts as a task, and has its labels."""
    if (found.kind, found.labels) != (wanted.kind, wanted.labels):
        what = f"the model is one of task {found.name} ({_shown(found)}), not of {wanted.name} ({_shown(wanted)})"
        raise DataError(what, file=place, hint="name a model of this task, or the profile of that one")


def _shown(task: Task) -> str:
    return f"{_texts(task)}, {'labels ' + ', '.join(task.labels) if task.labels else 'a score'}"


def _texts(task: Task) -> str:
    return "single texts" if task.kind == "single" else "pairs of texts"
