r"""Which texts should the teacher label? Ways to choose them against a random choice of as many, by agreement.

    python benchmarks/budget.py --texts movies.parquet --logits movies.safetensors --labels 0,1 \
        --encoder VECTORS --budgets 1000 4000 16000 --seeds 1 2 3 --output film.jsonl

The texts have logits already (`kd teacher export`), so a choice costs nothing here but its own time. `--test` texts are
held out for the figures, the same for all; a tenth of the budget, drawn at random, chooses among models, as kd does it.
All ways share these, the vocabulary, the word vectors, the settings and the number of the student's updates.

`random` takes the first texts of a random order. The others choose in rounds, as `transfer.choose = "entropy"` does
(`kdcli/distillation/choose.py`): a quarter of the budget at random, a linear model, a quarter that it chooses, another
one, the rest; at last a student learns from all. What they choose:

- `margin`: two thirds are the texts whose two best probabilities differ least (Settles 2009, section 3.1);
- `entropy`: random texts, drawn in proportion to their entropy: what the product does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import describe
from numpy.typing import NDArray
from tokenizers import Tokenizer

from kdcli.api import QuietReporter, Task
from kdcli.config.load import load_profile
from kdcli.config.schema import StudentSettings
from kdcli.distillation.choose import Rows, by_entropy, in_rounds, read_others
from kdcli.distillation.texts import held_out
from kdcli.student.dataset import Examples, encode_table, make_words
from kdcli.student.student import Student, load_student
from kdcli.student.train import train_student
from kdcli.student.vectors import Vectors
from kdcli.tasks.answers import probabilities
from kdcli.teacher.logits import read_logits

WAYS = ("random", "margin", "entropy")
RANDOM = 3
"""`margin` takes every third text at random."""
BATCH = 128


def passes(budget: int) -> int:
    """Return how long the student trains."""
    return 35 if budget <= 2_000 else 16 if budget <= 8_000 else 8


@dataclass
class Pool:
    """All texts, with what the teacher answers, and all that a student needs."""

    task: Task
    table: pl.DataFrame
    logits: NDArray[np.float32]
    tokenizer: Tokenizer
    vectors: Vectors | None
    settings: StudentSettings
    options: dict[str, Any]

    def columns(self, rows: Rows) -> list[list[str]]:
        """Return the texts of some rows."""
        return [self.table[name].gather(rows).to_list() for name in self.task.columns]

    def examples(self, rows: Rows) -> Examples:
        """Return some rows to learn from."""
        texts = encode_table(self.table[rows], self.tokenizer, self.task, self.settings.max_length).texts
        return Examples(texts, self.logits[rows], self.logits[rows].argmax(1))

    def read(self, rows: Rows, others: Rows) -> NDArray[np.float32]:
        """Train a linear model on some rows, and return its logits of others."""
        return read_others(self.columns(rows), self.logits[rows], self.columns(others), self.task)

    def train(self, rows: Rows, dev: Rows, epochs: int, seed: int) -> Student:
        """Train a student; ``dev`` is scored ten times."""
        updates = epochs * -(-len(rows) // BATCH)
        update = {"batch_size": BATCH, "epochs": epochs, "eval_steps": max(1, updates // 10)}
        with tempfile.TemporaryDirectory() as folder:
            train_student(
                examples=self.examples(rows),
                dev=self.examples(dev),
                tokenizer=self.tokenizer,
                vectors=self.vectors,
                task=self.task,
                settings=self.settings.model_copy(update=update),
                options=self.options,
                seed=seed,
                output=Path(folder) / "student",
            )
            return load_student(Path(folder) / "student")


def read_pool(given: argparse.Namespace) -> Pool:
    table = pl.read_parquet(given.texts)
    task = Task("budget", "pair" if "sentence1" in table.columns else "single", tuple(given.labels.split(",")))
    table, found = table.select(task.columns), read_logits(given.logits, task)
    rows = found.rows([table[name] for name in task.columns], 0)
    table, logits = table.filter(pl.Series(rows >= 0)), found.logits[rows[rows >= 0]]
    sizes = {"max_size": 15_000, "max_length": 60, "dimension": given.dimension, "repr_weight": 0.0}
    settings = load_profile("distil").settings.student.model_copy(update=sizes)
    columns = (table[name] for name in task.columns)
    reporter = QuietReporter()
    tokenizer, vectors = make_words(columns, settings, given.encoder, seed=1, device="cpu", reporter=reporter)
    options = {"dropout": 0.5, "hidden": given.hidden, "fc": 2 * given.hidden, "embeddings": "non-static"}
    return Pool(task, table, logits, tokenizer, vectors, settings, options)


def by_margin(logits: NDArray[np.float32], count: int, draws: np.random.Generator, task: Task) -> Rows:
    """Choose ``count`` rows of ``logits [rows, labels]``."""
    best = np.sort(probabilities(logits, task), axis=1)
    order = np.argsort(best[:, -1] - best[:, -2], kind="stable")
    sure = count - count // RANDOM
    return np.concatenate([order[:sure], draws.permutation(order[sure:])[: count - sure]])


def run(way: str, pool: Pool, test: Rows, others: Rows, budget: int, seed: int) -> dict[str, Any]:
    """Choose, train and score. Times are of the processor."""
    order = np.random.default_rng([seed, 0]).permutation(others)
    dev, order = order[: held_out(budget)[0]], order[held_out(budget)[0] :]
    count, begin = budget - len(dev), time.process_time()
    if way == "random":
        rows = order[:count]
    else:
        draw = partial(by_margin if way == "margin" else by_entropy, task=pool.task)
        rows = in_rounds(order, count, pool.read, draw, seed)
    middle = time.process_time()
    student = pool.train(rows, dev, passes(budget), seed)
    end = time.process_time()
    found, teacher = student.logits(pool.columns(test)), pool.logits[test]
    p, q = probabilities(teacher, pool.task), probabilities(found, pool.task)
    return {
        "way": way,
        "budget": budget,
        "seed": seed,
        "agreement": round(100 * float((found.argmax(1) == teacher.argmax(1)).mean()), 2),
        "kl": round(float((p * np.log((p + 1e-12) / (q + 1e-12))).sum(1).mean()), 4),
        "choosing": round(middle - begin, 1),
        "training": round(end - middle, 1),
    }


def table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return mean and standard deviation over the seeds, and the mean gain over random with its standard error."""
    frame = pl.DataFrame(rows)
    base = frame.filter(way="random").select("budget", "seed", random="agreement")
    frame = frame.join(base, on=["budget", "seed"], how="left").with_columns(
        gain=pl.col("agreement") - pl.col("random")
    )
    agreement, gain = pl.col("agreement"), pl.col("gain")
    return frame.group_by("budget", "way", maintain_order=True).agg(
        seeds=pl.len(),
        mean=agreement.mean(),
        deviation=agreement.std(),
        gain=gain.mean(),
        error=gain.std() / pl.len().sqrt(),
        choosing=(pl.col("choosing") / pl.col("training")).mean(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="Parquet with sentence, or sentence1 and sentence2")
    parser.add_argument("--logits", type=Path, required=True)
    parser.add_argument("--labels", required=True, help="in the order of the logits")
    parser.add_argument("--encoder", required=True, help="makes the word vectors; or a file of them")
    parser.add_argument("--budgets", type=int, nargs="+", default=[1_000, 4_000, 16_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--test", type=int, default=5_000, help="texts for the figures")
    parser.add_argument("--dimension", type=int, default=100, help="of the word vectors")
    parser.add_argument("--hidden", type=int, default=50, help="of the student")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines; what is there is not run again")
    given = parser.parse_args()
    print(describe(), flush=True)
    done = list(map(json.loads, given.output.read_text().splitlines())) if given.output.exists() else []
    known = {(row["way"], row["budget"], row["seed"]) for row in done}
    pool = read_pool(given)
    order = np.random.default_rng(0).permutation(len(pool.table))
    test, others = order[: given.test], order[given.test :]
    print(f"{len(others):,} texts to choose from, {len(test):,} for the figures", flush=True)
    for budget in given.budgets:
        for seed in given.seeds:
            for way in given.ways:
                if (way, budget, seed) not in known:
                    done.append(run(way, pool, test, others, budget, seed))
                    print(done[-1], flush=True)
                    with given.output.open("a") as file:
                        file.write(json.dumps(done[-1]) + "\n")
    with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True):
        print(table(done))


if __name__ == "__main__":
    main()
