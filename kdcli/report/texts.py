"""The texts of a run: its transfer set by source, and the labelled ones with the predictions of all models."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.evaluate.results import MODELS
from kdcli.tables.parquet import scan
from kdcli.tasks.answers import answers, probabilities, same, written
from kdcli.tasks.labels import encode_labels
from kdcli.tasks.statistics import LabelScore, agreement, confusion, label_scores
from kdcli.transfer.cleaning import WORD, take

SAMPLES = 300  # rows of a transfer set to page through, as many of each source
MOST = 300  # predicted texts to show of a table, in each list


@dataclass(frozen=True)
class SampledRow:
    """A row drawn at random."""

    texts: tuple[str, ...]  # its text, or both of a pair
    source: str
    answer: str  # the teacher's label, labels or score; empty where it has not answered yet
    sure: float | None  # the probability of the answer, or the score


@dataclass(frozen=True)
class SourceCounts:
    """The rows of one source: original, lite, heavy or corpus."""

    name: str
    rows: int
    mean_length: float  # words of a row, in both texts of a pair
    median_length: int
    answers: list[int] | None  # [labels], rows to which the teacher gives each label


@dataclass(frozen=True)
class TransferSet:
    """A transfer set."""

    labelled: bool  # whether the teacher's logits are in it
    sources: list[SourceCounts]  # in the order in which they come
    samples: list[SampledRow]  # rows drawn at random, in random order

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return sum(source.rows for source in self.sources)


def survey(path: Path, task: Task, *, seed: int, reporter: Reporter) -> TransferSet:
    """Read a transfer set, or a joined one, but not its texts into memory; a damaged table is a ``DataError``."""
    outputs = [f"logits_{number}" for number in range(task.outputs)]
    labelled = set(outputs) <= set(scan(path).collect_schema().names())
    table = scan(path, [*task.columns, "source", *(outputs if labelled else [])])
    words = pl.sum_horizontal(pl.col(task.columns).str.count_matches(WORD))
    chosen = pl.concat_list(outputs).list.arg_max()
    given = {
        name: pl.col(name) > 0 if task.multi_label else chosen == number
        for number, name in enumerate(outputs if labelled and task.labels else [])
    }
    with reporter.progress("report", None, "rows") as progress:
        rows = table.select("source", words=words, **given).collect().with_row_index("row")
        progress.advance(len(rows))
    counted = rows.group_by("source", maintain_order=True).agg(
        pl.len(),
        pl.col("words").mean().alias("mean"),
        pl.col("words").quantile(0.5, "lower").cast(pl.Int64),
        pl.col(list(given)).sum(),
    )
    sources = [
        SourceCounts(name, count, mean, median, list(answers) or None)
        for name, count, mean, median, *answers in counted.iter_rows()
    ]
    random = np.random.default_rng(seed)
    parts = rows.partition_by("source", maintain_order=True)
    drawn = [random.permutation(part["row"].to_numpy())[: SAMPLES // len(parts)] for part in parts]
    numbers = random.permutation(np.concatenate([np.zeros(0, np.int64), *drawn]))
    return TransferSet(labelled, sources, _samples(take(table, numbers, len(rows)), outputs if labelled else [], task))


def _samples(rows: pl.DataFrame, outputs: list[str], task: Task) -> list[SampledRow]:
    """Return rows with the teacher's answers, and how sure it is of them: for scores the score itself."""
    said, sure = [""] * len(rows), [None] * len(rows)
    if outputs:
        logits = rows.select(outputs).to_numpy()
        shares = logits if task.is_score else probabilities(logits, task)
        sure = (np.maximum(shares, 1 - shares).min(1) if task.multi_label else shares.max(1)).tolist()
        said = [label or "none" for label in _shown(answers(logits, task), task)]
    texts = rows.select(task.columns).rows()
    return [SampledRow(*row) for row in zip(texts, rows["source"], said, sure, strict=True)]


def _shown(values: NDArray[Any], task: Task) -> list[str]:
    """Write answers for people: the labels' readable names, or scores."""
    return (
        [f"{value:.3g}" for value in values.tolist()] if task.is_score else written(values, task.names or task.labels)
    )


@dataclass(frozen=True)
class TablePredictions:
    """The predictions for one table."""

    table: str  # dev, dev_matched, test
    task: Task
    texts: pl.DataFrame  # the task's text columns
    gold: NDArray[Any]  # [rows], class ids or scores, or [rows, labels]
    logits: dict[str, NDArray[np.float32]]  # [rows, outputs] by model; scores are clipped to the task's range

    def confusion(self, model: str) -> list[list[int]]:
        """Count the rows of each label (first index) that got each answer (second index)."""
        return confusion(self.gold, answers(self.logits[model], self.task), self.task.outputs)

    def label_scores(self, model: str) -> list[LabelScore]:
        """Return precision, recall and F1 of each label."""
        return label_scores(self.task, self.logits[model], self.gold)

    @property
    def agreement(self) -> float:
        """The share of rows on which student and teacher agree, or the correlation of their scores."""
        return agreement(self.task, self.logits["student"], self.logits["teacher"])

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The rows with the answers of teacher and student, and how far these are from each other and from gold.

        ``sure`` are the probabilities that both give their own label, teacher first; null for scores and sets.
        ``right`` is teacher, student or neither: of scores the nearer one, of sets that with fewer wrong labels.
        ``gap`` is the total variation of their probabilities, 0 to 1 (the mean over the labels of a multi-label task),
        or the difference of the scores. ``error`` is 0 where one is right, else the least probability that a wrong
        label has, or the least distance of two scores on the same side of gold.
        """
        task = self.task
        logits = [self.logits[model].astype(np.float64) for model in ("teacher", "student")]
        shares = np.stack([one if task.is_score else probabilities(one, task) for one in logits])  # [2, rows, outputs]
        said = np.stack([answers(one, task) for one in logits])  # [2, rows], or [2, rows, labels]
        if task.is_score:
            signs, off = np.sign(said - self.gold), np.abs(said - self.gold)
            error = np.where(signs[0] == signs[1], off.min(0), 0.0)
        elif task.multi_label:  # the label that both have wrong and are surest of
            wrong = said != self.gold
            error = np.where(wrong.all(0), np.maximum(shares, 1 - shares).min(0), 0.0).max(1)
            off = wrong.sum(2)
        else:
            off = said != self.gold
            error = np.where(off.all(0), shares.max(2).min(0), 0.0)
        many = task.is_score or task.multi_label
        shown = [_shown(values, task) for values in (self.gold, *said)]
        return pl.DataFrame(
            {
                "texts": [list(row) for row in self.texts.iter_rows()],
                **dict(zip(("gold", "teacher", "student"), shown, strict=True)),
                "sure": [None] * len(off[0]) if many else shares.max(2).T.tolist(),
                "right": np.where(off[0] == off[1], "neither", np.where(off[0] < off[1], "teacher", "student")),
                "differ": np.full(len(off[0]), True) if task.is_score else ~same(*said),
                "gap": np.abs(shares[0] - shares[1]).sum(1) / (task.outputs if many else 2),
                "error": error,
            }
        )

    @property
    def both_wrong(self) -> int:
        """On how many rows both are wrong; of scores, those that both put on the same side of gold."""
        return int((self.rows["error"] > 0).sum())

    @property
    def right(self) -> dict[str, int]:
        """On how many of the differing rows the teacher is right, the student, or neither."""
        found = self.rows.filter("differ")["right"]
        return {name: int((found == name).sum()) for name in ("teacher", "student", "neither")}

    @property
    def disagreements(self) -> list[dict[str, Any]]:
        """The texts with the widest gap between student and teacher, widest first."""
        return self._most(pl.col("differ"), "gap")

    @property
    def shared_errors(self) -> list[dict[str, Any]]:
        """The texts on which student and teacher are both wrong, those first of which both are surest."""
        return self._most(pl.col("error") > 0, "error")

    def _most(self, wanted: pl.Expr, size: str) -> list[dict[str, Any]]:
        rows = self.rows.filter(wanted).sort(size, descending=True, maintain_order=True).head(MOST)
        return rows.with_columns(size=size).to_dicts()


def read_predictions(path: Path, task: Task) -> list[TablePredictions]:
    """Read the table of the results stage, if it is there; one that is damaged or another task's is a ``DataError``."""
    if not path.exists():
        return []
    there = scan(path, None).collect_schema().names()
    models = [model for model in MODELS if f"{model}_0" in there]  # without gold labels there is no baseline
    outputs = {model: [f"{model}_{number}" for number in range(task.outputs)] for model in models}
    columns = ["table", *task.columns, "label", *(name for names in outputs.values() for name in names)]
    low, high = task.score_range or (-np.inf, np.inf)
    return [
        TablePredictions(
            str(rows["table"][0]),
            task,
            rows.select(task.columns),
            encode_labels(rows["label"], task, file=path),
            {model: rows.select(names).cast(pl.Float32).to_numpy().clip(low, high) for model, names in outputs.items()},
        )
        for rows in scan(path, columns).collect().partition_by("table", maintain_order=True)
    ]
