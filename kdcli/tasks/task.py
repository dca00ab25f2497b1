"""The task of a profile."""

from __future__ import annotations

from kdcli.api import Task
from kdcli.profile.schema import TaskSettings


def task_from(settings: TaskSettings) -> Task:
    """Make the task that a profile's table ``[task]`` describes."""
    return Task(
        name=settings.name,
        kind=settings.kind,
        labels=settings.labels,
        names=settings.names,
        score_range=settings.score_range,
        metric=settings.metric,
    )
