"""What users get wrong, and what breaks on them: a clear error, and nothing lost."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

import kdcli.files


def refused(ended, code, *words):
    """Assert that a command was refused with two lines that hold the words."""
    assert ended.code == code, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert lines and lines[0].startswith("error: ")
    assert "Traceback" not in ended.err
    for word in words:
        assert str(word) in "\n".join(lines)


def test_no_data_folder(tiny):
    ended = tiny.stage("run-all", "--data-dir", tiny.root / "nowhere")
    refused(ended, 4, "nowhere")


def test_data_dir_without_a_profile(tiny):
    refused(tiny.kd("run-all", "--data-dir", tiny.data), 2, "--profile")


def test_a_missing_column(tiny):
    (tiny.data / "train.tsv").write_text("text\tclass\tweight\nfine\t1\t2\nbad\t0\t2\n")
    refused(tiny.stage("transfer", "lite"), 4, "train.tsv")


def test_an_empty_file(tiny):
    (tiny.data / "train.tsv").write_text("")
    refused(tiny.stage("transfer", "lite"), 4, "train.tsv", "empty")


def test_a_label_outside_the_task(tiny):
    tiny.write("train", [("fine .", 1), ("bad .", 0), ("so so .", 7)])
    refused(tiny.stage("transfer", "lite"), 4, "train.tsv", "row 4", "'7'")


def test_one_class_only(tiny):
    tiny.write("train", [("fine .", 1), ("good .", 1)])
    refused(tiny.stage("transfer", "lite"), 4, "train.tsv")


def test_a_ragged_row(tiny):
    with (tiny.data / "train.tsv").open("a") as file:
        file.write("a row\twith\ttoo many fields\n")
    refused(tiny.stage("transfer", "lite"), 4, "train.tsv", "row 62")
    assert tiny.stage("transfer", "lite", "--set", "task.bad_rows=skip").code == 0


def test_a_text_of_100_000_words_and_an_empty_one(tiny):
    rows = [line.split("\t") for line in (tiny.data / "train.tsv").read_text().splitlines()[1:]]
    tiny.write("train", [*map(tuple, rows), ("word " * 100_000, 1), ("", 0)])
    ended = tiny.stage("run-all")
    assert ended.code == 0, ended.err


def test_a_profile_with_five_mistakes(tiny):
    tiny.profile.write_text(
        'extends = "demo"\n[task]\nmetrik = "accuracy"\n[transfer.lite]\np_mask = 1.5\nngram = "5:1"\n'
        "[student]\nepochs = 0\n[students.bilstm]\nhiden = 8\n"
    )
    ended = tiny.stage("run-all")
    assert ended.code == 3
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 5
    wrong = ("task.metrik", "transfer.lite.p_mask", "transfer.lite.ngram", "student.epochs", "students.bilstm.hiden")
    for key in wrong:
        assert any(key in error for error in errors), key
    assert "metric" in ended.err and "hidden" in ended.err


def test_vectors_of_a_teacher_that_has_no_pretrained_weights(tiny):
    refused(tiny.stage("run-all", "--set", "student.vectors=teacher"), 3, "student.vectors")


@pytest.mark.parametrize("damage", ["truncated", "swapped"])
def test_logits_that_are_not_of_this_transfer_set(tiny, damage):
    assert tiny.stage("run-all", "--until", "export").code == 0
    logits = tiny.run_dir / "export" / "logits.safetensors"
    other = tiny.root / "other.safetensors"
    if damage == "truncated":
        other.write_bytes(logits.read_bytes()[:-100])
    else:
        tiny.write("train", [(f"another film number {place} .", place % 2) for place in range(20)])
        assert tiny.kd("transfer", "lite", "-p", tiny.profile, "-o", tiny.root / "other.tsv").code == 0
        export = ["teacher", "export", "-p", tiny.profile, "--teacher", tiny.run_dir / "teacher"]
        assert tiny.kd(*export, "-i", tiny.root / "other.tsv", "-o", other).code == 0
    ended = tiny.stage("join", "--logits", other)
    refused(ended, 4, "row 2" if damage == "swapped" else "other.safetensors")
    assert "other.safetensors" in ended.err
    assert not (tiny.run_dir / "join").exists() or not list((tiny.run_dir / "join").glob("joined*"))


def heavy(tiny, *arguments):
    return tiny.stage("transfer", "heavy", *arguments)


def test_no_samples_at_all(tiny):
    refused(heavy(tiny, "--num-samples", 0), 2, "--num-samples")
    refused(heavy(tiny, "--set", "transfer.heavy.num_samples=0"), 3, "transfer.heavy.num_samples")
    assert not tiny.run_dir.exists()


def test_a_label_that_the_task_has_not(tiny):
    refused(heavy(tiny, "--set", 'transfer.heavy.labels=["good"]'), 3, "transfer.heavy.labels", "'good'", "0, 1")


def test_no_texts_to_learn(tiny):
    tiny.write("dev", [("   ", 1), ("", 0)])
    refused(heavy(tiny), 4, "the dev set has no texts")


def test_a_text_longer_than_the_context_is_cut_and_told(tiny):
    rows = [tuple(line.split("\t")) for line in (tiny.data / "train.tsv").read_text().splitlines()[1:]]
    tiny.write("train", [*rows, ("word " * 5000, 1)])
    ended = heavy(tiny, "--only", "cache")
    assert ended.code == 0
    ended = heavy(tiny, "--only", "fine-tune")
    assert ended.code == 0 and "longer than 32 tokens, and are cut there" in ended.err


def test_a_model_whose_samples_never_end(tiny):
    ended = heavy(tiny, "--max-steps", 1, "--max-length", 8)
    refused(ended, 1, "of 1024 draws gave a new text", "no end within max_length tokens", "fine-tune the generator")
    assert re.search(r"\(\d\.\d\d%\)", ended.err), "the rate"
    assert not (tiny.run_dir / "transfer" / "heavy.tsv").exists()


def test_damaged_prefixes_and_a_damaged_cache(tiny):
    assert heavy(tiny).code == 0
    prefixes = tiny.run_dir / "transfer" / "prefixes.json"
    prefixes.write_text(prefixes.read_text()[:-9])
    refused(heavy(tiny), 4, "prefixes.json", "changed since")
    refused(heavy(tiny, "--only", "sample"), 4, "prefixes.json", "--only prefixes --force")
    assert heavy(tiny, "--only", "prefixes", "--force").code == 0
    assert "sample" not in heavy(tiny).err, "what it had made is whole, and the prefixes are the same again"
    (tiny.run_dir / "transfer" / "cache" / "dev.txt").write_text("a\tb\n")
    refused(heavy(tiny, "--only", "fine-tune"), 4, "cache", "line 1 of dev.txt", "--only cache --force")


def test_a_checkpoint_that_is_none(tiny):
    assert heavy(tiny).code == 0
    generator = tiny.run_dir / "transfer" / "generator"
    (generator / "model.safetensors").write_bytes(b"x" * 100)
    refused(heavy(tiny), 4, "generator", "changed since")
    refused(heavy(tiny, "--only", "sample", "--top-k", 2), 4, "generator")


@pytest.mark.parametrize("order", ["none", "lm"])
def test_a_corpus_that_is_not_there_is_told_before_the_work(tiny, order):
    ended = tiny.stage("transfer", "corpus", "--input", tiny.root / "no.txt", "--order-by", order)
    refused(ended, 4, "no.txt")
    refused(tiny.stage("transfer", "corpus", "--order-by", order), 3, "transfer.corpus.files")
    refused(tiny.stage("run-all", "--set", "transfer.method=lite+corpus"), 3, "transfer.corpus.files")
    assert not (tiny.run_dir / "transfer").exists()


def test_texts_of_ones_own_that_are_all_there_already(tiny):
    (tiny.root / "old.txt").write_text((tiny.data / "train.tsv").read_text().replace("\t1", "").replace("\t0", ""))
    (tiny.root / "old.txt").write_text("\n".join((tiny.root / "old.txt").read_text().splitlines()[1:]))
    ended = tiny.stage("transfer", "corpus", "--input", tiny.root / "old.txt")
    refused(ended, 4, "nothing is left of the 60 texts", "60 copies of training texts")


def test_an_unknown_method(tiny):
    refused(tiny.stage("run-all", "--set", "transfer.method=lite+hevy"), 3, "transfer.method", "hevy")


def test_a_file_of_the_users_in_the_way_is_told_before_the_work(tiny):
    mine = tiny.run_dir / "transfer" / "heavy.tsv"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine\n")
    refused(heavy(tiny), 4, "heavy.tsv", "was not made by sample", "--force")
    assert mine.read_text() == "mine\n" and not (tiny.run_dir / "kd.lock").exists()


def test_a_stage_without_its_input_names_the_command_that_makes_it(tiny):
    refused(tiny.stage("join"), 4, "kd transfer lite")


def test_a_vector_file_cut_in_the_middle(tiny):
    assert tiny.stage("run-all", "--until", "join").code == 0
    vectors = tiny.root / "vectors.txt"
    vectors.write_text("film 0.1 0.2 0.3\nplot 0.1 0.2 0.3\nsong 0.1 0.")
    refused(tiny.stage("student", "--set", f"student.vectors={vectors}"), 4, "vectors.txt", "row 3")


def test_nan_loss_stops_and_keeps_what_was_best(tiny):
    assert tiny.stage("run-all", "--until", "join").code == 0
    joined = tiny.run_dir / "join" / "joined.tsv"
    lines = joined.read_text().splitlines()
    cells = lines[-1].split("\t")
    broken = tiny.root / "broken.tsv"
    broken.write_text("\n".join([*lines[:-1], "\t".join([*cells[:3], "nan", "nan"])]) + "\n")
    ended = tiny.stage("student", "--input", broken)
    assert ended.code in (1, 4) and "nan" in ended.err.lower()
    assert "Traceback" not in ended.err


def test_a_full_disk_leaves_the_old_file_whole(tiny, monkeypatch):
    assert tiny.stage("transfer", "lite").code == 0
    transfer = tiny.run_dir / "transfer" / "lite.tsv"
    before = transfer.read_bytes()

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kdcli.files, "_fsync", full)
    refused(tiny.stage("transfer", "lite", "--seed", 2), 1, "the disk is full")
    assert transfer.read_bytes() == before


def test_two_runs_in_one_folder(tiny):
    tiny.run_dir.mkdir()
    with FileLock(tiny.run_dir / ".launch-0.lock"):
        refused(tiny.stage("run-all"), 1, "another kd is at work", "--run-dir")


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tiny):
    undisturbed = tiny.root / "undisturbed"
    slow = ["--set", "student.epochs=40", "--set", "student.patience=0"]
    assert tiny.kd("run-all", "-p", tiny.profile, "--run-dir", undisturbed, *slow).code == 0
    command = [sys.executable, "-m", "kdcli", "run-all", "-p", str(tiny.profile), "--run-dir", str(tiny.run_dir), *slow]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    curve = tiny.run_dir / "metrics.jsonl"
    while not (curve.exists() and curve.read_text().count('"student"') >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tiny.run_dir / "student" / "model.safetensors").exists()
    ended = tiny.stage("run-all", *slow)
    assert ended.code == 0, ended.err
    for name in ("student", "baseline"):
        model = Path(name) / "model.safetensors"
        assert (tiny.run_dir / model).read_bytes() == (undisturbed / model).read_bytes()
    assert "training goes on after update" in ended.err
