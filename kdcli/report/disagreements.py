"""The predictions of all models for the same labelled texts, and where student and teacher differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import softmax

from kdcli.api import Task
from kdcli.tables.parquet import scan
from kdcli.tasks.labels import encode_labels
from kdcli.tasks.statistics import agreement, confusion

MODELS = ("teacher", "baseline", "student")
MOST = 300
"""Disagreements to show of a table: those with the widest gap."""


@dataclass(frozen=True)
class Disagreement:
    """A text on which student and teacher differ."""

    texts: tuple[str, ...]  # the text, or both of a pair
    gold: str  # its label, or score
    teacher: str
    student: str
    sure: tuple[float, float] | None  # the probability that each gives its own label, teacher first; None for scores
    gap: float  # the total variation of their probabilities, 0 to 1; for scores the difference
    right: str  # teacher, student, or neither; of scores the nearer one


@dataclass(frozen=True)
class TablePredictions:
    """The predictions for one table."""

    table: str  # dev, dev_matched, test
    task: Task
    texts: pl.DataFrame  # the task's text columns
    gold: NDArray[Any]  # [rows], class ids or scores
    logits: dict[str, NDArray[np.float32]]  # [rows, outputs] by model; scores are clipped to the task's range

    def confusion(self, model: str) -> list[list[int]]:
        """Count the rows of each label (first index) that got each answer (second index)."""
        return confusion(self.gold, self.logits[model].argmax(1), self.task.outputs)

    @property
    def agreement(self) -> float:
        """The share of rows on which student and teacher agree, or the correlation of their scores."""
        return agreement(self.task, self.logits["student"], self.logits["teacher"])

    @property
    def differing(self) -> int:
        """The rows on which student and teacher give different labels; of scores all are compared."""
        return len(self._order)

    @property
    def right(self) -> dict[str, int]:
        """On how many of those the teacher is right, the student, or neither."""
        found = self._right[self._order]
        return {name: int((found == name).sum()) for name in ("teacher", "student", "neither")}

    @property
    def disagreements(self) -> list[Disagreement]:
        """The rows with the widest gap between student and teacher, widest first."""
        rows = self._order[:MOST]
        return [
            Disagreement(
                texts,
                self._shown(self.gold[row]),
                self._shown(self._answers["teacher"][row]),
                self._shown(self._answers["student"][row]),
                None if self.task.is_score else (self._sure("teacher", row), self._sure("student", row)),
                float(self._gap[row]),
                str(self._right[row]),
            )
            for row, texts in zip(rows.tolist(), self.texts[rows].iter_rows(), strict=True)
        ]

    @cached_property
    def _probabilities(self) -> dict[str, NDArray[np.float64]]:
        return {model: softmax(logits.astype(np.float64), axis=1) for model, logits in self.logits.items()}

    @cached_property
    def _answers(self) -> dict[str, NDArray[Any]]:
        score = self.task.is_score
        return {model: logits[:, 0] if score else logits.argmax(1) for model, logits in self.logits.items()}

    @cached_property
    def _gap(self) -> NDArray[np.float64]:
        of = self.logits if self.task.is_score else self._probabilities
        differences: NDArray[np.float64] = np.abs(of["teacher"] - of["student"]).sum(axis=1)
        return differences if self.task.is_score else differences / 2

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The rows on which the two differ, widest gap first."""
        order = np.argsort(-self._gap, kind="stable")
        same = self._answers["teacher"] == self._answers["student"]
        return order if self.task.is_score else order[~same[order]]

    @cached_property
    def _right(self) -> NDArray[np.str_]:
        off = {model: np.abs(self._answers[model] - self.gold) for model in ("teacher", "student")}
        if not self.task.is_score:
            off = {model: np.minimum(far, 1) for model, far in off.items()}
        nearer = np.where(off["teacher"] < off["student"], "teacher", "student")
        return np.where(off["teacher"] == off["student"], "neither", nearer)

    def _sure(self, model: str, row: int) -> float:
        return float(self._probabilities[model][row].max())

    def _shown(self, value: Any) -> str:
        return f"{value:.3g}" if self.task.is_score else (self.task.names or self.task.labels)[value]


def read_predictions(path: Path, task: Task) -> list[TablePredictions]:
    """Read the table that the results stage writes; nothing where it has not run yet.

    Raises:
        DataError: The table is damaged, or another task's.
    """
    if not path.exists():
        return []
    outputs = {model: [f"{model}_{number}" for number in range(task.outputs)] for model in MODELS}
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
