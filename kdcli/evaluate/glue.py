"""GLUE's submission files (Wang et al. 2019; the names, headers and labels are those of gluebenchmark.com)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, UsageError
from kdcli.evaluate.predict import PredictResult, predict_file
from kdcli.evaluate.predictions import Model
from kdcli.parts.parts import ALONE, Shard
from kdcli.tasks.split import needed_files, table_name

_NUMBERS = ("0", "1")
_ENTAILED = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class _Submission:
    """What GLUE wants of a task: a file for each test table, and the labels in it (none: a score)."""

    labels: tuple[str, ...]
    files: Mapping[str, str]


SUBMISSIONS = {
    "cola": _Submission(_NUMBERS, {"test": "CoLA.tsv"}),
    "sst2": _Submission(_NUMBERS, {"test": "SST-2.tsv"}),
    "mrpc": _Submission(_NUMBERS, {"test": "MRPC.tsv"}),
    "stsb": _Submission((), {"test": "STS-B.tsv"}),
    "qqp": _Submission(_NUMBERS, {"test": "QQP.tsv"}),
    "mnli": _Submission(_NLI, {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"}),
    "qnli": _Submission(_ENTAILED, {"test": "QNLI.tsv"}),
    "rte": _Submission(_ENTAILED, {"test": "RTE.tsv"}),
    "wnli": _Submission(_NUMBERS, {"test": "WNLI.tsv"}),
    "ax": _Submission(_NLI, {"test": "AX.tsv"}),
}
"""By the name of the task."""


def submission_files(settings: TaskSettings, folder: Path) -> dict[Path, Path]:
    """Return the files to submit for a task, each with its test table.

    Args:
        settings: The task, and where its tables lie.
        folder: Where the files are to lie.

    Raises:
        UsageError: GLUE has no such task.
        DataError: There is no test table, or one that GLUE has not.
    """
    if settings.name not in SUBMISSIONS:
        hint = f"it has {', '.join(SUBMISSIONS)}; --output writes the predictions of any task"
        raise UsageError(f"GLUE has no task {settings.name!r}", key="task.name", hint=hint)
    names = SUBMISSIONS[settings.name].files
    files = {}
    for table in needed_files(settings, "test"):
        name = table_name(table, "test")
        if name not in names:
            what = f"GLUE's test tables of {settings.name} are {' and '.join(names)}"
            raise DataError(what, file=table, hint="name them so, or write the predictions with --output")
        files[folder / names[name]] = table
    return files


def predict_glue(
    model: Model,
    settings: TaskSettings,
    folder: Path,
    *,
    origin: Mapping[str, Any],
    shard: Shard = ALONE,
    resume: bool = True,
    reporter: Reporter | None = None,
) -> list[PredictResult]:
    """Write GLUE's submission files for the test tables of a task, in the rows' own numbers.

    Args:
        model: A student or a teacher of the task.
        settings: The task, and where its tables lie.
        folder: Where the files go, under GLUE's names.
        origin: As for ``predict_file``.
        shard: This process's share of the parts.
        resume: Go on with what a killed run left.
        reporter: Shows the progress.

    Returns:
        The files that were written, those aside that other shards are still at work on.

    Raises:
        UsageError: GLUE has no such task.
        DataError: There is no test table, or the model's labels are none of GLUE's.
    """
    files = submission_files(settings, folder)
    spelled = _Spelled(model, as_glue(model.task, settings.name))
    results = [
        predict_file(
            spelled,
            table,
            file,
            settings,
            origin=origin,
            shard=shard,
            resume=resume,
            reporter=reporter or QuietReporter(),
        )
        for file, table in files.items()
    ]
    return [result for result in results if result is not None]


def as_glue(task: Task, name: str) -> Task:
    """Return a task with its labels as GLUE writes those of ``name``: as they are, or by their readable names.

    Raises:
        DataError: They are none of GLUE's.
    """
    wanted = SUBMISSIONS[name].labels
    for spelling in (task.labels, task.names):
        if set(spelling) == set(wanted) and task.is_score == (not wanted):
            return replace(task, labels=spelling)
    what = f"the model's task {task.name} has {_listed(task.labels)}, and GLUE's {name} has {_listed(wanted)}"
    raise DataError(what, hint="name a model of this task")


def _listed(labels: Sequence[str]) -> str:
    return f"the labels {', '.join(labels)}" if labels else "scores"


@dataclass(frozen=True)
class _Spelled:
    """A model whose labels are written in another way."""

    model: Model
    task: Task

    def logits(self, columns: Sequence[Sequence[str]]) -> np.ndarray:
        return self.model.logits(columns)
