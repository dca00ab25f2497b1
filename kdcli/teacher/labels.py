"""Whose column is whose: names from elsewhere against the labels of the task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdcli.api import Reporter, Task
from kdcli.errors import DataError


def positions(found: Sequence[str], task: Task) -> list[int] | None:
    """Return for each label of the task where it stands in ``found``; None where not all of them do, once each.

    They may be the labels themselves or their readable names; case, ``_`` and ``-`` make no difference.
    """
    plain = [_plain(name) for name in found]
    for names in (task.labels, task.names):
        wanted = [_plain(name) for name in names]
        if wanted and len(set(wanted)) == len(wanted) and all(plain.count(name) == 1 for name in wanted):
            return [plain.index(name) for name in wanted]
    return None


def output_positions(config: Any, task: Task, *, file: Path, reporter: Reporter) -> list[int]:
    """Return which output of a fine-tuned model stands for each label of the task, in the task's order.

    Args:
        config: The model's Hugging Face configuration.
        task: The task.
        file: The model's folder, for errors.
        reporter: Told of every order that is not the task's own or is a guess.

    Raises:
        DataError: The model has another number of outputs, or other label names.
    """
    if config.num_labels != task.outputs:
        what = f"the teacher has {config.num_labels} outputs, and the task needs {task.outputs}"
        kind = "a score" if task.is_score else f"labels {', '.join(task.labels)}"
        raise DataError(what, file=file, hint=f"this task has {kind}; take a teacher fine-tuned for it")
    if task.is_score:
        return [0]
    found = [str(config.id2label[number]) for number in range(config.num_labels)]
    order = positions(found, task)
    if order is None and all(re.fullmatch(rf"(LABEL_)?{number}", name) for number, name in enumerate(found)):
        pairs = ", ".join(f"{name} as {label}" for name, label in zip(found, _shown(task), strict=True))
        reporter.warn(f"the teacher does not name its labels, so they are taken in the order of the task: {pairs}")
        return list(range(task.outputs))
    if order is None:
        hint = f"its config.json has {', '.join(found)}; set task.labels or task.names to these, or mend id2label there"
        raise DataError(f"the teacher's labels are not the task's ({', '.join(_shown(task))})", file=file, hint=hint)
    if order != sorted(order):
        reporter.warn(
            f"the teacher has its labels in another order ({', '.join(found)}): "
            f"its outputs are put in the order of the task ({', '.join(_shown(task))})"
        )
    return order


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _shown(task: Task) -> list[str]:
    if not task.names:
        return list(task.labels)
    return [f"{label} = {name}" for label, name in zip(task.labels, task.names, strict=True)]
