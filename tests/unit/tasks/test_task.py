"""The task that a profile describes."""

from dataclasses import fields

import pytest

from kdcli.api import Task
from kdcli.config.schema import TaskSettings
from kdcli.tasks.task import settings_of, task_from

CLASSES = Task("nli", "pair", ("e", "n"), ("yes", "maybe"), metric="mcc", more_metrics=("f1", "accuracy"))
SCORES = Task("stsb", "single", (), score_range=(0.0, 5.0), metric="pearson", more_metrics=("spearman",))


def test_a_task_has_what_the_profile_says():
    settings = TaskSettings(name="nli", kind="pair", labels=("e", "n", "c"), names=("yes", "maybe", "no"), metric="mcc")
    task = task_from(settings)
    assert (task.name, task.kind, task.labels, task.names) == ("nli", "pair", ("e", "n", "c"), ("yes", "maybe", "no"))
    assert (task.metric, task.score_range, task.is_score, task.outputs) == ("mcc", None, False, 3)
    assert task.columns == ("sentence1", "sentence2")


def test_a_task_of_scores():
    task = task_from(TaskSettings(name="stsb", score_range=(0, 5), metric="spearman"))
    assert (task.is_score, task.outputs, task.score_range, task.columns) == (True, 1, (0, 5), ("sentence",))


@pytest.mark.parametrize("task", [CLASSES, SCORES], ids=lambda task: task.name)
def test_settings_of_a_task_make_that_task(task):
    assert task_from(settings_of(task)) == task


def test_the_round_trip_covers_every_field():
    plain = Task("custom", "single", ())
    for field in fields(Task):
        assert any(getattr(task, field.name) != getattr(plain, field.name) for task in (CLASSES, SCORES))
