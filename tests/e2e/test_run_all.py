import csv
import json
import shutil

import numpy as np
import polars as pl
from e2e.conftest import ran, refused, succeeded
from safetensors.numpy import load_file
from tokenizers import Tokenizer

STAGES = ["lite", "teacher", "export", "join", "encode", "student", "baseline", "results"]


def test_run_all_goes_through_a_second_time_has_nothing_to_do_and_is_not_for_torchrun(tiny, monkeypatch):
    first = tiny.stage("run-all", "--json")
    assert ran(first) == STAGES
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
    assert ran(again) == [] and [stage["stage"] for stage in again.result["stages"]] == STAGES
    assert again.result["result"] == results
    assert (tiny.run_dir / "student" / "model.safetensors").stat().st_mtime_ns == student
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(tiny.stage("run-all"), 2, "teacher train")


def test_the_artefacts_belong_together_and_a_changed_setting_runs_the_stages_that_read_it(done):
    transfer, joined = done.read("transfer/lite.parquet"), done.read("join/joined.parquet")
    assert transfer.columns == ["sentence", "source", "label"]
    assert joined.columns == ["sentence", "source", "label", "logits_0", "logits_1"]
    assert joined.select("sentence", "source").equals(transfer.select("sentence", "source"))
    originals = transfer.head(60)
    assert originals.select("sentence", "label").rows() == [tuple(row) for row in done.rows("train")]
    assert set(originals["source"]) == {"original"} and set(transfer["source"][60:]) == {"lite"}
    assert transfer["sentence"].n_unique() == len(transfer)
    logits = joined.select("logits_0", "logits_1").to_numpy()
    assert [str(label) for label in joined["label"]] == [str(best) for best in logits.argmax(1)]
    stored = load_file(done.run_dir / "export" / "logits.safetensors")["logits"]
    np.testing.assert_array_equal(np.unique(stored, axis=0), np.unique(logits, axis=0))
    words = {word for line in joined["sentence"] for word in line.replace("[MASK]", " ").lower().split()}
    vocabulary = Tokenizer.from_file(str(done.run_dir / "student" / "tokenizer.json")).get_vocab()
    assert words <= set(vocabulary) and vocabulary["[PAD]"] == 0
    dry = done.stage("run-all", "--set", "student.lr=0.5", "--dry-run", "--json")
    reasons = {stage["stage"]: stage["reasons"] for stage in dry.result["stages"]}
    assert reasons["student"] == ["student.lr changed auto -> 0.5"]
    assert reasons["baseline"] == ["student.lr changed auto -> 0.5", "input student will change"]
    assert not any(reasons[stage] for stage in STAGES[:5])
    name = done.stage("run-all", "--set", "task.name=other", "--set", "task.bad_rows=skip", "--dry-run", "--json")
    assert not {"lite", "teacher", "export"} & set(ran(name)), "a name makes no teacher stale"
    real = done.stage("run-all", "--set", "student.lr=0.5", "--until", "student")
    assert "student: student.lr changed auto -> 0.5" in real.err and "lite:" not in real.err


def test_single_stages_do_the_same_as_run_all(done):
    made = {path: (done.run_dir / path).read_bytes() for path in ("join/joined.parquet", "student/model.safetensors")}
    shutil.rmtree(done.run_dir)
    for command in (["transfer", "lite"], ["teacher", "train"], ["teacher", "export"], ["join"], ["student"]):
        succeeded(done.stage(*command))
    for path, content in made.items():
        assert (done.run_dir / path).read_bytes() == content


def test_outputs_of_the_users_own_leave_the_run_folder_alone(tiny):
    mine = tiny.root / "mine"
    assert tiny.kd("transfer", "lite", "-p", tiny.profile, "-o", mine / "set.tsv.gz").code == 0
    assert tiny.kd("teacher", "train", "-p", tiny.profile, "-o", mine / "teacher").code == 0
    export = ["teacher", "export", "-p", tiny.profile, "--teacher", mine / "teacher", "-i", mine / "set.tsv.gz"]
    assert tiny.kd(*export, "-o", mine / "logits.safetensors").code == 0
    join = ["join", "-p", tiny.profile, "-i", mine / "set.tsv.gz", "--logits", mine / "logits.safetensors"]
    assert tiny.kd(*join, "--label", "gold", "-o", mine / "joined.csv").code == 0
    student = tiny.kd("student", "-p", tiny.profile, "-i", mine / "joined.csv", "-o", mine / "pocket")
    assert student.code == 0 and "dev accuracy" in student.out, student.err
    assert not tiny.run_dir.exists()
    refused(tiny.kd(*join, "-o", mine / "joined.csv"), 4, "--force")
    assert tiny.kd(*join, "-o", mine / "joined.csv", "--force").code == 0
    ready = ["--set", "teacher.train=false", "--set", f"teacher.model={mine / 'teacher'}"]
    whole = tiny.stage("run-all", *ready, "--until", "export", "--json")
    assert ran(whole) == ["lite", "export"], "the teacher is ready"


def test_several_seeds_repeat_student_and_baseline_alone(done):
    more = done.stage("run-all", "--seeds", "2", "--json")
    assert ran(more) == ["student-seed2", "baseline-seed2", "results"]
    assert [len(row["scores"]["dev"]["accuracy"]) for row in more.result["result"]["rows"]] == [1, 2, 2]
    first, second = (load_file(done.run_dir / name / "model.safetensors") for name in ("student", "student-seed2"))
    assert any((first[name] != second[name]).any() for name in first)
    assert "±" in done.stage("run-all", "--seeds", "2").out


def test_the_baseline_is_as_patient_as_the_student(done):
    how = ["student.patience=2", "student.epochs=8", "student.optimizer=adam", "student.lr=1e-9"]  # it learns nothing
    succeeded(done.stage("run-all", "--until", "baseline", *(part for one in how for part in ("--set", one))))
    files = (done.run_dir / name / "metrics.json" for name in ("student", "baseline"))
    student, baseline = (json.loads(file.read_text()) for file in files)
    assert student["stopped"] == "patience" and student["updates"] - student["best_update"] > 20
    waited = baseline["updates"] - baseline["best_update"]
    assert waited >= student["updates"] - student["best_update"] or baseline["updates"] == student["updates"]


def test_texts_with_line_breaks_tabs_and_quotes_go_through_every_stage(tiny):
    for split in ("train", "dev", "test"):
        with (tiny.data / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["sentence", "label"])
            table.writerows([f'{line}\n"quoted", and a\ttab', label] for line, label in tiny.rows(split))
        (tiny.data / f"{split}.tsv").unlink()
    ended = tiny.stage("run-all", "--until", "student", "--json")
    assert ran(ended) == STAGES[:-2]
    joined = tiny.read("join/joined.parquet").filter(pl.col("source") == "original")
    assert all('\n"quoted", and a\ttab' in line for line in joined["sentence"])
    predict = ["predict", "--student", tiny.run_dir, "-i", tiny.data / "test.csv"]
    assert len(tiny.kd(*predict, "--json").result["predictions"]) == 16
    refused(tiny.stage("transfer", "lite", "-o", tiny.root / "set.tsv"), 4, "row", ".parquet")
