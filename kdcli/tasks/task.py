"""The task of a profile, and back."""

from __future__ import annotations

from dataclasses import asdict

from kdcli.api import Task
from kdcli.config.schema import TaskSettings


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
    """Return settings that read tables of a task in any layout that is known; the inverse of ``task_from``."""
    return TaskSettings(**asdict(task))
