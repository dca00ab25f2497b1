"""The task that a profile describes."""

from kdcli.profile.schema import TaskSettings
from kdcli.tasks.task import task_from


def test_a_task_has_what_the_profile_says():
    settings = TaskSettings(name="nli", kind="pair", labels=("e", "n", "c"), names=("yes", "maybe", "no"), metric="mcc")
    task = task_from(settings)
    assert (task.name, task.kind, task.labels, task.names) == ("nli", "pair", ("e", "n", "c"), ("yes", "maybe", "no"))
    assert (task.metric, task.score_range, task.is_score, task.outputs) == ("mcc", None, False, 3)
    assert task.columns == ("sentence1", "sentence2")


def test_a_task_of_scores():
    task = task_from(TaskSettings(name="stsb", score_range=(0, 5), metric="spearman"))
    assert (task.is_score, task.outputs, task.score_range, task.columns) == (True, 1, (0, 5), ("sentence",))
