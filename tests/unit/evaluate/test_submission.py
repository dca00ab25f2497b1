import numpy as np
import pytest
from glue_tables import TASKS, write

from kdcli.api import Task
from kdcli.config.load import load_profile
from kdcli.errors import DataError
from kdcli.evaluate.submission import glue_task, predict_glue, submission_files
from kdcli.tasks import glue
from kdcli.tasks.split import task_from

FILES = {
    "cola": ["CoLA"],
    "sst2": ["SST-2"],
    "mrpc": ["MRPC"],
    "stsb": ["STS-B"],
    "qqp": ["QQP"],
    "mnli": ["MNLI-m", "MNLI-mm"],
    "qnli": ["QNLI"],
    "rte": ["RTE"],
    "wnli": ["WNLI"],
    "ax": ["AX"],
}
"""The names that https://gluebenchmark.com/faq asks for."""


class Turns:
    """A model that gives its classes by turns, and scores from far below the range to far above."""

    def __init__(self, task):
        self.task = task

    def logits(self, columns):
        rows = np.arange(len(columns[0]))
        if self.task.is_score:
            return (rows[:, None] * 2 - 4).astype(np.float32)
        return np.eye(self.task.outputs, dtype=np.float32)[rows % self.task.outputs]


def settings_for(name, folder):
    return load_profile(name, environ={}).settings.task.model_copy(update={"data_dir": str(folder)})


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_every_task(name, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    if name == "ax":
        data.mkdir()
        rows = "".join(f"{row}\tIt rains .\tIt is wet .\n" for row in range(12))
        (data / "diagnostic.tsv").write_text(f"index\tsentence1\tsentence2\n{rows}")
    else:
        write(name, data)
    settings = settings_for(name, data)
    written = predict_glue(Turns(task_from(settings)), settings, out, origin={})
    assert [result.output for result in written] == [out / f"{file}.tsv" for file in FILES[name]]
    assert sorted(out.iterdir()) == sorted(result.output for result in written)
    for result in written:
        header, *lines = [line.split("\t") for line in result.output.read_text().splitlines()]
        assert header == ["index", "prediction"]
        assert [line[0] for line in lines] == [str(row) for row in range(12)]
        told = [line[1] for line in lines]
        if name == "stsb":
            assert [float(score) for score in told] == [0, 0, 0, 2, 4, *[5] * 7]
        else:
            labels = {"mnli": TASKS["mnli"], "ax": TASKS["mnli"]}.get(name, TASKS.get(name))
            assert labels is not None
            known = {labels.row(place)[labels.label] for place in range(48)} - {"-"}
            assert set(told) == known == set(glue.TASKS[name].labels)


def test_labels_are_written_as_glue_writes_them():
    """The Hub numbers the classes that GLUE's tables name."""
    task = Task("rte", "pair", ("0", "1"), names=("entailment", "not_entailment"))
    assert glue_task(task, "rte").labels == ("entailment", "not_entailment")
    turned = Task("mnli", "pair", ("contradiction", "neutral", "entailment"))
    assert glue_task(turned, "ax").labels == turned.labels


@pytest.mark.parametrize("labels", [("yes", "no"), ("0", "1", "2"), ()])
def test_other_labels_are_refused(labels):
    with pytest.raises(DataError, match="GLUE's sst2 has the labels 0, 1"):
        glue_task(Task("mine", "single", labels), "sst2")


def test_test_tables_that_glue_has_not(tmp_path):
    with pytest.raises(DataError, match="there is no test table"):
        submission_files(settings_for("sst2", tmp_path), tmp_path)
    (tmp_path / "test.tsv").write_text("index\tsentence1\tsentence2\n0\ta\tb\n")
    with pytest.raises(DataError, match="test_matched and test_mismatched"):
        submission_files(settings_for("mnli", tmp_path), tmp_path)
