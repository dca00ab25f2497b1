"""The texts of a run: its transfer set by source, and the labelled ones with the predictions of all models."""

from __future__ import annotations

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

SAMPLES = 300
"""Rows of a transfer set to page through, as many of each source."""
LONGEST = 4096
"""Words from which on texts are counted together."""
MOST = 300
"""Predicted texts to show of a table, in each list."""


@dataclass(frozen=True)
class SampledRow:
    """A row drawn at random."""

    texts: tuple[str, ...]  # its text, or both of a pair
    source: str
    logits: tuple[float, ...] | None  # the teacher's, or None


@dataclass(frozen=True)
class SourceCounts:
    """The rows of one source: original, lite, heavy or corpus."""

    name: str
    lengths: NDArray[np.int64]  # [LONGEST + 1], rows of each length in words (of both texts of a pair)
    answers: NDArray[np.int64] | None  # [labels], rows to which the teacher gives each label
    scores: NDArray[np.float32] | None  # [rows], the teacher's scores

    @property
    def rows(self) -> int:
        """The number of its rows."""
        return int(self.lengths.sum())

    @property
    def mean_length(self) -> float:
        """Words of a row, on average."""
        return float(self.lengths @ np.arange(len(self.lengths)) / self.rows)

    @property
    def median_length(self) -> int:
        """Words of the row in the middle."""
        return int(np.searchsorted(self.lengths.cumsum(), (self.rows + 1) // 2))


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
    """Read a transfer set, or a joined one; of each row some numbers are in memory, but not the texts.

    Raises:
        DataError: The table cannot be read, or lacks a column.
    """
    outputs = [f"logits_{number}" for number in range(task.outputs)]
    labelled = set(outputs) <= set(scan(path).collect_schema().names())
    table = scan(path, [*task.columns, "source", *(outputs if labelled else [])])
    words = pl.sum_horizontal(pl.col(task.columns).str.count_matches(WORD)).clip(upper_bound=LONGEST)
    numbers = {"source": pl.col("source"), "words": words}
    if labelled and task.is_score:
        numbers["score"] = pl.col(outputs[0]).cast(pl.Float32)
    elif labelled and task.multi_label:
        numbers |= {name: (pl.col(name) > 0).cast(pl.Int64) for name in outputs}
    elif labelled:
        numbers["answer"] = pl.concat_list(outputs).list.arg_max()
    with reporter.progress("report", None, "rows") as progress:
        counted = table.select(**numbers).collect().with_row_index("row")
        progress.advance(len(counted))
    by_source = counted.partition_by("source", maintain_order=True)
    random = np.random.default_rng(seed)
    drawn = [random.permutation(rows["row"].to_numpy())[: SAMPLES // len(by_source)] for rows in by_source]
    chosen = random.permutation(np.concatenate([np.zeros(0, np.int64), *drawn]))
    samples = [
        SampledRow(
            tuple(row[name] for name in task.columns),
            row["source"],
            tuple(row[name] for name in outputs) if labelled else None,
        )
        for row in take(table, chosen, len(counted)).iter_rows(named=True)
    ]
    return TransferSet(labelled, [_count(rows, task) for rows in by_source], samples)


def _count(rows: pl.DataFrame, task: Task) -> SourceCounts:
    answers = np.bincount(rows["answer"].to_numpy(), minlength=task.outputs) if "answer" in rows.columns else None
    if sets := [name for name in rows.columns if name.startswith("logits_")]:
        answers = rows.select(sets).sum().to_numpy()[0]
    scores = rows["score"].to_numpy() if "score" in rows.columns else None
    lengths = np.bincount(rows["words"].to_numpy(), minlength=LONGEST + 1)
    return SourceCounts(rows["source"][0], lengths, answers, scores)


@dataclass(frozen=True)
class PredictedText:
    """A text with its label and the answers of student and teacher, or its score and theirs."""

    texts: tuple[str, ...]  # the text, or both of a pair
    gold: str
    teacher: str
    student: str
    # the probability that each gives its own label, teacher first; None for scores and sets of labels
    sure: tuple[float, float] | None
    right: str  # teacher, student, or neither; of scores the nearer one, of sets that with fewer wrong labels
    # what the list is sorted by: for disagreements the total variation of the two's probabilities, 0 to 1 (the mean
    # over the labels of a multi-label task), or the difference of the scores; for shared errors the least probability
    # that a wrong label has, or the least distance of the two scores from gold
    size: float


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
    def differing(self) -> NDArray[np.int64]:
        """The rows on which student and teacher give different labels, widest gap first; of scores all rows."""
        differ = np.full(len(self.gold), True) if self.task.is_score else ~same(*self._answers)
        return _sorted(self._gaps, differ)

    @cached_property
    def both_wrong(self) -> NDArray[np.int64]:
        """The rows on which student and teacher are both wrong, surest first.

        Of scores, those that both put on the same side of gold, farthest first.
        """
        return _sorted(self._errors, self._errors > 0)

    @property
    def right(self) -> dict[str, int]:
        """On how many of the differing rows the teacher is right, the student, or neither."""
        found = self._right[self.differing]
        return {name: int((found == name).sum()) for name in ("teacher", "student", "neither")}

    @property
    def disagreements(self) -> list[PredictedText]:
        """The texts with the widest gap between student and teacher, widest first."""
        return self._shown(self.differing, self._gaps)

    @property
    def shared_errors(self) -> list[PredictedText]:
        """The texts on which student and teacher are both wrong, those first of which both are surest."""
        return self._shown(self.both_wrong, self._errors)

    @cached_property
    def _pair(self) -> NDArray[np.float64]:
        """The probabilities, or scores, of teacher and student, ``[2, rows, outputs]``."""
        both = np.stack([self.logits["teacher"], self.logits["student"]]).astype(np.float64)
        return both if self.task.is_score else np.stack([probabilities(logits, self.task) for logits in both])

    @cached_property
    def _answers(self) -> NDArray[Any]:
        """Their labels, or scores, ``[2, rows]``, or sets of labels, ``[2, rows, labels]``."""
        of = [self.logits[model] for model in ("teacher", "student")]
        return self._pair[:, :, 0] if self.task.is_score else np.stack([answers(logits, self.task) for logits in of])

    @cached_property
    def _gaps(self) -> NDArray[np.float64]:
        differences: NDArray[np.float64] = np.abs(self._pair[0] - self._pair[1]).sum(axis=1)
        return differences if self.task.is_score else differences / (self.task.outputs if self.task.multi_label else 2)

    @cached_property
    def _errors(self) -> NDArray[np.float64]:
        """The size of the error that both make, 0 where one of them is right."""
        if self.task.multi_label:  # the label that both have wrong and are surest of
            wrong = (self._answers != self.gold).all(axis=0)
            sure = np.maximum(self._pair, 1 - self._pair).min(axis=0)
            return np.asarray(np.where(wrong, sure, 0.0).max(axis=1))
        off = self._answers - self.gold
        shared = np.sign(off[0]) == np.sign(off[1]) if self.task.is_score else (off != 0).all(axis=0)
        sizes = np.abs(off) if self.task.is_score else self._pair.max(axis=2)
        return np.where(shared, sizes.min(axis=0), 0.0)

    @cached_property
    def _right(self) -> NDArray[np.str_]:
        off = np.abs(self._answers - self.gold) if self.task.is_score else self._answers != self.gold
        teacher, student = off if off.ndim == 2 else off.sum(axis=2)
        return np.where(teacher == student, "neither", np.where(teacher < student, "teacher", "student"))

    def _shown(self, rows: NDArray[np.int64], sizes: NDArray[np.float64]) -> list[PredictedText]:
        rows, sure = rows[:MOST], self._pair.max(axis=2)

        def texts_of(values: NDArray[Any]) -> list[str]:
            if self.task.is_score:
                return [f"{value:.3g}" for value in values[rows].tolist()]
            return written(values[rows], self.task.names or self.task.labels)

        chosen = map(texts_of, (self.gold, *self._answers))
        return [
            PredictedText(
                texts,
                gold,
                teacher,
                student,
                None if self.task.is_score or self.task.multi_label else (float(sure[0, row]), float(sure[1, row])),
                str(self._right[row]),
                float(sizes[row]),
            )
            for row, texts, gold, teacher, student in zip(
                rows.tolist(), self.texts[rows].iter_rows(), *chosen, strict=True
            )
        ]


def _sorted(sizes: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the chosen rows, those with the largest size first."""
    order = np.argsort(-sizes, kind="stable")
    return order[chosen[order]]


def read_predictions(path: Path, task: Task) -> list[TablePredictions]:
    """Read the table that the results stage writes; nothing where it has not run yet.

    Raises:
        DataError: The table is damaged, or another task's.
    """
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
