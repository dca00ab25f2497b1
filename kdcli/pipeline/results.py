"""The results of a run: teacher, labels-only baseline and distilled student side by side."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from kdcli.api import Reporter, Task
from kdcli.data.files import atomic
from kdcli.student.folder import load_student
from kdcli.tasks.layouts import encode_labels
from kdcli.tasks.metrics import score
from kdcli.teacher.model import load_teacher

Columns = Sequence[Sequence[str]]

SPEED_TEXTS = 1024
SPEED_SECONDS = 2.0


@dataclass(frozen=True)
class Row:
    """One model of the results table.

    Attributes:
        model: teacher, baseline or student.
        scores: By split, the task's metric of each seed.
        parameters: All its parameters.
        parameters_without_embeddings: Those that are not word vectors.
        megabytes: The size of its weights on disk, in 10^6 bytes.
        per_second: Texts a second, from text to logits, in this run.
    """

    model: str
    scores: dict[str, list[float]]
    parameters: int
    parameters_without_embeddings: int
    megabytes: float
    per_second: float


@dataclass(frozen=True)
class Results:
    """The results table.

    Attributes:
        metric: The metric of all scores.
        rows: Teacher, baseline, student.
        gap_closed: By split, (student - baseline) / (teacher - baseline) of the mean scores; None where the
            teacher is no better than the baseline (Tang et al. 2019, table 1, gives the scores for it).
    """

    metric: str
    rows: list[Row]
    gap_closed: dict[str, float | None]


def compare(
    *,
    teacher: str | Path,
    baselines: Sequence[Path],
    students: Sequence[Path],
    splits: Mapping[str, pa.Table],
    task: Task,
    max_length: int,
    device: str,
    precision: str,
    output: Path,
    reporter: Reporter,
) -> Results:
    """Score and time all models on the same texts and write the table as JSON.

    Args:
        teacher: Its folder or hub name.
        baselines: One folder a seed.
        students: One folder a seed.
        splits: The tables to score on, by name; those without labels are left out.
        task: The task.
        max_length: The teacher's longest input in word pieces.
        device: Where all models run.
        precision: The teacher's arithmetic.
        output: The JSON file to write.
        reporter: Shows the progress.
    """
    labelled = {name: table for name, table in splits.items() if not table["label"].null_count}
    with reporter.progress("compare", 1 + len(baselines) + len(students), "models") as progress:
        big = load_teacher(teacher, task, max_length=max_length, device=device, precision=precision)
        rows = [
            Row(
                "teacher",
                {name: [value] for name, value in _scores(big.logits, labelled, task).items()},
                big.parameters,
                big.parameters_without_embeddings,
                big.megabytes,
                _speed(big.logits, labelled, task),
            )
        ]
        progress.advance()
        for name, folders in (("baseline", baselines), ("student", students)):
            scores: dict[str, list[float]] = {split: [] for split in labelled}
            for folder in folders:
                small = load_student(folder, device)
                for split, value in _scores(small.logits, labelled, task).items():
                    scores[split].append(value)
                progress.advance()
            megabytes = (folder / "model.safetensors").stat().st_size / 1e6
            counts = small.parameters, small.parameters_without_embeddings
            rows.append(Row(name, scores, *counts, megabytes, _speed(small.logits, labelled, task)))
    results = Results(
        task.metric, rows, {split: gap_closed(*(row.scores[split] for row in rows)) for split in labelled}
    )
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(asdict(results), indent=1) + "\n", "utf-8")
    return results


def gap_closed(teacher: Sequence[float], baseline: Sequence[float], student: Sequence[float]) -> float | None:
    """Return the share of the gap between baseline and teacher that the student closes, from mean scores."""
    low, high = statistics.fmean(baseline), statistics.fmean(teacher)
    return (statistics.fmean(student) - low) / (high - low) if high > low else None


def _scores(logits: Callable[[Columns], np.ndarray], splits: Mapping[str, pa.Table], task: Task) -> dict[str, float]:
    found = {}
    for name, table in splits.items():
        gold = encode_labels(table["label"], task, file=name)
        found[name] = score(task, logits(_texts(table, task)), gold)[task.metric]
    return found


def _speed(logits: Callable[[Columns], np.ndarray], splits: Mapping[str, pa.Table], task: Task) -> float:
    """Time a model from text to logits, after one warm-up, on the same texts for all models (texts a second)."""
    columns = [column[:SPEED_TEXTS] for column in _texts(splits["dev"], task)]
    logits([column[:32] for column in columns])
    begin, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - begin < SPEED_SECONDS:
        logits(columns)
        count += len(columns[0])
    return count / (time.perf_counter() - begin)


def _texts(table: pa.Table, task: Task) -> list[list[str]]:
    return [table[column].to_pylist() for column in task.columns]
