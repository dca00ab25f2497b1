"""How much a student answers at an agreement with its teacher, how often the promise is broken, and what it is worth.

    python benchmarks/agree.py splits --student RUN --logits LOGITS --held-out test.parquet --dev dev.parquet
    python benchmarks/agree.py accuracy ... --teacher TEACHER --sst2 SST-2/dev.tsv
    python benchmarks/agree.py speed ... --teacher TEACHER --sst2 SST-2/test.tsv

`splits`: 200 random splits of the held-out texts, 1,000 that calibrate and the rest to test; a target is missed where
more of the test texts than it allows are answered otherwise than by the teacher. `LOGITS` are the teacher's of these
texts, from `kd teacher export`. `accuracy`: student, teacher and the pair on SST-2 dev, calibrated on all held-out
texts. `speed`: teacher and pair on halves of `--rows` of SST-2's sentences, each read once in the process; processor
time, one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from machine import describe

from kdcli.evaluate.pair import DeferringStudent
from kdcli.run import student_folder
from kdcli.student.deferral import Calibration, Familiar, calibrate, cross_fit, differs, margins
from kdcli.student.student import Student, load_student
from kdcli.teacher.logits import read_logits
from kdcli.teacher.model import TeacherSource

TARGETS = (0.95, 0.98, 0.99)
SPLITS, CALIBRATION = 200, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("splits", "accuracy", "speed"))
    parser.add_argument("--student", type=Path, required=True, help="its folder, or that of its run")
    parser.add_argument("--logits", type=Path, required=True, help="the teacher's logits of the held-out texts")
    parser.add_argument("--held-out", type=Path, required=True, help="a table of texts that training has not seen")
    parser.add_argument("--dev", type=Path, required=True, help="the table of texts that chose the student")
    parser.add_argument("--teacher", help="its folder")
    parser.add_argument("--sst2", type=Path, help="SST-2's dev.tsv; for a speed its test.tsv or train.tsv")
    parser.add_argument("--rows", type=int, default=8_000, help="the most sentences for a speed, drawn at random")
    given = parser.parse_args()
    print(describe())
    student = load_student(student_folder(given.student))
    task = student.task
    texts, dev = (pl.read_parquet(path)[task.columns[0]] for path in (given.held_out, given.dev))
    logits = read_logits(given.logits, task)
    theirs = logits.logits[logits.rows([texts], 0)]
    ours, familiar = student.logits([texts.to_list()]), Familiar.like(student.word_counts([dev.to_list()]))
    counts = student.word_counts([texts.to_list()])
    margin, wrong = margins(ours, counts, task, familiar), differs(ours, theirs, task)
    known = familiar.includes(counts).mean()
    print(f"{len(texts):,} held-out texts, agreement {1 - wrong.mean():.1%}, {known:.1%} familiar")
    if given.what == "splits":
        splits(margin, wrong, familiar)
        return
    student.calibration = calibrate(margin, wrong, agree=0.98, familiar=familiar)
    teacher = TeacherSource(given.teacher).load(task)
    if given.what == "accuracy":
        accuracy(student, teacher, given.sst2)
    else:
        fresh = load_student(student_folder(given.student))  # with cold caches
        fresh.calibration = student.calibration
        sentences = pl.read_csv(given.sst2, separator="\t", quote_char=None)["sentence"].unique(maintain_order=True)
        drawn = np.random.default_rng(1).permutation(len(sentences))[: given.rows]
        speed(fresh, teacher, sentences.gather(drawn).to_list())


def splits(margin: np.ndarray, wrong: np.ndarray, familiar: Familiar) -> None:
    random = np.random.default_rng(1)
    orders = [random.permutation(len(margin)) for _ in range(SPLITS)]
    for agree in TARGETS:
        whole = calibrate(margin, wrong, agree=agree, familiar=familiar)
        answered, missed = [], 0
        for order in orders:
            chosen, test = order[:CALIBRATION], order[CALIBRATION:]
            kept = ~calibrate(margin[chosen], wrong[chosen], agree=agree, familiar=familiar).defers(margin[test])
            answered.append(kept.mean())
            missed += (kept & wrong[test]).mean() > 1 - agree
        crossed = "answered {:.1%}, agreement {:.2%}".format(*cross_fit(margin, wrong, whole))
        print(
            f"{agree}: answered {np.mean(answered):.1%} (sd {np.std(answered):.1%}), missed {missed / SPLITS:.1%}; "
            f"with all texts for calibration {_answered(whole):.1%}; by halves {crossed}"
        )


def _answered(found: Calibration) -> float:
    place = found.errors()
    return 0.0 if place is None else found.answered[place]


def accuracy(student: Student, teacher: object, path: Path) -> None:
    dev = pl.read_csv(path, separator="\t", quote_char=None)
    texts, gold = [dev["sentence"].to_list()], dev["label"].to_numpy()
    ours, theirs = student.logits(texts), teacher.logits(texts)  # type: ignore[attr-defined]
    right = [logits.argmax(1) == gold for logits in (ours, theirs)]
    print(f"accuracy on {len(gold)}: student {right[0].mean():.1%}, teacher {right[1].mean():.1%}")
    for agree in TARGETS:
        deferred = student.deferred(texts, ours, agree)
        pair = np.where(deferred, right[1], right[0])
        same = (deferred | (ours.argmax(1) == theirs.argmax(1))).mean()
        lost, gained = (right[1] & ~pair).sum(), (pair & ~right[1]).sum()
        line = f"pair {pair.mean():.1%} ({gained} gained, {lost} lost), answered {1 - deferred.mean():.1%}"
        print(f"{agree}: {line}, agreement {same:.1%}")


def speed(student: Student, teacher: object, texts: list[str]) -> None:
    torch.set_num_threads(1)
    half = len(texts) // 2
    pair = DeferringStudent(student, 0.98, teacher)  # type: ignore[arg-type]
    for model in (teacher, student):
        model.logits([["a"]])  # type: ignore[attr-defined]
    begin = time.process_time()
    teacher.logits([texts[:half]])  # type: ignore[attr-defined]
    middle = time.process_time()
    _, deferred = pair.answer([texts[half:]])
    seconds = middle - begin, time.process_time() - middle
    speeds = "teacher {:,.0f} texts/s, pair {:,.0f} texts/s".format(*(half / taken for taken in seconds))
    print(f"{speeds}, deferred {deferred.mean():.1%}")
    print(f"{seconds[0] / seconds[1]:.2f} times the teacher's speed")


if __name__ == "__main__":
    main()
