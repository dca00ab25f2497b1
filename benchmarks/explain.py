"""How faithful a student's explanations are, for itself and for its teacher, and what they cost.

    python benchmarks/explain.py --student RUN --teacher TEACHER --table SST-2/dev.tsv [--rows 100]

Words are masked in the order of their effects (deletion), or all words are masked and put back in this order
(insertion), at 10 to 50 % of the words. AOPC is the mean change of the probability of the model's answer (Samek et al.
2017; DeYoung et al. 2020): the larger the better, in both. Orders are the student's (`student.explain`), the teacher's
own occlusion, the reverse of each, and random ones. "flips" is the share of texts with another answer once a fifth of
the words are masked. Intervals are 95 %, by the texts' standard error.

Then the processor time of the student's occlusion and the teacher's: the same masked texts, one word each, both models
loaded anew; and the student's with pairs of neighbours, as `kd explain` has them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import describe
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from kdcli.api import MASK, QuietReporter, Task
from kdcli.run import student_folder, teacher_of
from kdcli.student.explain import Explanation
from kdcli.student.student import load_student
from kdcli.tasks.answers import probabilities
from kdcli.tasks.split import settings_of, stream_table
from kdcli.teacher.model import TeacherSource

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
FLIPS = 0.2
DRAWS = 5
"""Random orders of each text, whose mean counts."""
Logits = Callable[[list[list[str]]], NDArray[np.float32]]
Order = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True, help="its folder, or that of its run")
    parser.add_argument("--teacher", required=True, help="its folder, or that of its run")
    parser.add_argument("--table", type=Path, required=True, help="a table of single texts")
    parser.add_argument("--rows", type=int, help="the first rows alone")
    parser.add_argument("--names", help="the teacher's names of the labels, where the student does not know them: a,b")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    folder = student_folder(given.student)
    student = load_student(folder)
    task = student.task
    known = replace(task, names=tuple(given.names.split(","))) if given.names else task
    teacher = TeacherSource(teacher_of(given.teacher)).load(known)
    frames = stream_table(given.table, settings_of(task), task, QuietReporter())
    texts = [text for frame in frames for text in frame[task.columns[0]].to_list()][: given.rows]
    words = [found.words for found in student.explain(texts, pairs=False)]
    texts = [text for text, inside in zip(texts, words, strict=True) if len(inside) > 1]

    fresh, other = load_student(folder), load_student(folder)
    seconds, found = timed(lambda: fresh.explain(texts, pairs=False))
    with_pairs, _ = timed(lambda: other.explain(texts))
    variants = [masked(one, [word]) for one in found for word in (None, *range(len(one.words)))]
    teachers_seconds, theirs = timed(lambda: teacher.logits([variants]))

    models: dict[str, Logits] = {"student": student.logits, "teacher": teacher.logits}
    table = Table(title=f"{len(texts):,} texts, {np.mean([len(one.words) for one in found]):.1f} words each")
    for column in ("answer of", "order of", "deletion AOPC", "insertion AOPC", "flips"):
        table.add_column(column, justify="left" if column.endswith(" of") else "right")
    for name, logits in models.items():
        answers = logits([texts]).argmax(1)
        orders = {
            "the student": [ordered(one) for one in explained(student.explain, texts, answers, task)],
            "the teacher": teachers_orders(theirs, found, answers, task),
        }
        orders |= {f"{who}, reversed": [one[::-1] for one in order] for who, order in orders.items()}
        for who, order in orders.items():
            table.add_row(name, who, *row(curves(logits, found, order, answers, task)))
        draws = np.random.default_rng(1)
        random = [[draws.permutation(len(one.words)) for one in found] for _ in range(DRAWS)]
        table.add_row(name, "random", *row(np.mean([curves(logits, found, one, answers, task) for one in random], 0)))
    console = Console(width=110)
    console.print(table)
    console.print(f"occlusion of {len(variants):,} texts: student {seconds:.2f} s, teacher {teachers_seconds:.1f} s")
    console.print(f"that is {teachers_seconds / seconds:.0f}x; the student with pairs of neighbours {with_pairs:.2f} s")
    console.print(describe())


def timed(work: Callable[[], list[Explanation] | NDArray[np.float32]]) -> tuple[float, list]:
    begin = time.process_time()
    found = work()
    return time.process_time() - begin, found


def explained(explain: Callable, texts: Sequence[str], answers: Order, task: Task) -> list[Explanation]:
    """Explain the given answers of texts."""
    found = [
        iter(explain(pick(texts, answers == number), label, pairs=False)) for number, label in enumerate(task.labels)
    ]
    return [next(found[answer]) for answer in answers]


def pick(texts: Sequence[str], flags: NDArray[np.bool_]) -> list[str]:
    return [text for text, flag in zip(texts, flags, strict=True) if flag]


def ordered(found: Explanation) -> Order:
    return np.argsort([-word.logit for word in found.words], kind="stable")


def teachers_orders(logits: NDArray[np.float32], found: list[Explanation], answers: Order, task: Task) -> list[Order]:
    """Order the words by what the teacher's logit of an answer loses."""
    parts = np.split(logits, np.cumsum([len(one.words) + 1 for one in found])[:-1])
    return [np.argsort(part[1:, answer], kind="stable") for part, answer in zip(parts, answers, strict=True)]


def masked(found: Explanation, words: Sequence[int | None]) -> str:
    """Return the text with some of its words masked."""
    (text,) = found.texts
    for word in sorted((found.words[number] for number in words if number is not None), key=lambda one: -one.begin):
        text = text[: word.begin] + MASK + text[word.end :]
    return text


def curves(
    logits: Logits, found: list[Explanation], orders: list[Order], answers: Order, task: Task
) -> NDArray[np.float64]:
    """Return deletion and insertion, and whether the answer flips, of each text: ``[3, texts]``."""

    def shares(cut: Callable[[Order], Sequence[int]]) -> NDArray[np.float64]:
        values = logits([[masked(one, cut(order)) for one, order in zip(found, orders, strict=True)]])
        return probabilities(values, task)[np.arange(len(found)), answers]

    def without(share: float) -> NDArray[np.float64]:
        return shares(lambda order: order[: count(order, share)])

    def alone(share: float) -> NDArray[np.float64]:
        return shares(lambda order: order[count(order, share) :])

    whole, empty = without(0), alone(0)
    deleted, inserted = ([each(share) for share in SHARES] for each in (without, alone))
    fifth = [masked(one, order[: count(order, FLIPS)]) for one, order in zip(found, orders, strict=True)]
    flips = logits([fifth]).argmax(1) != answers
    return np.stack([whole - np.mean(deleted, 0), np.mean(inserted, 0) - empty, flips])


def count(order: Order, share: float) -> int:
    """Return how many words a share of them is, at least one unless it is 0."""
    return max(int(share > 0), round(share * len(order)))


def row(values: NDArray[np.float64]) -> list[str]:
    means, errors = values.mean(1), 1.96 * values.std(1) / np.sqrt(values.shape[1])
    aopc = [f"{mean:.3f} ± {error:.3f}" for mean, error in zip(means[:2], errors[:2], strict=True)]
    return [*aopc, f"{means[2]:.1%}"]


if __name__ == "__main__":
    main()
