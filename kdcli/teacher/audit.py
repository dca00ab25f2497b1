"""``kd teacher audit``: a teacher against gold labels on some texts, before it labels all the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError
from kdcli.models.device import halve_until_it_fits
from kdcli.tasks.labels import encode_labels
from kdcli.tasks.metrics import metric_title
from kdcli.tasks.statistics import Interval, LabelScore, count_words, evaluate
from kdcli.teacher.model import TeacherSource


@dataclass(frozen=True)
class AuditResult:
    """A teacher against gold labels."""

    rows: int  # of the sample
    unanswered: int  # rows that the teacher has left without an answer; the scores are those of the others
    metrics: dict[str, Interval]
    labels: list[LabelScore] | None  # None of a score
    confusion: list[list[int]] | None  # rows by label and answer, [gold][answer]; None of sets and scores


def draw(table: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    """Draw labelled rows at random, in the order of the table; a table without labels is a ``DataError``."""
    table = table.filter(pl.col("label").is_not_null())
    if not len(table):
        raise DataError("this table has no labels to compare with", hint="name their column with --label-col")
    return table[np.sort(np.random.Generator(np.random.Philox(seed)).permutation(len(table))[:rows])]


def audit(
    *,
    table: pl.DataFrame,
    teacher: TeacherSource,
    task: Task,
    seed: int,
    device: str = "cpu",
    precision: str = "fp32",
    reporter: Reporter | None = None,
) -> AuditResult:
    """Compare a teacher with the gold labels of a table, which holds ``task.columns`` and ``label``.

    Scores of the answered rows have 95 % intervals of a bootstrap, which ``seed`` draws.

    Raises:
        DataError: The teacher answers none of the texts.
    """
    reporter = reporter or QuietReporter()
    columns = [table[column].to_list() for column in task.columns]
    model = teacher.load(task, device=device, precision=precision, reporter=reporter)
    logits, _ = halve_until_it_fits(lambda size: model.logits(columns, size), 64, reporter=reporter, auto=True, hint="")
    there = np.isfinite(logits[:, 0])
    if not there.any():
        raise DataError(f"the teacher has answered none of {len(table)} texts", file=teacher.model)
    gold, logits = encode_labels(table["label"], task, file="the sample")[there], logits[there]
    found = evaluate(task, logits, gold, count_words(columns)[there], seed=seed)
    metrics = {metric_title(task, name): value for name, value in found.metrics.items()}
    return AuditResult(len(table), int((~there).sum()), metrics, found.labels, found.confusion)
