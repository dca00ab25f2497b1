"""How a table of the user's own is read where no profile says it."""

from __future__ import annotations

from collections.abc import Sequence

from kdcli.api import Task
from kdcli.errors import UsageError
from kdcli.profile.schema import TaskSettings
from kdcli.tasks.task import settings_of


def reading(task: Task, text_columns: Sequence[str] = (), label_column: str = "") -> TaskSettings:
    """Return how to read a table of a model's task: in any layout that is known, or in the columns asked for.

    Raises:
        UsageError: The task has another number of text columns.
    """
    if len(text_columns) not in (0, len(task.columns)):
        needs = "--text-col alone" if task.kind == "single" else "--text-col and --text2-col"
        raise UsageError(f"the student's task is one of {task.kind} texts", hint=f"it takes {needs}")
    asked = {"text_columns": tuple(text_columns), "label_column": label_column}
    return settings_of(task).model_copy(update=asked)
