"""Which texts the teacher labels, of more than a plan takes: a random part, then those of which a student is unsure.

A quarter is labelled at random. A short student learns from it and reads fresh texts; the next quarter is drawn among
these in proportion to the entropy of its answers (Luccioli et al. 2025, arXiv 2511.11574, section III). Another one
learns from both quarters, and the rest is drawn. ``benchmarks/budget.py`` compares that with a random choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import log_softmax
from tokenizers import Tokenizer

from kdcli.api import Reporter, Task
from kdcli.config.schema import Settings, StudentSettings
from kdcli.files import atomic
from kdcli.models.device import resolve
from kdcli.run.folder import artefact
from kdcli.student.dataset import Examples, encode_table, make_words
from kdcli.student.student import load_student
from kdcli.student.train import train_student
from kdcli.student.vectors import Vectors
from kdcli.student.vocabulary import vocabulary
from kdcli.tasks.answers import answers, as_classes
from kdcli.tasks.split import task_from
from kdcli.teacher.export import export_logits
from kdcli.teacher.logits import read_logits
from kdcli.teacher.model import TeacherSource

POOL = "texts/pool.parquet"
"""The texts to choose from, in a run folder: those that a random draw would take to learn from, then all others."""
VECTORS = "texts/vectors.parquet"
"""The word vectors that a choice makes of the teacher, and that the student begins with."""
LARGER = 5
"""How many times as many texts as the plan takes are read to choose from, at the most."""
_SHARES = (0.25, 0.5, 1.0)
"""The shares of the texts that are chosen after the first, random draw, and after each further one."""
_CANDIDATES = 8
"""Texts that a student reads for each one that is drawn."""
_PASSES, _LEAST_PASSES, _ROWS = 10, 2, 20_000
"""How long a short student learns: about so many rows, in so many passes at the most and at the least."""
_BATCH, _FEW = 32, 64
_SMALL = {"hidden": 50, "fc": 100, "dropout": 0.5}
"""A small student: its choice has to cost less than what it saves."""
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

    ``read`` trains a student on the rows chosen so far, and returns its logits of other rows, ``[others, outputs]``;
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


@dataclass(frozen=True)
class ShortStudent:
    """A small student that trains for a short time, and only chooses."""

    task: Task
    tokenizer: Tokenizer
    vectors: Vectors | None
    settings: StudentSettings
    seed: int

    def read(self, texts: pl.DataFrame, logits: Logits, others: pl.DataFrame) -> Logits:
        """Learn from texts and the teacher's logits of them, and return the logits of others."""
        encoded, few = (
            encode_table(some, self.tokenizer, self.task, self.settings.max_length).texts
            for some in (texts, texts.head(_FEW))
        )
        labels = answers(logits, self.task)
        passes = int(np.clip(_ROWS // len(logits), _LEAST_PASSES, _PASSES))
        last = passes * -(-len(logits) // _BATCH)  # the only evaluation, so its last weights are kept
        short = {"model": "bilstm", "batch_size": _BATCH, "epochs": passes, "eval_steps": last, "max_steps": 0}
        with TemporaryDirectory() as folder:
            train_student(
                examples=Examples(encoded, logits, labels),
                dev=Examples(few, labels=labels[:_FEW]),
                tokenizer=self.tokenizer,
                vectors=self.vectors,
                task=self.task,
                settings=self.settings.model_copy(update={**short, "repr_weight": 0.0}),
                options={**_SMALL, "embeddings": "static" if self.vectors else "non-static"},
                seed=self.seed,
                output=Path(folder) / "student",
                gold=False,
            )
            student = load_student(Path(folder) / "student")
        return student.logits([others[name].to_list() for name in self.task.columns])


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
    student = ShortStudent(task, *_words(texts, settings, root, reporter), settings.student, settings.seed)

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
        return student.read(labelled.filter(there), logits[there], texts[fresh])

    rows = in_rounds(np.arange(len(pool)), count, read, partial(by_entropy, task=task), settings.seed)
    with atomic(root / "texts/train.parquet") as temporary:
        pool[np.sort(rows)].write_parquet(temporary)


def _words(texts: pl.DataFrame, settings: Settings, root: Path, reporter: Reporter) -> tuple[Tokenizer, Vectors | None]:
    """Return the vocabulary of all texts, and its vectors; those made of the teacher are kept for the student."""
    made, source = root / VECTORS, settings.vectors_source
    first = source == str(made) and not made.exists()
    tokenizer, vectors = make_words(
        texts.get_columns(),
        settings.student,
        settings.teacher.model if first else source,
        seed=settings.seed,
        device=resolve(settings.device),
        reporter=reporter,
    )
    if vectors and first:
        with atomic(made) as temporary:
            pl.DataFrame({"word": vocabulary(tokenizer), "vector": vectors.matrix}).write_parquet(temporary)
    return tokenizer, vectors
