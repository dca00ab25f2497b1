import json
from collections import Counter

import numpy as np
import polars as pl
import pytest
from made_teacher import SMALL, make_teacher, texts, write_csv
from safetensors import safe_open
from safetensors.numpy import load_file
from scipy.special import log_softmax
from transformers import BertForSequenceClassification

import kdcli
from kdcli.distillation import choose
from kdcli.errors import DataError
from kdcli.teacher.model import Teacher, TeacherSource


@pytest.fixture
def teacher(tmp_path):
    return make_teacher(tmp_path / "teacher")


@pytest.fixture
def mails(tmp_path):
    rows = [[number, f'{text},\nhe said "{text}"', "2026-01-02"] for number, text in enumerate(texts(80))]
    return write_csv(tmp_path / "mails.csv", rows, ["id", "message", "date"])


def test_from_a_table_without_labels_to_a_student(kd, tmp_path, teacher, mails):
    result = kd.ok("distil", teacher, mails, *SMALL, "--json")
    assert (result["student"], result["report"]) == ("runs/mails/student", "runs/mails/report.html")
    counts = {"read": 80, "duplicates": 0, "beyond": 0, "train": 72, "dev": 8, "test": 0, "labelled": False}
    assert result["counts"] == counts
    speeds = {row["model"]: row["per_second"] for row in result["results"]["rows"]}
    assert list(speeds) == ["teacher", "tf-idf", "student"]
    assert result["cost"] == pytest.approx({model: 0.1 / 3600 * 1e6 / speed for model, speed in speeds.items()})
    assert result["cold_start"].keys() == {"teacher", "student"} and min(result["cold_start"].values()) > 0
    run = tmp_path / "runs/mails"
    page = (run / "report.html").read_text()
    assert all(f"{value:.2g}</td>" in page for value in result["cost"].values()) and "cold start" in page
    profile = run / "profile.toml"
    assert 'labels = ["negative", "positive"]' in profile.read_text()
    card = (run / "student/README.md").read_text()
    assert "dev accuracy against the teacher's answers" in card and "| dev accuracy |" not in card
    code, _, err = kd("export", "hub-folder", "--student", run, "--output", "hub")
    assert code == 0 and "metric_value" not in (tmp_path / "hub/README.md").read_text() and "type: accuracy" not in err
    # The figures, computed anew from the student's folder and the teacher's.
    dev = pl.read_parquet(run / "texts/dev.parquet")["sentence"].to_list()
    assert all("\n" in text for text in dev)
    student = kdcli.load_student(run / "student")
    ours, theirs = student.logits([dev]), TeacherSource(str(teacher)).load(student.task).logits([dev])
    near = result["results"]["rows"][-1]["fidelity"]["dev"]
    assert near["agreement"]["value"] == pytest.approx((ours.argmax(1) == theirs.argmax(1)).mean())
    p, q = (log_softmax(logits.astype(float), 1) for logits in (theirs, ours))
    assert near["kl"]["value"] == pytest.approx((np.exp(p) * (p - q)).sum(1).mean(), abs=1e-5)
    centred = [logits - logits.mean(1, keepdims=True) for logits in (ours.astype(float), theirs.astype(float))]
    spread = ((centred[1] - centred[1].mean(0)) ** 2).sum()
    assert near["r2"]["value"] == pytest.approx(1 - ((centred[0] - centred[1]) ** 2).sum() / spread, abs=1e-4)
    # The same again, by both doors, has nothing to do.
    before = (run / "student/model.safetensors").stat().st_mtime_ns
    again = kd.ok("distil", teacher, mails, *SMALL, "--json", "--price", "0.2")
    assert (again["plan"], again["cold_start"]) == (result["plan"], result["cold_start"])
    assert again["cost"]["student"] == pytest.approx(2 * result["cost"]["student"])
    assert "at 0.2 for an hour" in (run / "report.html").read_text()
    out = kd.ok("run-all", "--profile", profile, "--run-dir", run, "--json")
    assert all(not stage["reasons"] for stage in out["stages"])
    assert (run / "student/model.safetensors").stat().st_mtime_ns == before
    for model in ("--student", "--teacher"):  # the column is that of the run
        assert len(kd.ok("predict", model, run, "--input", mails).splitlines()) == 81
    # No student is replaced unasked.
    kd.says(2, (f"a student of {teacher}", "--force"), "distil", "another", mails, *SMALL)
    kd.says(0, "its student is replaced, since budget changed", "distil", teacher, mails, *SMALL, "--budget", "60")


def test_gold_labels_are_used_where_they_are(kd, tmp_path, teacher):
    rows = [[text, ("Negative", "Positive")[number % 2]] for number, text in enumerate(texts(60))]
    table = write_csv(tmp_path / "films.csv", rows, ["text", "verdict"])
    run = tmp_path / "run"
    found = kd.ok("distil", teacher, table, *SMALL, "--run-dir", run, "--json")
    assert found["counts"]["labelled"]  # the column that holds the teacher's labels
    scored = kd.ok("eval", "--student", run, "--input", table, "--json")  # it knows the columns
    assert scored["tables"]["films.csv"]["rows"] == 60
    assert [row["model"] for row in found["results"]["rows"]] == ["teacher", "baseline", "tf-idf", "student"]
    assert found["cold_start"].keys() == {"teacher", "baseline", "student"}
    assert kdcli.load_student(run / "student").task.labels == ("Negative", "Positive")
    other = ("--run-dir", tmp_path / "other", "--label-col", "none")
    assert not kd.ok("distil", teacher, table, *SMALL, *other, "--json")["counts"]["labelled"]
    rows[40][1] = "neutral"
    write_csv(table, rows, ["text", "label"])
    kd.says(4, ("neutral", "films.csv, key label"), "distil", teacher, table, *SMALL, "--run-dir", tmp_path / "third")


def test_pairs_and_scores_from_python(tmp_path):
    teacher = make_teacher(tmp_path / "score", labels=("score",))
    pairs = list(zip(texts(40), texts(40, 2), strict=True))
    settings = {"student.max_size": 60, "student.dimension": 8, "student.epochs": 2, "student.vectors": ""}
    settings |= {"students.bilstm.hidden": 8, "students.bilstm.fc": 8, "transfer.lite.workers": 1}
    student = kdcli.distil(teacher, pairs, settings={**settings, "transfer.lite.n_iter": 1})
    assert student.task.is_score and student.task.kind == "pair"
    assert len(student.predict(pairs[:3])) == 3
    with pytest.raises(DataError):
        kdcli.distil(teacher, [*pairs, ("one alone",)], settings=settings)
    student.save(tmp_path / "saved")
    saved, made = (one.logits([["good"], ["bad"]]) for one in (kdcli.load_student(tmp_path / "saved"), student))
    # Other texts than it predicted before: products of other sizes may differ in the last bit.
    np.testing.assert_allclose(saved, made, rtol=1e-5)


def test_a_zero_shot_teacher(kd, tmp_path):
    teacher = make_teacher(tmp_path / "nli", labels=("entailment", "neutral", "contradiction"))
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"{text}\n" for text in texts(60)))
    kd.ok("distil", teacher, lines, "--labels", "good, bad,dull", *SMALL, "--run-dir", tmp_path / "run")
    student = kdcli.load_student(tmp_path / "run/student")
    assert student.task.labels == ("good", "bad", "dull")
    shares = student.predict_proba(["a good film", "a dull plot"])
    assert shares.shape == (2, 3) and np.allclose(shares.sum(1), 1)
    kd.says(2, "--labels", "distil", teacher, lines, *SMALL, "--run-dir", tmp_path / "other")


@pytest.mark.parametrize(
    ("labels", "arguments", "code", "word"),
    [
        (("negative", "positive"), ("--labels", "good,bad"), 2, "negative, positive"),
        (("negative", "positive"), ("--labels", "good"), 2, "two or more"),
        (("negative", "positive"), ("--minutes", "0"), 2, "--minutes"),
        (("negative", "positive"), ("--budget", "0"), 2, "--budget"),
        (("negative", "positive"), ("--budget", "many"), 2, "--budget"),
        (("score",), ("--labels", "good,bad"), 2, "score"),
        (("negative", "positive"), ("--text-col", "id"), 4, "no texts"),
        (("negative", "positive"), ("--text-col", "body"), 4, "id (0), message"),
    ],
)
def test_what_does_not_go_together(kd, tmp_path, mails, labels, arguments, code, word):
    teacher = make_teacher(tmp_path / "teacher", labels=labels)
    kd.says(code, word, "distil", teacher, mails, *arguments, "--run-dir", tmp_path / "run")
    assert not (tmp_path / "run/kd.lock").exists()


def test_what_is_wrong_with_a_teacher_shows_before_the_work(kd, tmp_path, mails):
    folder = make_teacher(tmp_path / "broken")
    model = BertForSequenceClassification.from_pretrained(folder)
    model.classifier.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    run = tmp_path / "run"
    kd.says(4, ("not finite", "key teacher.model"), "distil", folder, mails, "--run-dir", run)
    own = ("--set", "teacher.train=false", "--set", f"teacher.model={folder}", "--run-dir", run)
    kd.says(4, "not finite", "run-all", *own)
    assert not (run / "texts").exists() and not (run / "transfer").exists()


def test_labels_of_the_file_and_of_the_teacher(kd, tmp_path):
    folder = make_teacher(tmp_path / "nli", labels=("entailment", "neutral", "contradiction"))
    rows = [[text, ("good", "bad")[len(text) % 2]] for text in texts(40)]
    table = write_csv(tmp_path / "a.csv", rows, ["text", "label"])
    asked = ("distil", folder, table, *SMALL, "--run-dir", tmp_path / "run", "--dry-run")
    kd.says(0, "a.csv: none of the first rows has the label dull", *asked, "--labels", "good,bad,dull")
    kd.says(4, ("no labels bad", "--label-col none", "key label"), *asked, "--labels", "good,dull")
    generic = make_teacher(tmp_path / "generic", labels=(None, None, None))
    kd.says(2, "teachers.zero-shot.entailment", "distil", generic, *asked[2:], "--labels", "good,bad")


def test_labels_without_names(kd, tmp_path, mails):
    teacher = make_teacher(tmp_path / "teacher", labels=(None, None))
    asked = ("distil", teacher, mails, "--run-dir", tmp_path / "run", "--dry-run")
    kd.says(0, "--labels", *asked)
    kd.says(0, ("LABEL_0 as no, LABEL_1 as yes", "zero-shot.entailment"), *asked, "--labels", "no,yes")


def test_minutes_are_planned_and_kept_in_the_profile_as_numbers(kd, tmp_path, teacher, mails):
    run = tmp_path / "run"
    plan = kd.ok("distil", teacher, mails, *SMALL[:10], "--minutes", "0.01", "--run-dir", run, "--json")["plan"]
    assert plan["updates"] == 20 and plan["seconds"]["student"] > 0
    kd.says(0, "more than the 0.01 of --minutes", "distil", teacher, mails, "--minutes", "0.01", "--dry-run")
    assert "max_steps = 20" in (run / "profile.toml").read_text()
    assert "minutes =" not in (run / "profile.toml").read_text()


def test_the_teacher_labels_in_the_precision_that_is_fastest_unless_one_is_named(
    kd, tmp_path, teacher, mails, monkeypatch
):
    monkeypatch.setattr("kdcli.distillation.distil.fastest_precision", lambda device: "bf16")
    for number, (flags, wanted) in enumerate([((), "bf16"), (("--precision", "fp32"), "fp32")]):
        run = tmp_path / f"run{number}"
        kd.ok("distil", teacher, mails, *SMALL, *flags, "--run-dir", run)
        with safe_open(run / "export/logits.safetensors", "numpy") as file:
            assert json.loads(file.metadata()["kd"])["precision"] == wanted
        assert ('precision = "bf16"' in (run / "profile.toml").read_text()) == (wanted == "bf16")


def test_the_teacher_labels_as_many_texts_as_the_budget_allows(kd, tmp_path, teacher, mails):
    run = tmp_path / "run"
    found = kd.ok("distil", teacher, mails, *SMALL, "--budget", "40", "--run-dir", run, "--json")
    assert [found["counts"][key] for key in ("train", "dev", "beyond")] == [18, 2, 60]
    rows = [len(load_file(path)["row_hash"]) for path in run.glob("export*/*.safetensors")]
    assert len(rows) == 2 and sum(rows) <= found["plan"]["labelled"] == 38
    # Both limits hold; a larger budget is a new plan, and one for more texts than there are takes all.
    both = ("--budget", "30", "--minutes", "10", "--dry-run")
    assert kd.ok("distil", teacher, mails, *SMALL, *both, "--run-dir", tmp_path / "other", "--json")["texts"] == 15
    code, out, err = kd("distil", teacher, mails, *SMALL, "--budget", "5000", "--run-dir", run, "--dry-run", "--json")
    assert code == 0 and json.loads(out)["texts"] == 80 and "5,000" in err


def test_a_choice_in_rounds_asks_for_no_text_twice_and_ends_the_same_after_a_kill(kd, tmp_path, teacher, monkeypatch):
    asked, represent = [], Teacher.represent

    def counted(self, columns, *rest, **how):
        asked.extend(columns[0])
        return represent(self, columns, *rest, **how)

    monkeypatch.setattr(Teacher, "represent", counted)
    rows = texts(160)
    table = write_csv(tmp_path / "films.csv", [[text] for text in rows], ["text"])
    sets = [one for one in SMALL[1:10:2] if not one.startswith("transfer")]
    sets += ["transfer.lite.n_iter=0", "transfer.choose=entropy", "precision=fp32"]

    def distil(run, **more):
        settings = dict(tuple(one.split("=")) for one in sets) | more
        settings = {key: int(value) if value.isdigit() else value for key, value in settings.items()}
        return kdcli.distil(teacher, table, budget=40, settings=settings, run_dir=tmp_path / run)

    def learned(run):
        return pl.read_parquet(tmp_path / run / "texts/train.parquet")["sentence"].to_list()

    flags = [flag for one in sets for flag in ("--set", one)]
    assert kd.ok("distil", teacher, table, *flags, "--budget", "40", "--dry-run", "--json")["seconds"]["choice"] > 0
    asked.clear()
    whole = distil("whole")
    times = Counter(asked)
    assert [times[text] for text in learned("whole")] == [1] * 36
    assert len(set(asked) & set(rows)) == 40  # with those of dev
    # A quarter is the random draw's.
    distil("random", **{"transfer.choose": "random"})
    assert learned("random")[:9] == learned("whole")[:9] and set(learned("random")) != set(learned("whole"))
    # Killed in the second round, and run again.
    read, asked[:] = choose.read_others, []

    def killed(columns, *rest):
        if len(columns[0]) > 9:
            raise KeyboardInterrupt
        return read(columns, *rest)

    monkeypatch.setattr(choose, "read_others", killed)
    with pytest.raises(KeyboardInterrupt):
        distil("killed")
    assert len(set(asked) & set(rows)) == 18
    monkeypatch.setattr(choose, "read_others", read)
    resumed = distil("killed")
    assert learned("killed") == learned("whole")
    times = Counter(asked)
    assert [times[text] for text in learned("killed")] == [1] * 36
    assert all(np.array_equal(resumed.weights[name], value) for name, value in whole.weights.items())
    again = ("run-all", "--profile", tmp_path / "killed/profile.toml", "--run-dir", tmp_path / "killed", "--json")
    assert not any(stage["reasons"] for stage in kd.ok(*again)["stages"])


def test_columns_that_a_profile_names(kd, tmp_path, teacher):
    sides = [f"the {text}" for text in texts(40, 3)]
    rows = [[*row, name] for *row, name in zip(texts(40), sides, ["positive", "negative"] * 20, strict=True)]
    table = write_csv(tmp_path / "films.csv", rows, ["text", "notes", "stars"])
    own = tmp_path / "my.toml"
    own.write_text('extends = "distil"\n[task]\ntext_columns = ["notes"]\nlabel_column = "stars"\n')
    run, columns = tmp_path / "run", ("--set", 'task.text_columns=["notes"]', "--set", "task.label_column=stars")
    assert kd.ok("distil", teacher, table, *SMALL, "--profile", own, "--run-dir", run, "--json")["counts"]["labelled"]
    found = pl.concat(pl.read_parquet(run / f"texts/{side}.parquet") for side in ("train", "dev"))
    assert sorted(found["sentence"]) == sorted(sides) and set(found["label"]) == {"positive", "negative"}
    assert len(kd.ok("predict", "--student", run, "--input", table).splitlines()) == 41
    kd.ok("distil", teacher, table, *SMALL, *columns, "--text-col", "text", "--run-dir", tmp_path / "other")
    assert set(pl.read_parquet(tmp_path / "other/texts/train.parquet")["sentence"]) <= {row[0] for row in rows}


def test_labels_in_a_column_each(kd, tmp_path):
    labels = ("plot", "actors", "music")
    teacher = make_teacher(tmp_path / "teacher", labels=labels, problem_type="multi_label_classification")
    rows = [[text, int(row % 3 == 0), row % 2, int(row % 5 < 2)] for row, text in enumerate(texts(60))]
    names = ("music", "plot", "actors")
    gold = {text: {name for name, there in zip(names, row, strict=True) if there} for text, *row in rows}

    def distil(run, header, *more):
        table = write_csv(tmp_path / f"{run}.csv", rows, header)
        out = kd.ok("distil", teacher, table, "--run-dir", tmp_path / run, *SMALL, "--json", *more)
        return out["counts"]["labelled"], pl.read_parquet(tmp_path / run / "texts/train.parquet")

    found, learned = distil("named", ["text", *names])
    assert found and len(learned) == 54
    assert all(set(filter(None, label.split("|"))) == gold[text] for text, label in learned.iter_rows())
    assert not distil("none", ["text", *names], "--label-col", "none")[0]
    profile = tmp_path / "my.toml"
    columns = ["x_music", "x_plot", "x_actors"]  # in the order of the profile's labels, which is not the teacher's
    task = {"labels": names, "label_columns": columns, "multi_label": True, "metric": "micro_f1"}
    profile.write_text('extends = "distil"\n[task]\n' + "".join(f"{key} = {json.dumps(task[key])}\n" for key in task))
    found, other = distil("profile", ["text", *columns], "--profile", profile)
    assert found and other.equals(learned)


def test_several_tables_are_read_by_the_names_of_the_first(kd, tmp_path, teacher):
    parts = [texts(120)[start : start + 40] for start in (0, 40, 80)]
    first = write_csv(tmp_path / "a.csv", [[number, text] for number, text in enumerate(parts[0])], ["id", "text"])
    other = write_csv(tmp_path / "b.csv", [[text, text[:3]] for text in parts[1]], ["text", "more"])
    lines = tmp_path / "0.txt"
    lines.write_text("".join(f"{text}\n" for text in parts[2]))
    found = kd.ok("distil", teacher, lines, first, other, *SMALL, "--run-dir", tmp_path / "run", "--json")
    assert found["counts"]["read"] == 120
    write_csv(other, [[text] for text in parts[1]], ["review"])
    said = ("b.csv, key text", "review")
    kd.says(4, said, "distil", teacher, first, other, *SMALL, "--run-dir", tmp_path / "third")
    assert not (tmp_path / "third/texts").exists()


def test_stdin_and_another_run_in_the_folder(kd, tmp_path, teacher, monkeypatch):
    class Piped:
        class buffer:
            read = staticmethod(lambda: "".join(f"{text}\n" for text in texts(40)).encode())

    monkeypatch.setattr("sys.stdin", Piped)
    run = tmp_path / "run"
    kd.ok("distil", teacher, "-", *SMALL, "--run-dir", run)
    (run / "distil.json").unlink()
    kd.says(2, "another command", "distil", teacher, "-", *SMALL, "--run-dir", run)


def test_texts_of_a_test_set_that_were_learned_from_are_a_warning(kd, tmp_path, teacher, mails):
    run, table = tmp_path / "run", tmp_path / "test.csv"
    kd.ok("distil", teacher, mails, *SMALL, "--run-dir", run)
    learned = pl.read_parquet(run / "texts/train.parquet")["sentence"].to_list()[:3]
    rows = [[text, "positive"] for text in (*learned, *texts(4, 9))]
    write_csv(table, rows, ["text", "label"])
    kd.says(0, "3 of the 7 texts", "eval", "--student", run, "--input", table, "--text-col=text", "--label-col=label")
