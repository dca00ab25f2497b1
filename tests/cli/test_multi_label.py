from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_teacher import SMALL, make_teacher, texts, write_csv
from scipy.special import expit
from sklearn.metrics import precision_recall_fscore_support

import kdcli
from kdcli.api import Task
from kdcli.student.deferral import Familiar, WordCounts, differs, margins
from kdcli.student.student import load_student
from kdcli.teacher.model import TeacherSource

LABELS = ("good", "bad", "dull")
MULTI = {"problem_type": "multi_label_classification"}


@pytest.fixture
def teacher(tmp_path):
    return make_teacher(tmp_path / "teacher", labels=LABELS, **MULTI)


def sets(logits, thresholds=0.5):
    return ["|".join(np.array(LABELS)[row]) for row in expit(logits.astype(float)) > thresholds]


def gold(text):
    return "|".join(label for label in LABELS if label in text.split())


def test_the_guarantee_is_of_whole_sets_of_labels(kd, tmp_path, teacher, monkeypatch):
    monkeypatch.setattr("kdcli.distillation.texts._TEST_FROM", 50)
    run = tmp_path / "run"
    mails = write_csv(tmp_path / "mails.csv", [[text, gold(text)] for text in texts(300)], ["message", "label"])
    out = kd.ok("distil", teacher, mails, *SMALL, "--agree", "0.8", "--run-dir", run, "--json")
    found = out["deferral"]
    student = kdcli.load_student(run / "student")
    assert student.task.multi_label and len(student.task.thresholds) == 3  # chosen by the gold labels of dev
    held_out = pl.read_parquet(run / "texts/test.parquet")
    columns = [held_out["sentence"].to_list()]
    big = TeacherSource(str(teacher)).load(student.task)
    ours, theirs = sets(student.logits(columns), student.task.thresholds), sets(big.logits(columns))
    deferred = np.array([each.deferred for each in student.predict(columns[0], defer=True)])
    wrong = np.array([one != other for one, other in zip(ours, theirs, strict=True)])
    assert found["answered"] == pytest.approx(1 - deferred.mean())
    entry = student.calibrated.errors()
    assert (~deferred & wrong).sum() == (entry or 0)
    if entry is not None:
        right = np.where(deferred, theirs, ours) == np.array([gold(text) for text in columns[0]])
        assert found["accuracy"] == pytest.approx(right.mean())
    # The pair: the student's thresholds are not the teacher's.
    table = write_csv(tmp_path / "new.csv", [[text] for text in columns[0]], ["message"])
    pair = ("predict", "--student", run, "--teacher", teacher, "--input", table, "--agree", "0.8", "--probabilities")
    kd.ok(*pair, "--output", tmp_path / "out.parquet")
    answers = pl.read_parquet(tmp_path / "out.parquet")
    late = answers["deferred"].to_numpy()
    assert answers["deferred"].to_list() == deferred.tolist() and late.any()
    assert answers["prediction"].to_list() == np.where(late, theirs, ours).tolist()
    shares = answers.select(pl.col("^probability_.*$")).to_numpy()
    np.testing.assert_allclose(shares[late], expit(big.logits(columns))[late], atol=1e-5)
    assert sets(np.log(shares / (1 - shares))) == answers["prediction"].to_list()
    alone = kd.ok("predict", "--student", run, "--input", table, "--defer", "--json")["predictions"]
    assert [row["prediction"] for row in alone] == ours and [row["deferred"] for row in alone] == deferred.tolist()


def test_margins_are_distances_from_the_thresholds():
    task = Task("topics", "single", LABELS, metric="micro_f1", multi_label=True, thresholds=(0.5, 0.3, 0.9))
    draw = np.random.default_rng(3)
    logits = draw.normal(size=(40, 3)).astype(np.float32)
    away = np.abs(logits - np.log(np.array(task.thresholds) / (1 - np.array(task.thresholds)))).min(axis=1)
    counts = WordCounts(np.ones(40, int), np.zeros(40))
    assert margins(logits, counts, task, Familiar(1.0, 9)) == pytest.approx(away)
    wanted = [one != other for one, other in zip(sets(logits, task.thresholds), sets(logits), strict=True)]
    assert differs(logits, logits, task).tolist() == wanted and any(wanted)
    assert not differs(logits, logits, replace(task, thresholds=())).any()


def test_weights_of_an_ensemble_and_the_audit(kd, tmp_path, teacher):
    other = make_teacher(tmp_path / "other", labels=LABELS[::-1], initializer_range=0.9, **MULTI)
    rows = [[text, gold(text)] for text in texts(120)]
    table = write_csv(tmp_path / "mails.csv", rows, ["message", "label"])
    models = ("--set", "teacher.plugin=ensemble", "--set", f'teachers.ensemble.models=["{other}"]')
    run = tmp_path / "run"
    kd.says(0, "weights [", "distil", teacher, table, *models, *SMALL, "--run-dir", run)
    assert load_student(run / "student").task.multi_label
    out = kd.ok("teacher", "audit", "--profile", run / "profile.toml", "--teacher", teacher, "--json")
    sample, dev = out["tables"]["sample"], pl.read_parquet(run / "texts/dev.parquet")
    found = sample["models"]["teacher"]
    assert sample["rows"] == len(dev) and found["confusion"] is None
    source = TeacherSource(str(teacher)).load(load_student(run / "student").task)
    said = expit(source.logits([dev["sentence"].to_list()])) > 0.5
    wanted = [[label in one.split("|") for label in LABELS] for one in dev["label"]]
    scores = precision_recall_fscore_support(wanted, said, zero_division=0)
    for one, *values in zip(found["labels"], *scores, strict=True):
        assert [one["precision"], one["recall"], one["f1"], one["rows"]] == pytest.approx(values)
    out = kd.ok("teacher", "audit", "--profile", run / "profile.toml", "--teacher", teacher)
    assert all(label in out for label in LABELS)
