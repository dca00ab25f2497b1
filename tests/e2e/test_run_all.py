"""``kd run-all`` and the single stages on a tiny task, as a user runs them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

STAGES = ["lite", "mix", "teacher", "export", "join", "encode", "student", "baseline", "results"]


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text("utf-8").split("\n")[:-1]]


def test_run_all_goes_through_and_a_second_time_has_nothing_to_do(tiny):
    first = tiny.stage("run-all", "--json")
    assert first.code == 0, first.err
    assert [stage["stage"] for stage in first.result["stages"]] == STAGES
    results = first.result["result"]
    assert [row["model"] for row in results["rows"]] == ["teacher", "baseline", "student"]
    for row in results["rows"]:
        assert set(row["scores"]) == {"dev", "test"}
        assert row["parameters"] > row["parameters_without_embeddings"] > 0
        assert row["per_second"] > 0 and row["megabytes"] > 0
    curves = [json.loads(line) for line in (tiny.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert {point["stage"] for point in curves} >= {"teacher", "student"}

    student = (tiny.run_dir / "student" / "model.safetensors").stat().st_mtime_ns
    again = tiny.stage("run-all", "--json")
    assert [stage["reasons"] for stage in again.result["stages"]] == [[]] * len(STAGES)
    assert again.result["result"] == results
    assert (tiny.run_dir / "student" / "model.safetensors").stat().st_mtime_ns == student

    shown = tiny.stage("run-all")
    assert "share of the gap closed" in shown.out and "up to date" in shown.out


def test_the_artefacts_hang_together(tiny):
    assert tiny.stage("run-all").code == 0
    run = tiny.run_dir
    transfer, joined = table(run / "transfer" / "transfer.tsv"), table(run / "join" / "joined.tsv")
    assert transfer[0] == ["sentence", "source", "label"]
    assert joined[0] == ["sentence", "source", "label", "logits_0", "logits_1"]
    assert [row[:2] for row in joined] == [row[:2] for row in transfer]
    train = table(tiny.data / "train.tsv")[1:]
    assert [[row[0], row[2]] for row in transfer[1:61]] == train
    assert {row[1] for row in transfer[1:61]} == {"original"} and {row[1] for row in transfer[61:]} == {"lite"}
    assert len({row[0] for row in transfer}) == len(transfer)

    logits = np.array([row[3:] for row in joined[1:]], np.float32)
    assert [row[2] for row in joined[1:]] == [str(best) for best in logits.argmax(1)]
    stored = load_file(run / "export" / "logits.safetensors")["logits"]
    np.testing.assert_array_equal(np.unique(stored, axis=0), np.unique(logits, axis=0))

    words = {word for row in joined[1:] for word in row[0].replace("[MASK]", " ").lower().split()}
    vocabulary = Tokenizer.from_file(str(run / "student" / "tokenizer.json")).get_vocab()
    assert words <= set(vocabulary) and vocabulary["[PAD]"] == 0


def test_a_changed_setting_runs_what_hangs_on_it_and_says_why(tiny):
    tiny.stage("run-all")
    dry = tiny.stage("run-all", "--set", "student.lr=0.5", "--dry-run", "--json")
    reasons = {stage["stage"]: stage["reasons"] for stage in dry.result["stages"]}
    assert reasons["student"] == ["student.lr changed 1 -> 0.5"]
    assert reasons["baseline"] == ["student.lr changed 1 -> 0.5", "input student will change"]
    assert not any(reasons[stage] for stage in STAGES[:6])

    real = tiny.stage("run-all", "--set", "student.lr=0.5")
    assert "student: student.lr changed 1 -> 0.5" in real.err
    assert "lite:" not in real.err and "mix:" not in real.err


def test_single_stages_do_what_run_all_does(tiny):
    for command in (["transfer", "lite"], ["teacher", "train"], ["teacher", "export"], ["join"], ["student"]):
        ended = tiny.stage(*command)
        assert ended.code == 0, ended.err
    by_hand = {path: (tiny.run_dir / path).read_bytes() for path in ("join/joined.tsv", "student/model.safetensors")}
    shutil.rmtree(tiny.run_dir)
    assert tiny.stage("run-all", "--until", "student").code == 0
    for path, content in by_hand.items():
        assert (tiny.run_dir / path).read_bytes() == content


def test_outputs_of_the_users_own_leave_the_run_folder_alone(tiny):
    mine = tiny.root / "mine"
    assert tiny.kd("transfer", "lite", "-p", tiny.profile, "-o", mine / "set.tsv.gz").code == 0
    assert tiny.kd("teacher", "train", "-p", tiny.profile, "-o", mine / "teacher").code == 0
    export = ["teacher", "export", "-p", tiny.profile, "--teacher", mine / "teacher", "-i", mine / "set.tsv.gz"]
    assert tiny.kd(*export, "-o", mine / "logits.safetensors").code == 0
    join = ["join", "-p", tiny.profile, "-i", mine / "set.tsv.gz", "--logits", mine / "logits.safetensors"]
    assert tiny.kd(*join, "--label", "gold", "-o", mine / "joined.parquet").code == 0
    student = tiny.kd("student", "-p", tiny.profile, "-i", mine / "joined.parquet", "-o", mine / "pocket")
    assert student.code == 0 and "dev accuracy" in student.out, student.err
    assert not tiny.run_dir.exists()

    again = tiny.kd(*join, "-o", mine / "joined.parquet")
    assert again.code == 4 and "--force" in again.err
    assert tiny.kd(*join, "-o", mine / "joined.parquet", "--force").code == 0


def test_predict_gives_the_same_for_both_forms_of_output(tiny):
    tiny.stage("run-all")
    student = ["predict", "--student", tiny.run_dir / "student", "--input", tiny.data / "test.tsv"]
    shown = tiny.kd(*student)
    assert shown.code == 0, shown.err
    lines = [line.split("\t") for line in shown.out.splitlines()]
    assert lines[0] == ["index", "prediction"]
    assert [line[0] for line in lines[1:]] == [str(row) for row in range(16)]
    assert {line[1] for line in lines[1:]} <= {"0", "1"}
    assert tiny.kd(*student, "--output", tiny.root / "out.tsv").code == 0
    assert table(tiny.root / "out.tsv") == lines

    gold = [row[1] for row in table(tiny.data / "test.tsv")[1:]]
    scores = json.loads((tiny.run_dir / "results.json").read_text())["rows"][2]["scores"]["test"]["accuracy"]
    assert np.mean([line[1] == label for line, label in zip(lines[1:], gold, strict=True)]) == pytest.approx(scores[0])

    teacher = ["predict", "--teacher", tiny.run_dir / "teacher", "-p", tiny.profile, "-i", tiny.data / "test.tsv"]
    assert tiny.kd(*teacher, "--json").result["predictions"][0].keys() == {"index", "prediction"}


def test_several_seeds_repeat_student_and_baseline_alone(tiny):
    tiny.stage("run-all")
    more = tiny.stage("run-all", "--seeds", "2", "--json")
    ran = [stage["stage"] for stage in more.result["stages"] if stage["reasons"]]
    assert ran == ["student-seed2", "baseline-seed2", "results"]
    assert [len(row["scores"]["dev"]["accuracy"]) for row in more.result["result"]["rows"]] == [1, 2, 2]
    first, second = (load_file(tiny.run_dir / name / "model.safetensors") for name in ("student", "student-seed2"))
    assert any((first[name] != second[name]).any() for name in first)
    assert "±" in tiny.stage("run-all", "--seeds", "2").out


def test_the_baseline_is_as_patient_as_the_student(tiny):
    how = ["student.patience=2", "student.epochs=8", "student.optimizer=adam", "student.lr=1e-9"]  # it learns nothing
    ended = tiny.stage("run-all", "--until", "baseline", *(part for one in how for part in ("--set", one)))
    assert ended.code == 0, ended.err
    student, baseline = (
        json.loads((tiny.run_dir / name / "metrics.json").read_text()) for name in ("student", "baseline")
    )
    assert student["stopped"] == "patience" and student["updates"] - student["best_update"] > 20
    waited = baseline["updates"] - baseline["best_update"]
    assert waited >= student["updates"] - student["best_update"] or baseline["updates"] == student["updates"]


def test_a_teacher_that_is_fine_tuned_already(tiny):
    tiny.kd("teacher", "train", "-p", tiny.profile, "-o", tiny.root / "teacher")
    ready = ["--set", "teacher.train=false", "--set", f"teacher.model={tiny.root / 'teacher'}"]
    ended = tiny.stage("run-all", *ready, "--json")
    assert ended.code == 0, ended.err
    assert "teacher" not in [stage["stage"] for stage in ended.result["stages"]]


def test_pairs_go_through(tiny):
    for split in ("train", "dev", "test"):
        rows = [(row[0], *row) for row in table(tiny.data / f"{split}.tsv")[1:]]
        tiny.write(split, rows, "sentence1\tsentence2\tlabel")
    ended = tiny.stage("run-all", "--set", "task.kind=pair", "--json")
    assert ended.code == 0, ended.err
    assert table(tiny.run_dir / "join" / "joined.tsv")[0][:2] == ["sentence1", "sentence2"]


def test_scores_go_through(tiny):
    for split in ("train", "dev", "test"):
        rows = table(tiny.data / f"{split}.tsv")[1:]
        tiny.write(split, [(row[0], f"{int(row[1]) * 3 + place % 2:.3f}") for place, row in enumerate(rows)])
    scores = ["--set", "task.labels=[]", "--set", "task.names=[]", "--set", "task.metric=pearson"]
    ended = tiny.stage("run-all", *scores, "--set", "task.score_range=[0.0, 5.0]", "--json")
    assert ended.code == 0, ended.err
    assert ended.result["result"]["metrics"] == ["pearson"]
