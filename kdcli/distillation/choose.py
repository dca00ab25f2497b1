"""Which texts the teacher labels, of more than a plan takes: a random part, then those of which a model is unsure.

A quarter is labelled at random. A linear model of TF-IDF learns from it, which takes a second (a small model may choose
for a large one: Coleman et al. 2020, arXiv 1906.11829), and reads fresh texts; the next quarter is drawn among these in
proportion to the entropy of its answers (Luccioli et al. 2025, arXiv 2511.11574, section III). Another one learns from
both quarters, and the rest is drawn. ``benchmarks/budget.py`` compares that with a random choice.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import log_softmax

from kdcli.api import Reporter, Task
from kdcli.config.schema import Settings
from kdcli.evaluate.linear import fit_linear
from kdcli.files import atomic
from kdcli.models.device import resolve
from kdcli.run import artefact
from kdcli.tasks.answers import answers, as_classes
from kdcli.tasks.split import task_from
from kdcli.teacher.export import export_logits
from kdcli.teacher.logits import read_logits
from kdcli.teacher.model import TeacherSource

POOL = "texts/pool.parquet"
"""The texts to choose from, in a run folder: those that a random draw would take to learn from, then all others."""
LARGER = 5
"""How many times as many texts as the plan takes are read to choose from, at the most."""
_SHARES = (0.25, 0.5, 1.0)
"""The shares of the texts that are chosen after the first, random draw, and after each further one."""
_CANDIDATES = 8  # texts that a model reads for each one that is drawn
Rows = NDArray[np.int64]
Logits = NDArray[np.float32]


def in_rounds(
    order: Rows,
    count: int,
    read: Callable[[Rows, Rows], Logits],
    draw: Callable[[Logits, int, np.random.Generator], Rows],
    seed: int,
) -> Rows:
    """Choose ``count`` rows, the first quarter of them at random; ``order`` holds all rows in random order.

    ``read`` trains a model on the rows chosen so far, and returns its logits of other rows, ``[others, outputs]``;
    ``draw`` draws so many of these: returns their places in the logits.
    """
    draws = np.random.default_rng([seed, 1])
    rows = order[: int(_SHARES[0] * count)]
    for share in _SHARES[1:]:
        wanted = int(share * count) - len(rows)
        fresh = draws.permutation(np.setdiff1d(order, rows))[: _CANDIDATES * wanted]
        rows = np.concatenate([rows, fresh[draw(read(rows, fresh), wanted, draws)]])
    return rows


def by_entropy(logits: Logits, count: int, draws: np.random.Generator, task: Task) -> Rows:
    """Draw rows of ``logits [rows, task.outputs]`` in proportion to their entropy; of a multi-label task its sum."""
    logs = log_softmax(as_classes(logits.astype(np.float64), task), -1)
    entropy = -(np.exp(logs) * logs).reshape(len(logits), -1).sum(1)
    keys = draws.exponential(size=len(entropy)) / np.maximum(entropy, 1e-9)  # Efraimidis, Spirakis 2006
    return np.argsort(keys, kind="stable")[:count]


def read_others(
    columns: Sequence[Sequence[str]], logits: Logits, others: Sequence[Sequence[str]], task: Task
) -> Logits:
    """Learn from the texts of ``columns`` and the teacher's logits of them, and return the logits of others."""
    if model := fit_linear(columns, answers(logits, task), task):
        return model.logits(others)
    return np.zeros((len(others[0]), task.outputs), np.float32)  # nothing was learned: one is like another


def choose_texts(root: Path, settings: Settings, count: int, reporter: Reporter) -> None:
    """Choose the texts to learn from in a run folder: write ``texts/train.parquet`` from ``POOL``.

    The teacher's answers are kept in the artefact ``known``: a killed choice goes on with them and ends with the same
    texts, and the stage that exports the logits takes them from there.
    """
    task, known, device = task_from(settings.task), artefact(root, "known"), resolve(settings.device)
    how: dict[str, Any] = {"device": device, "precision": settings.export_precision}
    teacher = TeacherSource.of(settings, logits=artefact(root, "logits")).load(task, **how, reporter=reporter)
    pool = pl.read_parquet(root / POOL)
    texts, table = pool.select(task.columns), known.with_suffix(".parquet")

    def read(rows: Rows, fresh: Rows) -> Logits:
        labelled = texts[rows]
        if not known.exists() or (read_logits(known, task).rows(labelled.get_columns(), 0) < 0).any():
            labelled.write_parquet(table)
            represent, export = bool(settings.student.repr_weight), settings.teacher.export
            more: dict[str, Any] = {"represent": represent, "settings": export, "reporter": reporter, **how}
            export_logits(transfer=table, teacher=teacher, task=task, output=known, known=known, **more)
        found = read_logits(known, task)
        logits = found.logits[found.rows(labelled.get_columns(), 0)]
        there = ~found.unanswered(logits)
        learned, others = (
            list(some.to_dict(as_series=False).values()) for some in (labelled.filter(there), texts[fresh])
        )
        return read_others(learned, logits[there], others, task)

    rows = in_rounds(np.arange(len(pool)), count, read, partial(by_entropy, task=task), settings.seed)
    with atomic(root / "texts/train.parquet") as temporary:
        pool[np.sort(rows)].write_parquet(temporary)
