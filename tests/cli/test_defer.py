import csv
import json

import numpy as np
import polars as pl
import pytest
from made_student import SINGLE, TEXTS, make_student
from made_teacher import SMALL, make_teacher, texts, write_csv

import kdcli
from kdcli.errors import DataError
from kdcli.student.deferral import Calibration, Familiar
from kdcli.teacher.model import TeacherSource


def sureness(folder):
    logits = kdcli.load_student(folder).logits([TEXTS])
    return np.abs(logits[:, 0] - logits[:, 1])


@pytest.fixture
def student(tmp_path):
    """A student that answers the familiar texts with a large margin at the agreement of 0.9, and none at 0.99."""
    folder = make_student(tmp_path / "student", SINGLE)
    threshold = float(np.quantile(sureness(folder), 0.3))
    Calibration(60, 0.9, Familiar(0.5, 20), [threshold], [0.05, 0.2], [0.5, 1.0]).save(folder / "calibration.json")
    return folder


@pytest.fixture
def table(tmp_path):
    return write_csv(tmp_path / "texts.csv", [[text] for text in TEXTS], ["sentence"])


def rows(out):
    return list(csv.DictReader(out.splitlines(), delimiter="\t"))


def test_a_run_calibrates_its_student(kd, tmp_path, monkeypatch):
    monkeypatch.setattr("kdcli.distillation.texts._TEST_FROM", 50)
    teacher = make_teacher(tmp_path / "teacher")
    mails = write_csv(tmp_path / "mails.csv", [[text] for text in texts(300)], ["message"])
    out = kd.ok("distil", teacher, mails, *SMALL, "--agree", "0.8", "--json")
    found = out["deferral"]
    assert (found["texts"], found["needed"], found["agree"], found["accuracy"]) == (30, 14, 0.8, None)
    run = tmp_path / "runs/mails"
    # The same figures, from the texts and both models anew.
    student = kdcli.load_student(run / "student")
    held_out = pl.read_parquet(run / "texts/test.parquet")["sentence"].to_list()
    ours, theirs = student.logits([held_out]), TeacherSource(str(teacher)).load(student.task).logits([held_out])
    deferred = np.array([each.deferred for each in student.predict(held_out, defer=True)])
    assert found["answered"] == pytest.approx(1 - deferred.mean())
    errors = (~deferred & (ours.argmax(1) != theirs.argmax(1))).sum()
    assert found["bound"] == pytest.approx(student.calibrated.bounds[errors]) and found["bound"] <= 0.2
    assert not any(each.deferred for each in student.predict(held_out))
    # The student's folder is kd's own, and the run is up to date.
    weights = (run / "student/model.safetensors").stat().st_mtime_ns
    again = ("run-all", "--profile", run / "profile.toml", "--run-dir", run, "--json")
    assert not any(stage["reasons"] for stage in kd.ok(*again)["stages"])
    assert "30 calibration texts" in (run / "report.html").read_text()
    # Another target calibrates alone, and times no cold start; another student is calibrated again.
    before = json.loads((run / "distil.json").read_text())["cold_start"]
    out = kd.ok("distil", teacher, mails, *SMALL, "--agree", "0.9", "--json")
    assert (out["deferral"]["agree"], out["cold_start"]) == (0.9, before)
    assert (run / "student/model.safetensors").stat().st_mtime_ns == weights
    assert kdcli.load_student(run / "student").calibrated.agree == 0.9
    stages = kd.ok(*again, "--set", "student.lr=0.01")["stages"]
    assert [stage["stage"] for stage in stages if stage["reasons"]] == ["student", "results", "calibrate"]
    out = kd.ok(*again[:-1], "--set", "student.lr=0.01")  # the table, though another stage is the last
    assert "texts/s" in out and "report.html" in out
    student = kdcli.load_student(run / "student")
    kd.ok("export", "hub-folder", "--student", run, "--output", "hub")
    assert kdcli.load_student("hub").calibration == student.calibration
    student.save(tmp_path / "saved")
    assert kdcli.load_student(tmp_path / "saved").calibration == student.calibration


def test_too_few_texts_to_calibrate_are_said_before_the_work(kd, tmp_path):
    teacher = make_teacher(tmp_path / "teacher")
    mails = write_csv(tmp_path / "mails.csv", [[text] for text in texts(40)], ["message"])
    asked = ("distil", teacher, mails, "--agree", "0.999", "--run-dir", tmp_path / "run", "--dry-run")
    kd.says(0, ("2,995", "29,950"), *asked)


def test_a_column_says_what_is_deferred(kd, student, table, tmp_path):
    loaded = kdcli.load_student(student)
    unsure = sureness(student) <= loaded.calibrated.margins[0]
    out = kd.ok("predict", "--student", student, "--input", table, "--defer", "--probabilities")
    found = [row["deferred"] == "true" for row in rows(out)]
    # Unknown words, an empty text, and one of more than 20 words are deferred however sure the student is.
    assert TEXTS[1] == "" and TEXTS[2].startswith("unheard") and found[1] and found[2] and found[5]
    familiar = [0, 3, 4, 7, 9]
    assert [found[row] for row in familiar] == unsure[familiar].tolist() and not all(found)
    assert [each.deferred for each in loaded.predict(TEXTS, defer=True)] == found
    output = tmp_path / "out.parquet"
    kd.ok("predict", "--student", student, "--input", table, "--defer", "--output", output, "--keep")
    assert pl.read_parquet(output)["deferred"].to_list() == found
    for more in (("--input", table, "--output", tmp_path / "out.txt"), ("--glue", tmp_path, "--profile", "sst2")):
        assert kd("predict", "--student", student, "--defer", *more)[0] == 2  # no place for the column
    # So many calibration texts are needed, and so many there are.
    out = kd.says(0, ("299", "60"), "predict", "--student", student, "--input", table, "--agree", "0.99")
    assert all(row["deferred"] == "true" for row in rows(out))


def test_the_teacher_answers_what_is_deferred(kd, student, table, tmp_path):
    teacher = make_teacher(tmp_path / "teacher", labels=("no", "yes"))
    output = tmp_path / "out.parquet"
    pair = ("predict", "--student", student, "--teacher", teacher, "--input", table, "--output", output)
    out = kd.ok(*pair, "--agree", "0.9", "--probabilities", "--json")
    found, loaded = pl.read_parquet(output), kdcli.load_student(student)
    deferred = found["deferred"].to_numpy()
    assert 0 < deferred.sum() < len(TEXTS)
    told = out["deferral"]
    assert told["texts"] == len(TEXTS) and told["deferred"] == pytest.approx(deferred.mean())
    assert told["per_second"] > 0 and told["teacher_per_second"] > 0
    logits = loaded.logits([TEXTS])
    logits[deferred] = TeacherSource(str(teacher)).load(loaded.task).logits([TEXTS])[deferred]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    there = np.array([bool(text.strip()) for text in TEXTS])  # an empty text has no prediction
    np.testing.assert_allclose(found["probability_yes"].to_numpy()[there], shares[there, 1], atol=1e-5)
    assert kd(*pair, "--agree", "0.9")[0] == 4  # the output exists
    assert kd(*pair[:-1], teacher / "out.parquet", "--agree", "0.9")[0] == 2
    assert kd(*pair[:-2])[0] == 2  # which of the two is it?


@pytest.mark.parametrize("agree", ["1.0", "0", "1.5", "-1", "much"])
def test_an_agreement_that_cannot_be_promised(kd, student, table, agree):
    for command in (("predict", "--student", student, "--input", table), ("distil", "model", table)):
        kd.says(2, "deferral.agree", *command, "--agree", agree)


def test_a_student_of_an_older_kd(kd, tmp_path, table):
    folder = make_student(tmp_path / "old", SINGLE)
    kd.says(4, "deferral.calibrate", "predict", "--student", folder, "--input", table, "--defer")
    student = kdcli.load_student(folder)
    with pytest.raises(DataError):
        student.predict(["good"], defer=True)
    assert not student.predict(["good"])[0].deferred
    assert kd("predict", "--teacher", folder, "--input", table, "--defer")[0] == 2
    (folder / "calibration.json").write_text("{}")
    assert kd("predict", "--student", folder, "--input", table)[0] == 4
