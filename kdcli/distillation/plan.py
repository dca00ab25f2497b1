"""The plan of a distillation: how many texts, how many fabricated ones, how many updates, from the time there is.

Times are measured on the first texts: the teacher's of a text and of a word alone, the student's of a training row.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from kdcli import registry
from kdcli.api import Progress, QuietReporter, Reporter, Task
from kdcli.config.schema import Settings
from kdcli.distillation.derive import count_words
from kdcli.distillation.texts import FEWEST, held_out
from kdcli.errors import UsageError
from kdcli.student.dataset import Examples, encode_table
from kdcli.student.encoder_vectors import encoder_vectors
from kdcli.student.train import train_student
from kdcli.student.vocabulary import train_vocabulary
from kdcli.tasks.answers import answers
from kdcli.teacher.model import BATCH, Teacher

ENOUGH = 100_000
"""With fewer texts to learn from, rules fabricate more, up to about this number."""
_MOST_ITER = 20
"""The most fabricated texts for one of the user's (Tang et al. 2019, section 4.2)."""
_EPOCHS = 2.5
"""Passes over the labelled texts, at the least: beyond them more texts, fabricated ones too, bring more."""
_MOST_EPOCHS = 10
_LEAST = 64
"""The fewest texts to learn from, and the fewest updates, however little time there is."""
_LEAST_UPDATES = 20
_VECTORS, _LEAST_WORDS = 0.1, 2_000
"""The share of the time for the vectors of the vocabulary, and its fewest words."""
_WORDS_A_ROW = 2
"""Words beyond so many a row would take more time for their vectors than they are worth."""
_EVALUATIONS = 20
_BATCHES = 16
"""Updates by which the student's speed is measured."""
_START = 20.0
"""Seconds of a run that do not depend on the texts: imports, TF-IDF, the report."""
_MEASURED, _LEAST_MEASURED = 0.02, 2.0
"""The share of the time, and the fewest seconds, in which the teacher's speed is measured."""
_ROUNDS = 4
"""Groups of texts by which it is measured, from short ones to long ones."""
_WORDS = 320
_FEW = 16
_LEAST_FEW = 4
"""The fewest texts of a group."""


@dataclass(frozen=True)
class Speeds:
    """Seconds that a text takes the teacher, a word alone, and a training row the student."""

    text: float
    word: float
    row: float


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    texts: int  # the texts to take, those that are held out among them
    labelled: int  # the texts that the teacher labels at the most: these, and the fabricated ones
    n_iter: int  # fabricated texts for each text to learn from
    epochs: int  # passes over all of them
    updates: int  # the student's steps in all
    eval_steps: int  # steps between two evaluations
    words: int  # of the student's vocabulary, which is smaller where their vectors would take too long
    seconds: dict[str, float]  # what it will take, by what is done


def plan_all(
    texts: int,
    spent: float,
    speeds: Speeds | None,
    settings: Settings,
    n_iter: int | None = None,
    budget: int | None = None,
) -> Plan:
    """Plan without a limit of time: all texts, with ``n_iter`` fabricated ones each.

    Without ``n_iter`` there are some where the texts are few, as far as the ``budget`` of texts for the teacher allows.
    """
    train = texts - sum(held_out(texts))
    n_iter = min(_most_iter(texts, budget), ceil(ENOUGH / train) - 1) if n_iter is None else n_iter
    student, rows = settings.student, train * (1 + n_iter)
    updates = student.epochs * ceil(rows / student.batch_size)
    words = min(student.max_size, max(_LEAST_WORDS, _WORDS_A_ROW * rows))
    return _plan(texts, n_iter, student.epochs, updates, words, spent, speeds, settings)


def _plan(
    texts: int,
    n_iter: int,
    epochs: int,
    updates: int,
    words: int,
    spent: float,
    speeds: Speeds | None,
    settings: Settings,
) -> Plan:
    """Return the plan of these numbers, with what it takes; ``spent`` seconds have passed."""
    held, seconds = sum(held_out(texts)), {}
    labelled = texts + (texts - held) * n_iter
    if speeds:
        seconds = {
            "read and plan": spent,
            "teacher": (labelled + held) * speeds.text,
            "vectors": words * speeds.word,
            "student": updates * settings.student.batch_size * speeds.row,
            "rest": _START,
        }
    return Plan(texts, labelled, n_iter, epochs, updates, max(1, updates // _EVALUATIONS), words, seconds)


def _most_iter(texts: int, budget: int | None) -> int:
    """Return the most fabricated texts for one of the user's."""
    train = texts - sum(held_out(texts))
    return _MOST_ITER if budget is None else min(_MOST_ITER, max(0, budget - texts) // train)


def within_budget(budget: int, n_iter: int | None, settings: Settings) -> int:
    """Return the most texts that a teacher can label together with ``n_iter`` fabricated ones for each.

    Raises:
        UsageError: That is too few to distil with, or there are others to label: of a generator or a corpus.
    """
    if settings.transfer.methods != ("lite",):
        what = f"--budget does not limit the texts of transfer.method = {settings.transfer.method!r}"
        raise UsageError(what, hint="leave out --budget, or --set transfer.method=lite")
    each = 1 + (n_iter or 0)
    if budget < FEWEST * each:
        what = f"--budget is the number of texts that the teacher labels, {FEWEST * each} at least"
        raise UsageError(what, hint="hundreds make a student, thousands a good one")
    return budget // each


def most_texts(minutes: float, speeds: Speeds) -> int:
    """Return the most texts that a number of minutes may suffice for, so that no more are kept in memory."""
    return max(2 * _LEAST, int(60 * minutes / (speeds.text + speeds.row)))


def plan_minutes(
    minutes: float,
    spent: float,
    texts: int,
    speeds: Speeds,
    settings: Settings,
    n_iter: int | None = None,
    budget: int | None = None,
) -> Plan:
    """Plan for a number of minutes, of which some seconds are spent.

    The time that a labelled row takes is the teacher's pass and ``_EPOCHS`` of the student's. Where there is more time
    than all texts take, rules fabricate more (``n_iter`` for each text, if that is given), and at last there are more
    epochs.
    """
    made = n_iter or 0
    words, batch = settings.student.max_size, settings.student.batch_size
    if speeds.word:
        words = min(words, max(_LEAST_WORDS, int(_VECTORS * 60 * minutes / speeds.word)))
    row = speeds.text + _EPOCHS * speeds.row
    left = 60 * minutes - spent - _START - words * speeds.word

    def seconds(taken: int) -> float:
        """Return what so many texts take; those held out go through the teacher once, and again in the comparison."""
        held = sum(held_out(taken))
        return (taken - held) * (1 + made) * row + 2 * held * speeds.text

    least = min(texts, 2 * _LEAST)
    taken = least + max(0, bisect_right(range(least, texts + 1), left, key=seconds) - 1)
    held = sum(held_out(taken))
    train, left = taken - held, left - 2 * held * speeds.text
    if n_iter is None and taken == texts:
        made = min(_most_iter(texts, budget), max(0, int(left / (train * row)) - 1))
    rows = train * (1 + made)
    passes = min(_MOST_EPOCHS, (left - rows * speeds.text) / (rows * speeds.row))
    updates = max(_LEAST_UPDATES, int(passes * rows / batch))
    epochs = ceil(max(1.0, updates * batch / rows))
    return _plan(taken, made, epochs, updates, words, spent, speeds, settings)


def outlook(history: Sequence[Mapping[str, float]], metric: str, beyond: int) -> str:
    """Say what more time would bring: by how much the last third of the training has raised the best dev score."""
    scores = [100 * evaluation[metric] for evaluation in history]
    if len(scores) < 3:
        return "the training was too short to say what more time would bring"
    third = len(scores) // 3
    gain = max(scores) - max(scores[:-third])
    if gain < 0.1:
        more = f"{beyond:,} more texts may bring more" if beyond else "more time would bring little"
        return f"the last third of the training did not raise the dev score: {more}"
    return f"the last third of the training raised the dev score by {gain:.1f} points: more time would bring more"


def measure(
    teacher: Teacher, texts: pl.DataFrame, minutes: float, settings: Settings, device: str, reporter: Reporter
) -> Speeds:
    """Measure the speeds on some texts; that takes a few percent of the time that there is, or seconds."""
    columns = [texts[name].to_list() for name in teacher.task.columns]
    limit = max(_LEAST_MEASURED, _MEASURED * 60 * minutes)
    words = sorted({word for column in columns for text in column for word in text.split()})
    words += [f"word{number}" for number in range(_WORDS)]  # for texts of few words
    with reporter.progress("measure the speed of teacher and student", _ROUNDS + 3, "steps") as progress:
        text = _text_seconds(teacher, columns, limit, progress)
        word = _word_seconds(settings, words[:_WORDS], device)
        progress.advance()
        row = _row_seconds(texts, teacher.task, settings)
        progress.advance()
    return Speeds(text, word, row)


def _text_seconds(teacher: Teacher, columns: list[list[str]], limit: float, progress: Progress) -> float:
    """Return the seconds that a text takes the teacher among others of its length, as an export has them."""
    order = np.argsort(count_words(pl.Series(columns[0], dtype=pl.String)), kind="stable")

    def seconds(middle: float, size: int) -> float:
        rows = order[max(0, int(middle - size / 2)) :][:size]
        begin = time.perf_counter()
        teacher.logits([[column[row] for row in rows] for column in columns])
        progress.advance()
        return (time.perf_counter() - begin) / len(rows)

    first = seconds(len(order) / 2, _FEW)
    size = int(np.clip(limit / _ROUNDS / first, _LEAST_FEW, 2 * BATCH))
    found = [seconds((number + 0.5) * len(order) / _ROUNDS, size) for number in range(_ROUNDS)]
    teacher.read.clear()
    return float(np.mean(found))


def _word_seconds(settings: Settings, words: list[str], device: str) -> float:
    """Return the seconds that the vector of a word takes; 0 where they come from a file, or are random."""
    source = settings.vectors_source
    if not source or Path(source).expanduser().is_file():
        return 0.0
    taken = []
    for some in (words[:_FEW], words):  # loading the encoder takes as long for few
        begin = time.perf_counter()
        encoder_vectors(source, some, settings.student.dimension, device=device)
        taken.append(time.perf_counter() - begin)
    return max(0.0, taken[1] - taken[0]) / (len(words) - _FEW)


def _row_seconds(texts: pl.DataFrame, task: Task, settings: Settings) -> float:
    """Return the seconds that a row takes in a training with random logits; the dev set is a few rows."""
    student = settings.student
    others = (f"word{number}" for number in range(student.max_size))  # an update takes longer with a large vocabulary
    cut: dict[str, Any] = {"max_size": student.max_size, "min_freq": student.min_freq, "lowercase": student.lowercase}
    tokenizer = train_vocabulary((texts[name] for name in task.columns), **cut, more=others)
    encoded = encode_table(texts, tokenizer, task, student.max_length)
    random = np.random.default_rng(1)
    logits = random.normal(size=(len(encoded), task.outputs)).astype(np.float32)
    labels = answers(logits, task)
    few = encode_table(texts.head(_FEW), tokenizer, task, student.max_length)
    epochs = ceil(_BATCHES * student.batch_size / len(encoded))
    how = {"max_steps": _BATCHES, "epochs": epochs, "eval_steps": _BATCHES, "repr_weight": 0.0}
    with TemporaryDirectory() as folder:
        result = train_student(
            examples=Examples(encoded.texts, logits, labels),
            dev=Examples(few.texts, labels=labels[:_FEW]),
            tokenizer=tokenizer,
            vectors=None,
            task=task,
            settings=student.model_copy(update=how),
            options=settings.students.get(registry.table_name(student.model), {}),
            seed=1,
            output=Path(folder) / "student",
            reporter=QuietReporter(),
        )
    return 1 / result.rows_per_second
