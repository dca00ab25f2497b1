"""Evaluate a student on labelled tables: alone, beside its teacher, and against another student."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Progress, QuietReporter, Reporter, Task
from kdcli.config.schema import Settings
from kdcli.errors import DataError
from kdcli.evaluate.pair import Model
from kdcli.models.device import resolve
from kdcli.run import artefact, is_run, student_folder, teacher_of, transfer_set
from kdcli.student.student import load_student
from kdcli.tables.parquet import scan, slices
from kdcli.tasks.answers import at_half
from kdcli.tasks.labels import encode_labels
from kdcli.tasks.metrics import metric_title
from kdcli.tasks.split import check_task, load_table, load_tables, table_settings, task_from
from kdcli.tasks.statistics import Comparison, Evaluation, compare_models, count_words, evaluate
from kdcli.teacher.model import TeacherSource
from kdcli.transfer.cleaning import keys

ROWS = 1024
ORDER = ("student", "teacher", "against")  # the order of the models; the first is compared with the others


@dataclass(frozen=True)
class TableEvaluation:
    """All models on one table: ``student``, ``teacher``, ``against``; and the student compared with the others."""

    rows: int
    models: dict[str, Evaluation]
    comparisons: list[Comparison]
    unanswered: int = 0  # rows that the teacher has left without an answer: no score counts them


@dataclass(frozen=True)
class EvalReport:
    """The result of ``kd eval``."""

    task: str
    labels: tuple[str, ...]  # in the order of the confusion matrices
    names: tuple[str, ...]
    metric: str
    models: dict[str, str]  # where each model lies
    tables: dict[str, TableEvaluation]  # MNLI's matched and mismatched apart
    f1: str = ""  # which F1 it is: that of a label, or the macro average


def evaluate_models(
    *,
    student: Path,
    teacher: str | None = None,
    against: Path | None = None,
    settings: Settings,
    profiled: bool = True,
    table: Path | None = None,
    split: Literal["dev", "test"] = "dev",
    reporter: Reporter = QuietReporter(),
) -> EvalReport:
    """Evaluate models on one table, or on those of a split.

    A model is named by its folder or its run, the teacher also by its hub name. ``profiled``: the settings describe the
    task; otherwise the student does, and they only say how to read a table. The teacher runs on their device, a student
    on the CPU. A model of another task, or a table without labels, is a ``DataError``.
    """
    places = {"student": str(student_folder(student))}
    places |= {} if against is None else {"against": str(student_folder(against))}
    models: dict[str, Model] = {name: load_student(place) for name, place in places.items()}
    tasks = table_settings(models["student"].task, settings.task, places["student"], profiled=profiled)
    task = task_from(tasks)
    if against is not None:
        check_task(models["against"].task, task, places["against"])
    if teacher is not None:
        places["teacher"] = teacher_of(teacher)
        logits = artefact(student, "logits") if is_run(student) else None
        source = TeacherSource.of(settings, places["teacher"], logits)
        device = resolve(settings.device)
        models["teacher"] = source.load(task, device=device, precision=settings.precision, reporter=reporter)
    models = {name: models[name] for name in ORDER if name in models}
    if table is not None:
        tables = {table.name: load_table(table, tasks, task, reporter)}
    else:
        tables = load_tables(tasks, task, split, reporter)
    _warn_of_seen(student, tables, task, reporter)
    labelled = {name: _labelled(rows, table or name, reporter) for name, rows in tables.items()}
    how: dict[str, Any] = {"seed": settings.seed, "reporter": reporter}
    found = {name: evaluate_table(models, rows, task, name=name, **how) for name, rows in labelled.items()}
    return _report(task, {name: places[name] for name in models}, found)


def audit_teacher(
    teacher: TeacherSource, table: pl.DataFrame, task: Task, settings: Settings, reporter: Reporter
) -> EvalReport:
    """Evaluate a teacher on a labelled table; one that answers none of its texts is a ``DataError``."""
    device, precision = resolve(settings.device), settings.precision
    model = teacher.load(task, device=device, precision=precision, reporter=reporter)
    found = evaluate_table({"teacher": model}, table, task, seed=settings.seed, name="sample", reporter=reporter)
    return _report(task, {"teacher": teacher.model}, {"sample": found})


def draw_labelled(table: pl.DataFrame, rows: int, seed: int, reporter: Reporter) -> pl.DataFrame:
    """Draw labelled rows at random, in the order of the table; a table without labels is a ``DataError``."""
    table = _labelled(table, "the table", reporter)
    return table[np.sort(np.random.default_rng(seed).permutation(len(table))[:rows])]


def _report(task: Task, places: dict[str, str], found: dict[str, TableEvaluation]) -> EvalReport:
    f1 = "" if task.is_score or task.multi_label else metric_title(task, "f1")
    return EvalReport(task.name, task.labels, task.names, task.metric, places, found, f1)


def evaluate_table(
    models: Mapping[str, Model],
    table: pl.DataFrame,
    task: Task,
    *,
    seed: int = 1,
    name: str = "the table",
    reporter: Reporter = QuietReporter(),
) -> TableEvaluation:
    """Evaluate models on a labelled table, and compare the first with the others; agreement is with ``teacher``."""
    gold = encode_labels(table["label"], task, file=name)
    columns = [table[column].to_list() for column in task.columns]
    with reporter.progress(f"evaluate {name}", len(models) * len(gold)) as progress:
        outputs = {key: _outputs(model, columns, progress) for key, model in models.items()}
    words = count_words(columns)
    there = np.all([np.isfinite(made).all(axis=1) for made in outputs.values()], axis=0)
    if not there.any():
        raise DataError("the teacher has answered none of these texts", file=name)
    if not there.all():
        reporter.warn(f"{(~there).sum():,} rows of {name} are left out, since the teacher has not answered them")
        outputs, gold, words = {key: made[there] for key, made in outputs.items()}, gold[there], words[there]
    teachers = {key: None if key == "teacher" else outputs.get("teacher") for key in outputs}
    tasks = {key: replace(task, thresholds=models[key].task.thresholds) for key in models}
    evaluated = {
        key: evaluate(tasks[key], made, gold, words, teacher=teachers[key], seed=seed) for key, made in outputs.items()
    }
    first, *others = ((key, at_half(made, tasks[key])) for key, made in outputs.items())
    compared = [compare_models(task, first, other, gold, seed=seed) for other in others]
    return TableEvaluation(len(gold), evaluated, compared, int((~there).sum()))


def _outputs(model: Model, columns: list[list[str]], progress: Progress) -> NDArray[np.float32]:
    made = []
    for begin in range(0, len(columns[0]), ROWS):
        made.append(model.logits([column[begin : begin + ROWS] for column in columns]))
        progress.advance(len(made[-1]))
    return np.concatenate(made)


def _warn_of_seen(student: Path, tables: Mapping[str, pl.DataFrame], task: Task, reporter: Reporter) -> None:
    path = transfer_set(student) if is_run(student) else None
    if path is None:
        return
    learned = np.concatenate([keys(rows) for rows in slices(scan(path, task.columns), 64 * ROWS)])
    for name, table in tables.items():
        if seen := int(np.isin(keys(table.select(task.columns)), learned).sum()):
            what = f"{seen:,} of the {len(table):,} texts of {name} stand in the student's training set"
            reporter.warn(f"{what}: its scores on them say little about other texts")


def _labelled(table: pl.DataFrame, place: str | Path, reporter: Reporter) -> pl.DataFrame:
    """Return the rows that have labels; a table without any is a ``DataError``."""
    rows = table.filter(pl.col("label").is_not_null())
    if not len(rows):
        hint = "GLUE keeps back those of its test sets: --split dev; name another column with --label-col"
        raise DataError("this table has no labels to evaluate on", file=place, hint=hint)
    if len(rows) < len(table):
        reporter.warn(f"{len(table) - len(rows):,} rows of {place} have no label, and are skipped")
    return rows
