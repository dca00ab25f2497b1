"""The plan of a distillation: how many texts, how many fabricated ones, how many updates, from the time there is.

Times are measured on the first texts: the teacher's of a text and of a word alone, the student's of a training row.
"""

import time
import timeit
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli import registry
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import Settings
from kdcli.config.transfer import LiteSettings
from kdcli.distillation.derive import count_words
from kdcli.distillation.texts import FEWEST, held_out
from kdcli.errors import UsageError
from kdcli.student.build import build_student
from kdcli.student.dataset import Examples, encode_table
from kdcli.student.encoder_vectors import encoder_vectors
from kdcli.student.train import Training
from kdcli.student.vocabulary import train_vocabulary
from kdcli.tasks.answers import answers
from kdcli.teacher.model import BATCH, Teacher

ENOUGH = 100_000  # with fewer texts to learn from, rules fabricate more, up to about this number
_MOST_ITER = 20  # the most fabricated texts for one of the user's (Tang et al. 2019, section 4.2)
_EPOCHS = 2.5  # passes over the labelled texts, at the least: beyond them more texts, fabricated ones too, bring more
_MOST_EPOCHS, _MOST_OF_FEW, _ROWS = 10, 12, 12_800
"""The most passes; and of few texts, which get as many as make so many rows: with fewer a student may learn little."""
_LEAST = 64  # the fewest texts to learn from, and the fewest updates, however little time there is
_LEAST_UPDATES = 20
_VECTORS, _LEAST_WORDS = 0.1, 2_000  # the share of the time for the vectors of the vocabulary, and its fewest words
_WORDS_A_ROW = 2  # words beyond so many a row would take more time for their vectors than they are worth
_EVALUATIONS = 20
_BATCHES = 16  # updates by which the student's speed is measured
_START = 20.0  # seconds of a run that do not depend on the texts: imports, TF-IDF, the report
_MEASURED, _LEAST_MEASURED = 0.02, 2.0  # the share of the time, and the fewest seconds, for the teacher's speed
_MOST_MEASURED = 8 * BATCH  # the most texts by which it is measured, of all lengths
_WORDS, _FEW = 320, 16


@dataclass(frozen=True)
class Speeds:
    """Seconds that a text takes the teacher, a word alone, and a training row the student."""

    text: float
    word: float
    row: float
    made: float = 1.0  # the length of a fabricated text in those of the one that it is made from


@dataclass(frozen=True)
class Limits:
    """What a distillation may take."""

    minutes: float | None = None
    budget: int | None = None  # the most texts that the teacher labels
    n_iter: int | None = None  # fabricated texts for each text to learn from; None: as many as are of use
    epochs: int | None = None  # passes, where no time is given; None: those of the profile, or more of few texts

    def check(self, settings: Settings) -> None:
        """Check the budget: a ``UsageError`` if it is too small to distil with, or cannot limit the texts."""
        if self.budget is None:
            return
        if settings.transfer.methods != ("lite",):  # a generator or a corpus has others to label
            what = f"--budget does not limit the texts of transfer.method = {settings.transfer.method!r}"
            raise UsageError(what, hint="leave out --budget, or --set transfer.method=lite")
        if self.budget < (fewest := FEWEST * (1 + (self.n_iter or 0))):
            what = f"--budget is the number of texts that the teacher labels, {fewest} at least"
            raise UsageError(what, hint="hundreds make a student, thousands a good one")

    def most_texts(self, speeds: Speeds | None = None) -> int:
        """Return the most texts that budget and minutes may suffice for; 0 without a limit."""
        most = [] if self.budget is None else [self.budget // (1 + (self.n_iter or 0))]
        if self.minutes and speeds:
            most.append(max(2 * _LEAST, int(60 * self.minutes / (speeds.text + speeds.row))))
        return min(most, default=0)

    def most_iter(self, texts: int) -> int:
        """Return the most fabricated texts for one to learn from, of so many texts."""
        if self.budget is None:
            return _MOST_ITER
        return min(_MOST_ITER, max(0, self.budget - texts) // (texts - sum(held_out(texts))))


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


def make_plan(
    texts: int, spent: float, speeds: Speeds | None, limits: Limits, settings: Settings, more: bool = False
) -> Plan:
    """Plan for so many texts, of which no more are taken than ``limits.minutes`` allow; ``spent`` seconds have passed.

    ``more``: whether there are other texts, among which they are chosen.

    Without a limit of time all texts are taken, and where they are few rules fabricate more. With one, the time that a
    labelled row takes is the teacher's pass and ``_EPOCHS`` of the student's; where there is more time than all texts
    take, rules fabricate more, and at last there are more epochs. Few texts get more passes either way.
    """
    student, made, epochs = settings.student, limits.n_iter, settings.student.epochs
    words, batch = student.max_size, student.batch_size
    # A text is chosen in about the time of a training row.
    choice = speeds.row if speeds and settings.transfer.choose == "entropy" else 0.0
    if not (limits.minutes and speeds):
        train = texts - sum(held_out(texts))
        made = min(limits.most_iter(texts), ceil(ENOUGH / train) - 1) if made is None else made
        rows = train * (1 + made)
        epochs = limits.epochs or max(epochs, _passes_of_few(rows))
        updates = epochs * ceil(rows / batch)
        words = min(words, max(_LEAST_WORDS, _WORDS_A_ROW * rows))
        short = train * (1 + made * speeds.made) / rows if speeds else 1.0
    else:
        if speeds.word:
            words = min(words, max(_LEAST_WORDS, int(_VECTORS * 60 * limits.minutes / speeds.word)))
        row = speeds.text + _EPOCHS * speeds.row
        left = 60 * limits.minutes - spent - _START - words * speeds.word

        def seconds(taken: int) -> float:
            held = sum(held_out(taken))  # they are labelled, and not learned from
            return (taken - held) * ((1 + (made or 0) * speeds.made) * row + choice) + held * speeds.text

        least = min(texts, 2 * _LEAST)
        taken = least + max(0, bisect_right(range(least, texts + 1), left, key=seconds) - 1)
        train = taken - sum(held_out(taken))
        more = more or taken < texts
        left -= (taken - train) * speeds.text + train * choice * more
        if made is None:
            most = int((left / (train * row) - 1) / speeds.made)
            made = min(limits.most_iter(texts), max(0, most)) if taken == texts else 0
        texts, rows = taken, train * (1 + made)
        short = train * (1 + made * speeds.made) / rows
        passes = min(max(_MOST_EPOCHS, _passes_of_few(rows)), (left / (rows * short) - speeds.text) / speeds.row)
        updates = max(_LEAST_UPDATES, int(passes * rows / batch))
        epochs = ceil(max(1.0, updates * batch / rows))
    labelled, taking = texts - train + rows, {}
    if speeds:
        taking = {
            "read and plan": spent,
            "teacher": (texts - train + rows * short) * speeds.text,
            "vectors": words * speeds.word,
            "student": updates * batch * short * speeds.row,
            "rest": _START,
        }
        taking |= {"choice": train * choice} if choice and more else {}
    return Plan(texts, labelled, made, epochs, updates, max(1, updates // _EVALUATIONS), words, taking)


def _passes_of_few(rows: int) -> int:
    return min(_MOST_OF_FEW, ceil(_ROWS / rows))


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
    reporter.info("measuring the speed of teacher and student")
    text = _text_seconds(teacher, columns, limit)
    word = _word_seconds(settings, words[:_WORDS], device)
    row = _row_seconds(texts, teacher.task, settings, device)
    return Speeds(text, word, row, _made_length(columns, settings.transfer.lite))


def _made_length(columns: list[list[str]], rules: LiteSettings) -> float:
    """Return the words of a fabricated text for each word of its original, from the rule that keeps an n-gram."""
    kept = fmean(int(n) for n in rules.ngram.split(":"))
    words = fmean(count for column in columns for count in count_words(pl.Series(column, dtype=pl.String)))
    changed = 1 if len(columns) == 1 else 2 / 3  # of a pair the first text, the second, or both
    return 1 - changed * rules.p_ngram * max(0.0, 1 - kept / max(1.0, words))


def _text_seconds(teacher: Teacher, columns: list[list[str]], limit: float) -> float:
    """Return the seconds that a text takes the teacher among others of its length, as an export has them."""
    order = np.argsort(count_words(pl.Series(columns[0], dtype=pl.String)), kind="stable")

    def seconds(rows: NDArray[np.int64]) -> float:
        some = [[column[row] for row in rows] for column in columns]
        return min(timeit.repeat(lambda: teacher.logits(some), number=1, repeat=2)) / len(rows)  # first calls are slow

    size = int(np.clip(limit / 2 / seconds(order[len(order) // 2 :][:_FEW]), _FEW, _MOST_MEASURED))
    found = seconds(order[:: max(1, len(order) // size)])
    teacher.read.clear()
    return found


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


def _row_seconds(texts: pl.DataFrame, task: Task, settings: Settings, device: str) -> float:
    """Return the seconds that a row takes in a training with random logits; the dev set is a few rows."""
    student = settings.student
    others = (f"word{number}" for number in range(student.max_size))  # an update takes longer with a large vocabulary
    cut = student.model_dump(include={"max_size", "min_freq", "lowercase"})
    tokenizer = train_vocabulary((texts[name] for name in task.columns), **cut, more=others)
    encoded, few = (encode_table(some, tokenizer, task, student.max_length) for some in (texts, texts.head(_FEW)))
    logits = np.random.default_rng(1).normal(size=(len(encoded), task.outputs)).astype(np.float32)
    labels = answers(logits, task)
    examples, dev = Examples(encoded.texts, logits, labels), Examples(few.texts, labels=labels[:_FEW])
    table = settings.students.get(student.model, {})
    options = registry.options("students", student.model, table).model_dump(mode="json")
    size = tokenizer.get_vocab_size()
    module = build_student(student.model, options, task, size, None, student.dimension).to(device)
    epochs = ceil(_BATCHES * student.batch_size / len(encoded))
    how = student.model_copy(update={"epochs": epochs, "eval_steps": _BATCHES, "repr_weight": 0.0})
    training = Training(module, examples, dev, task, how, 1, _BATCHES, "student", QuietReporter())
    with TemporaryDirectory() as folder:
        training.run(Path(folder))
    return 1 / training.rows_per_second
