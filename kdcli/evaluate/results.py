"""The results of a run: teacher, labels-only baseline and distilled student side by side."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.evaluate.predictions import Model
from kdcli.files import atomic
from kdcli.student.folder import LoadedStudent, load_student
from kdcli.student.loaded import load_student as load_predictor
from kdcli.tables.read import write_table
from kdcli.tasks.labels import encode_labels
from kdcli.tasks.metrics import score
from kdcli.teacher.model import Teacher, load_teacher

Scores = dict[str, dict[str, float]]
"""By table and metric."""
Logits = dict[str, NDArray[np.float32]]
"""``float32 [rows, task.outputs]`` by table."""

SPEED_TEXTS = 1024
SPEED_SECONDS = 2.0


@dataclass(frozen=True)
class Row:
    """One model of the results table.

    Attributes:
        model: teacher, baseline or student.
        scores: By table and metric, the score of each seed.
        parameters: All its parameters.
        parameters_without_embeddings: Those that are not word vectors.
        megabytes: The size of its weights on disk, in 10^6 bytes.
        per_second: Texts a second, from text to logits, in this run.
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
        metrics: The task's metrics; the first has chosen among models.
        rows: Teacher, baseline, student.
        gap_closed: By table and metric, (student - baseline) / (teacher - baseline) of the mean scores; None where the
            teacher is no better than the baseline (Tang et al. 2019, table 1, gives the scores for it).
    """

    metrics: list[str]
    rows: list[Row]
    gap_closed: dict[str, dict[str, float | None]]


def compare(
    *,
    teacher: str | Path,
    baselines: Sequence[Path],
    students: Sequence[Path],
    tables: Mapping[str, pa.Table],
    task: Task,
    max_length: int,
    device: str,
    precision: str,
    output: Path,
    predictions: Path,
    reporter: Reporter,
) -> Results:
    """Score and time all models on the same texts; write the table as JSON, and what they say of each text.

    Args:
        teacher: Its folder or hub name.
        baselines: One folder a seed.
        students: One folder a seed.
        tables: What to score on, by name; those without labels are left out.
        task: The task.
        max_length: The teacher's longest input in word pieces.
        device: Where all models run.
        precision: The teacher's arithmetic.
        output: The JSON file to write.
        predictions: The table to write: ``table``, ``index``, the texts, ``label``, and of each model the logits
            ``teacher_0``, ``teacher_1``, ...; of baseline and student those of the first seed.
        reporter: Shows the progress.
    """
    labelled = {name: table for name, table in tables.items() if not table["label"].null_count}
    with reporter.progress("compare", 1 + len(baselines) + len(students), "models") as progress:
        big = load_teacher(teacher, task, max_length=max_length, device=device, precision=precision)
        logits = {"teacher": _logits(big, labelled)}
        rows = [_row("teacher", [_scores(logits["teacher"], labelled, task)], big, big.megabytes, labelled, big)]
        progress.advance()
        for name, folders in (("baseline", baselines), ("student", students)):
            scores = []
            for folder in folders:
                small = load_student(folder, device)
                found = _logits(small, labelled)
                logits.setdefault(name, found)
                scores.append(_scores(found, labelled, task))
                progress.advance()
            megabytes = (folder / "model.safetensors").stat().st_size / 1e6
            predicting = load_predictor(folder) if device == "cpu" else small
            rows.append(_row(name, scores, small, megabytes, labelled, predicting))
    metrics = [task.metric, *task.more_metrics]
    gaps = {
        name: {metric: gap_closed(*(row.scores[name][metric] for row in rows)) for metric in metrics}
        for name in labelled
    }
    results = Results(metrics, rows, gaps)
    _write_predictions(predictions, labelled, logits, task)
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(asdict(results), indent=1) + "\n", "utf-8")
    return results


def gap_closed(teacher: Sequence[float], baseline: Sequence[float], student: Sequence[float]) -> float | None:
    """Return the share of the gap between baseline and teacher that the student closes, from mean scores."""
    low, high = statistics.fmean(baseline), statistics.fmean(teacher)
    return (statistics.fmean(student) - low) / (high - low) if high > low else None


def _row(
    name: str,
    scores: Sequence[Scores],
    model: Teacher | LoadedStudent,
    megabytes: float,
    tables: Mapping[str, pa.Table],
    predicting: Model,
) -> Row:
    """Put the scores of each seed side by side, and time the last model in the form that ``kd predict`` takes."""
    by_seed = {
        table: {metric: [seed[table][metric] for seed in scores] for metric in scores[0][table]} for table in tables
    }
    speed = _speed(predicting, next(iter(tables.values())))
    return Row(name, by_seed, model.parameters, model.parameters_without_embeddings, megabytes, speed)


def _logits(model: Teacher | LoadedStudent, tables: Mapping[str, pa.Table]) -> Logits:
    return {name: model.logits(_texts(table, model.task)) for name, table in tables.items()}


def _scores(logits: Logits, tables: Mapping[str, pa.Table], task: Task) -> Scores:
    found = {}
    for name, table in tables.items():
        all_metrics = score(task, logits[name], encode_labels(table["label"], task, file=name))
        found[name] = {metric: all_metrics[metric] for metric in (task.metric, *task.more_metrics)}
    return found


def _write_predictions(path: Path, tables: Mapping[str, pa.Table], logits: Mapping[str, Logits], task: Task) -> None:
    texts = ["index", *task.columns, "label"]
    outputs = [f"{model}_{number}" for model in logits for number in range(task.outputs)]
    fields = [pa.field(name, pa.string()) for name in ("table", *texts)]
    schema = pa.schema([*fields, *(pa.field(name, pa.float32()) for name in outputs)])
    with write_table(path, schema) as writer:
        for name, table in tables.items():
            told = np.concatenate([of_model[name] for of_model in logits.values()], axis=1)
            columns = [pa.array([name] * len(table)), *(table[column] for column in texts), *map(pa.array, told.T)]
            writer.write(pa.table(columns, schema=schema))


def _speed(model: Model, table: pa.Table) -> float:
    """Time a model from text to logits, after one warm-up, on the same texts for all models (texts a second)."""
    columns = [column[:SPEED_TEXTS] for column in _texts(table, model.task)]
    model.logits([column[:32] for column in columns])
    begin, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - begin < SPEED_SECONDS:
        model.logits(columns)
        count += len(columns[0])
    return count / (time.perf_counter() - begin)


def _texts(table: pa.Table, task: Task) -> list[list[str]]:
    return [table[column].to_pylist() for column in task.columns]
