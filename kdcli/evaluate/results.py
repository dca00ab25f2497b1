"""The results of a run: teacher, labels-only baseline and distilled student side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.evaluate.predict import Model
from kdcli.files import atomic
from kdcli.student.student import WEIGHTS, Student, load_student
from kdcli.tables.write import write_table
from kdcli.tasks.labels import encode_labels
from kdcli.tasks.metrics import metric_title, score

if TYPE_CHECKING:
    from kdcli.teacher.model import Teacher, TeacherSource

Scores = dict[str, dict[str, float]]
"""By table and metric."""
Logits = dict[str, NDArray[np.float32]]
"""``float32 [rows, task.outputs]`` by table."""


@dataclass(frozen=True)
class Row:
    """One model of the results table.

    Attributes:
        model: teacher, baseline or student.
        scores: By table and metric, the score of each seed.
        parameters: All its parameters.
        parameters_without_embeddings: Those that are not word vectors.
        megabytes: The size of its weights on disk, in 10^6 bytes.
        per_second: Texts a second, from text to logits, in this run; each text was fresh.
    """

    model: str
    scores: dict[str, dict[str, list[float]]]
    parameters: int
    parameters_without_embeddings: int
    megabytes: float
    per_second: float


@dataclass(frozen=True)
class Results:
    """The results table.

    Attributes:
        metrics: The task's metrics; the first one chose among models.
        rows: Teacher, baseline, student.
        gap_closed: By table and metric, (student - baseline) / (teacher - baseline) of the mean scores; None where the
            teacher is no better than the baseline (Tang et al. 2019, table 1, gives the scores for it).
        notes: What a reader of the table must know.
        titles: The name of each metric for people: which F1 it is.
    """

    metrics: list[str]
    rows: list[Row]
    gap_closed: dict[str, dict[str, float | None]]
    notes: list[str] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no comparison has written."""
        if [row.model for row in self.rows] != ["teacher", "baseline", "student"]:
            raise ValueError("the rows are not teacher, baseline and student")
        if not self.metrics or not self.gap_closed or not all(self.gap_closed.values()):
            raise ValueError("there are no scores")
        for table, shares in self.gap_closed.items():
            if not all(row.scores.get(table, {}).get(metric) for row in self.rows for metric in shares):
                raise ValueError(f"a model has no scores on {table}")


def compare(
    *,
    teacher: TeacherSource,
    baselines: Sequence[Path],
    students: Sequence[Path],
    tables: Mapping[str, pl.DataFrame],
    task: Task,
    device: str,
    precision: str,
    output: Path,
    predictions: Path,
    reporter: Reporter,
) -> Results:
    """Score and time all models on the same texts; write the results as JSON, and the logits of each text.

    Args:
        teacher: Where the teacher comes from.
        baselines: One folder a seed.
        students: One folder a seed.
        tables: The tables to score on, by name; rows without a label are left out.
        task: The task.
        device: Where all models run.
        precision: The teacher's arithmetic.
        output: The JSON file to write.
        predictions: The table to write: ``table``, ``index``, the texts, ``label``, and the logits ``teacher_0``,
            ``teacher_1``, ... of each model; those of baseline and student are of the first seed.
        reporter: Shows the progress.
    """
    labelled, notes = {}, []
    for name, table in tables.items():
        there = table.filter(pl.col("label").is_not_null())
        if len(there):
            labelled[name] = there
            if left_out := len(table) - len(there):
                notes.append(f"{name}: {left_out:,} rows without a label are left out")
    with reporter.progress("compare", 1 + len(baselines) + len(students), "models") as progress:
        big = teacher.load(task, device=device, precision=precision)
        found, speed = _logits(big, labelled)
        big.warn_of_cuts(reporter)
        logits = {"teacher": found}
        rows = [_row("teacher", [_scores(found, labelled, task)], big, big.megabytes, speed)]
        notes += _one_class(found, task)
        progress.advance()
        for name, folders in (("baseline", baselines), ("student", students)):
            scores = []
            for folder in folders:
                small = load_student(folder, device=device)
                found, speed = _logits(small, labelled)
                logits.setdefault(name, found)
                scores.append(_scores(found, labelled, task))
                progress.advance()
            rows.append(_row(name, scores, small, (folder / WEIGHTS).stat().st_size / 1e6, speed))
    metrics = [task.metric, *task.more_metrics]
    gaps = {
        name: {metric: gap_closed(*(row.scores[name][metric] for row in rows)) for metric in metrics}
        for name in labelled
    }
    for note in notes:
        reporter.warn(note)
    results = Results(metrics, rows, gaps, notes, {metric: metric_title(task, metric) for metric in metrics})
    write_table(predictions, _with_logits(labelled, logits, task))
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(asdict(results), indent=1) + "\n", "utf-8")
    return results


def gap_closed(teacher: Sequence[float], baseline: Sequence[float], student: Sequence[float]) -> float | None:
    """Return the share of the gap between baseline and teacher that the student closes, from mean scores."""
    low, high = fmean(baseline), fmean(teacher)
    return (fmean(student) - low) / (high - low) if high > low else None


def _row(name: str, scores: Sequence[Scores], model: Teacher | Student, megabytes: float, speed: float) -> Row:
    """Put the scores of each seed side by side."""
    by_seed = {
        table: {metric: [seed[table][metric] for seed in scores] for metric in found}
        for table, found in scores[0].items()
    }
    return Row(name, by_seed, model.parameters, model.parameters_without_embeddings, megabytes, speed)


def _logits(model: Model, tables: Mapping[str, pl.DataFrame]) -> tuple[Logits, float]:
    """Return the logits of all tables, and the texts a second: each text is fresh, and read once."""
    model.logits([["a"]] * len(model.task.columns))  # what only a first call takes
    begin = time.perf_counter()
    found = {name: model.logits(_texts(table, model.task)) for name, table in tables.items()}
    return found, sum(map(len, tables.values())) / (time.perf_counter() - begin)


def _one_class(logits: Logits, task: Task) -> list[str]:
    """Note a teacher that answers the same whatever the text is."""
    if task.is_score or not all(len(np.unique(found.argmax(1))) < 2 for found in logits.values()):
        return []
    label = task.labels[int(next(iter(logits.values()))[0].argmax())]
    hint = "there is nothing to distil; train it longer, with a higher teacher.lr, or on more rows"
    return [f"the teacher answers {label} for every text: {hint}"]


def _scores(logits: Logits, tables: Mapping[str, pl.DataFrame], task: Task) -> Scores:
    found = {}
    for name, table in tables.items():
        all_metrics = score(task, logits[name], encode_labels(table["label"], task, file=name))
        found[name] = {metric: all_metrics[metric] for metric in (task.metric, *task.more_metrics)}
    return found


def _with_logits(tables: Mapping[str, pl.DataFrame], logits: Mapping[str, Logits], task: Task) -> pl.DataFrame:
    """Return the rows of all tables with the logits of all models."""
    names = [f"{model}_{number}" for model in logits for number in range(task.outputs)]
    return pl.concat(
        table.select(pl.lit(name).alias("table"), "index", *task.columns, "label").hstack(
            pl.DataFrame(np.concatenate([of_model[name] for of_model in logits.values()], axis=1), names)
        )
        for name, table in tables.items()
    )


def _texts(table: pl.DataFrame, task: Task) -> list[list[str]]:
    return [table[column].to_list() for column in task.columns]
