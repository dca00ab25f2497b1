"""Evaluating models on tables: which rows, which models, which comparisons."""

import json
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from made_student import PAIR, SCORE, SINGLE, TEXTS, make_student
from notes import Notes
from raising import raising

from kdcli.api import Task
from kdcli.config.schema import Settings, TaskSettings
from kdcli.errors import DataError, UsageError
from kdcli.evaluate.evaluate import evaluate_models, evaluate_table
from kdcli.student.student import load_student
from kdcli.tasks.metrics import score
from kdcli.teacher.model import TeacherSource


class Fixed:
    """A model with a fixed answer for each text."""

    def __init__(self, task, answers):
        self.task, self.answers = task, answers
        self.sizes = []

    def logits(self, columns):
        self.sizes.append(len(columns[0]))
        return np.eye(self.task.outputs, dtype=np.float32)[[self.answers[text] for text in columns[0]]]


def settings(task, folder):
    tasks = {"name": task.name, "kind": task.kind, "labels": task.labels, "score_range": task.score_range}
    return Settings.model_validate({"task": {**tasks, "metric": task.metric, "data_dir": str(folder)}})


def write(path, header, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in (header, *rows)), "utf-8")
    return path


def test_models_on_the_rows_of_a_table(monkeypatch):
    monkeypatch.setattr("kdcli.evaluate.evaluate.ROWS", 2)
    table = pl.DataFrame({"sentence": ["a", "b b", "c", "d", "e"], "label": ["no", "yes", "yes", "no", "yes"]})
    student = Fixed(SINGLE, {"a": 0, "b b": 1, "c": 1, "d": 1, "e": 0})
    teacher = Fixed(SINGLE, {"a": 0, "b b": 1, "c": 0, "d": 0, "e": 0})
    found = evaluate_table({"student": student, "teacher": teacher, "against": student}, table, SINGLE)
    assert student.sizes == [2, 2, 1, 2, 2, 1]
    assert found.rows == 5
    assert found.models["student"].confusion == [[1, 1], [1, 2]]
    assert found.models["teacher"].confusion == [[2, 0], [2, 1]]
    assert found.models["student"].agreement == pytest.approx(3 / 5) and found.models["teacher"].agreement is None
    assert [(one.first, one.second) for one in found.comparisons] == [("student", "teacher"), ("student", "against")]
    assert (found.comparisons[0].only_first_right, found.comparisons[0].only_second_right) == (1, 1)
    assert {(one.shortest, one.longest, one.rows) for one in found.models["student"].lengths} == {(1, 1, 4), (2, 2, 1)}


def test_matched_and_mismatched_apart(tmp_path):
    student = make_student(tmp_path / "student", PAIR)
    other = make_student(tmp_path / "other", PAIR, seed=2)
    rows = [f"{text}\t{TEXTS[-2]}\t{'abc'[place % 3]}" for place, text in enumerate(TEXTS) if text]
    for name, of_table in (("dev_matched", rows[:5]), ("dev_mismatched", rows[5:])):
        write(tmp_path / "data" / f"{name}.tsv", "sentence1\tsentence2\tlabel", *of_table)
    found = evaluate_models(student=student, against=other, settings=settings(PAIR, tmp_path / "data"))
    assert list(found.tables) == ["dev_matched", "dev_mismatched"]
    assert found.models == {"student": str(student), "against": str(other)}
    model = load_student(student)
    for name, of_table in (("dev_matched", rows[:5]), ("dev_mismatched", rows[5:])):
        columns = list(zip(*(row.split("\t") for row in of_table), strict=True))
        gold = np.array(["abc".index(label) for label in columns[2]])
        expected = score(PAIR, model.logits(columns[:2]), gold)
        measured = found.tables[name].models["student"].metrics
        assert {key: one.value for key, one in measured.items()} == pytest.approx(expected)
    assert json.loads(json.dumps(asdict(found)))["tables"]["dev_matched"]["rows"] == 5


def test_scores_from_a_table_of_ones_own(tmp_path):
    student = make_student(tmp_path / "student", SCORE)
    rows = [f"{text}\tseen\t{place / 2}" for place, text in enumerate(TEXTS) if text]
    table = write(tmp_path / "mine.tsv", "one\ttwo\tstars", *rows)
    columns = TaskSettings(kind="pair", metric="pearson", text_columns=("one", "two"), label_column="stars")
    found = evaluate_models(student=student, settings=Settings(task=columns), profiled=False, table=table)
    (result,) = found.tables.values()
    assert result.rows == len(rows) and list(result.models["student"].metrics) == ["pearson", "spearman"]
    assert found.labels == () and result.models["student"].calibration is None
    one = Settings(task=TaskSettings(metric="pearson", text_columns=("one",)))
    with raising(UsageError, hint="it takes --text-col and --text2-col"):
        evaluate_models(student=student, settings=one, profiled=False, table=table)


def test_the_teacher(tmp_path, monkeypatch):
    student = make_student(tmp_path / "student")
    asked = []

    def load(*arguments, **more):
        asked.append((arguments, more))
        return Fixed(SINGLE, dict.fromkeys(TEXTS, 1))

    monkeypatch.setattr(TeacherSource, "load", load)
    write(tmp_path / "data" / "test.tsv", "sentence\tlabel", *(f"{text}\tyes" for text in TEXTS if text.strip()))
    found = evaluate_models(
        student=student, teacher="some/body", settings=settings(SINGLE, tmp_path / "data"), split="test"
    )
    ((source, task), more) = asked[0]
    assert (source, task.labels, more["precision"]) == (TeacherSource("some/body"), SINGLE.labels, "fp32")
    table = found.tables["test"]
    assert table.models["student"].agreement == pytest.approx(table.models["student"].metrics["accuracy"].value)
    assert found.models["teacher"] == "some/body"


def test_rows_without_labels(tmp_path):
    student, notes = make_student(tmp_path / "student"), Notes()
    table = write(tmp_path / "some.tsv", "sentence\tlabel", "good\tyes", "bad\t-1", "dull\tno")
    found = evaluate_models(student=student, settings=Settings(), profiled=False, table=table, reporter=notes)
    assert found.tables["some.tsv"].rows == 2 and notes.warnings == [
        f"1 rows of {table} have no label, and are skipped"
    ]
    none = write(tmp_path / "none.tsv", "sentence", "good")
    with raising(DataError, "no labels", file=none):
        evaluate_models(student=student, settings=Settings(), profiled=False, table=none)


@pytest.mark.parametrize("task", [PAIR, SCORE, Task("x", "single", ("yes", "no")), Task("y", "single", ("0", "1"))])
def test_a_student_of_another_task(tmp_path, task):
    student = make_student(tmp_path / "student")
    with raising(DataError, "the model is one of task toy", file=student):
        evaluate_models(student=student, settings=settings(task, tmp_path))
