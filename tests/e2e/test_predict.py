import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import imported
from e2e.conftest import Tiny, refused, succeeded, text

import kdcli

KD = [sys.executable, "-m", "kdcli"]
HEAVY = ["torch", "transformers", "sklearn", "scipy", "pandas", "nltk", "accelerate", "datasets", "huggingface_hub"]
HEAVY += ["jinja2", "matplotlib", "onnx", "onnxruntime", "requests", "sacremoses", "textblob", "kdcli.config.load"]


@pytest.fixture
def here(trained, tmp_path, capsys, monkeypatch):
    """The run as a Tiny whose own files are in a folder of the test's own, which is the current one."""
    tiny = Tiny(tmp_path, capsys)
    tiny.run_dir, tiny.data, tiny.profile = trained / "run", trained / "data", trained / "tiny.toml"
    monkeypatch.chdir(tmp_path)
    return tiny


@pytest.fixture
def predict(here):
    return lambda *arguments: here.kd("predict", "--student", here.run_dir / "student", *arguments)


def pipe(monkeypatch, content):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def lines(out):
    return [line.split("\t") for line in out.splitlines()]


def test_a_table_lines_and_python_agree(here, predict, monkeypatch):
    texts = [text(place) for place in range(80, 96)]
    student = kdcli.load_student(here.run_dir / "student")
    expected = [prediction.label for prediction in student.predict(texts)]
    np.testing.assert_allclose(student.logits([texts * 10]), np.tile(student.logits([texts]), (10, 1)), atol=1e-6)
    table = lines(predict("--input", here.data / "test.tsv").out)
    assert table == [["index", "prediction"], *([str(row), label] for row, label in enumerate(expected))]
    for arguments in ([], ["--input", "-"]):
        pipe(monkeypatch, "\n".join(texts).encode())
        assert lines(predict(*arguments).out) == table
    Path("texts.txt").write_text("\n".join(texts) + "\n")
    assert lines(predict("-i", "texts.txt").out) == table
    assert predict("-i", "texts.txt", "-o", "labels.txt").code == 0
    assert Path("labels.txt").read_text().split() == expected


def test_files_and_streams_say_the_same(here, predict, monkeypatch):
    source = ["--input", here.data / "test.tsv", "--probabilities"]
    shown = predict(*source)
    assert shown.out.startswith("index\tprediction\tprobability_0\tprobability_1\n")
    ended = predict(*source, "-o", "out.tsv", "--json")
    assert ended.result == {"rows": 16, "output": "out.tsv", "deferral": None}
    assert Path("out.tsv").read_text() == shown.out
    rows = predict(*source, "--json").result["predictions"]
    assert predict(*source, "-o", "out.jsonl").code == 0
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == rows
    for row in rows:
        both = [row["probability_0"], row["probability_1"]]
        assert sum(both) == pytest.approx(1, abs=1e-6) and int(row["prediction"]) == np.argmax(both)
    pipe(monkeypatch, "".join(f"{text(place)}\n" for place in range(80, 96)).encode())
    assert predict("--probabilities", "--output", "piped.tsv").code == 0
    piped = [row[1] for row in lines(Path("piped.tsv").read_text())]
    assert piped == [row[1] for row in lines(shown.out)]


def test_a_run_folder_stands_for_its_student_and_its_teacher(here, predict):
    student = succeeded(here.kd("predict", "--student", here.run_dir, "-i", here.data / "test.tsv"))
    assert student.out == predict("-i", here.data / "test.tsv").out
    teacher = succeeded(here.kd("predict", "--teacher", here.run_dir, "-i", here.data / "test.tsv", "--probabilities"))
    named = ["--teacher", here.run_dir / "teacher", "-p", here.profile]
    assert here.kd("predict", *named, "-i", here.data / "test.tsv", "--probabilities").out == teacher.out
    assert here.kd("predict", *named, "-i", here.data / "test.tsv", "-o", "teacher.tsv").code == 0
    assert [row[:2] for row in lines(teacher.out)] == lines(Path("teacher.tsv").read_text())


def test_glue(here, predict, monkeypatch):
    task = ["--profile", "sst2", "--data-dir", here.data]
    ended = succeeded(predict("--glue", "submission", *task, "--json"))
    assert ended.result == {"files": [{"output": "submission/SST-2.tsv", "rows": 16, "deferral": None}]}
    assert lines(Path("submission/SST-2.tsv").read_text()) == lines(predict("-i", here.data / "test.tsv").out)
    refused(predict("--glue", "submission", *task), 4, "SST-2.tsv", "--force")
    again = predict("--glue", "submission", *task, "--force")
    assert again.code == 0 and "submission/SST-2.tsv" in again.out and "16" in again.out
    refused(predict("--glue", "other"), 2, "GLUE has no task 'tiny'")
    refused(predict("--glue", "other", "-p", "sst2", "--data-dir", here.root), 4, "no test table")
    refused(predict("--glue", "other", *task, "--probabilities"), 2, "--probabilities")
    refused(predict("--glue", "other", *task, "-i", here.data / "test.tsv"), 2, "--input")
    shutil.copytree(here.run_dir / "student", "alone")
    refused(here.kd("predict", "--student", "alone", "--glue", "other"), 2, "--profile")
    refused(here.kd("predict", "--student", "alone", "--glue", "other", "-p", "rte", "--data-dir", here.data), 4, "rte")


def test_columns_of_the_users_own_and_the_input_of_another_task(here, predict, monkeypatch):
    Path("mine.csv").write_text("nr,opinion\n7,a fine film\n8,a dull one\n")
    assert [row[0] for row in lines(predict("-i", "mine.csv", "--text-col", "opinion").out)] == ["index", "0", "1"]
    refused(predict("-i", "mine.csv"), 4, "mine.csv", "--text-col")
    refused(predict("-i", "mine.csv", "--text-col", "nr", "--text2-col", "opinion"), 2, "--text-col alone")
    Path("ragged.tsv").write_text("sentence\tlabel\nfine\t1\nragged\nbad\t0\n")
    assert len(lines(predict("-i", "ragged.tsv", "--set", "task.bad_rows=skip").out)) == 3
    Path("pairs.tsv").write_text("index\tquestion1\tquestion2\n0\ta\tb\n")
    refused(predict("-i", "pairs.tsv"), 4, "pairs", "single")
    refused(predict("-i", "pairs.tsv", "-p", "qqp"), 4, "single")
    pipe(monkeypatch, b"a\tb\n")
    tab = predict()
    assert tab.code == 0 and "row 1" in tab.err and "--input" in tab.err


def test_which_model_and_what_to_predict(here, predict, monkeypatch):
    source = ["-i", here.data / "test.tsv"]
    refused(here.kd("predict", *source), 2, "--student or --teacher")
    both = ["--student", here.run_dir, "--teacher", here.run_dir]
    refused(here.kd("predict", *both, *source), 2, "--student or --teacher")
    shutil.copytree(here.run_dir / "teacher", "teacher")
    refused(here.kd("predict", "--teacher", "teacher", *source), 2, "--profile")
    refused(here.kd("predict", "--student", "nowhere", *source), 4, "nowhere", "kd student")
    refused(here.kd("predict", "--student", here.run_dir / "teacher", *source), 4, "not a folder of a student")
    pipe(monkeypatch, b"")
    refused(predict(), 4, "no line", "--input")
    pipe(monkeypatch, b"a\n")
    refused(predict("--text-col", "a"), 2, "--text-col")
    refused(predict("--data-dir", here.data, "-p", "sst2"), 2, "--glue")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    refused(predict(), 2, "nothing to predict", "--input")


def test_output_that_is_there(here, predict):
    Path("out.tsv").write_text("mine\n")
    source = ["-i", here.data / "test.tsv", "-o", "out.tsv"]
    refused(predict(*source), 4, "out.tsv", "--force")
    assert Path("out.tsv").read_text() == "mine\n"
    assert predict(*source, "--force").code == 0
    assert len(lines(Path("out.tsv").read_text())) == 17
    refused(predict("-i", "out.tsv", "-o", "out.tsv", "--force"), 2, "is an input")
    refused(predict("-i", here.data / "test.tsv", "-o", "out.doc"), 4, "out.doc", ".jsonl")


def test_a_student_starts_without_torch(here):
    """Ten lines, in one of the three forms they come in; what is imported decides how long the start takes."""
    ten = "".join(f"{text(place)}\n" for place in range(10))
    Path("ten.txt").write_text(ten)
    Path("ten.tsv").write_text("sentence\n" + ten)
    outputs = set()
    for arguments in [], ["-i", "ten.txt"], ["-i", "ten.tsv"]:
        found, out = imported(HEAVY, "predict", "--student", here.run_dir / "student", *arguments, input=ten)
        assert found == set(), arguments
        outputs.add(out)
    assert len(outputs) == 1 and outputs.pop().count("\n") == 11


def test_lines_are_answered_as_they_come(here):
    command = [*KD, "predict", "--student", str(here.run_dir), "-q"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for number in range(3):
            process.stdin.write(f"{text(number)}\n")
            process.stdin.flush()
            answers = [process.stdout.readline() for _ in range(1 + (number == 0))]
            assert answers[-1].startswith(f"{number}\t")
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(timeout=20) == 0


def test_nobody_reading_on_is_no_error_and_ends_the_work(here):
    command = [*KD, "predict", "--student", str(here.run_dir), "-q"]
    reading, writing = os.pipe()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        process.stdin.write(b"a fine film\n")
        process.stdin.flush()
        assert os.read(reading, 5) == b"index"
        os.close(reading)
        process.stdin.write(b"a dull film\n")
        process.stdin.flush()
        assert process.wait(timeout=20) == 0  # though more could come
        assert process.stderr.read() == b""
        process.stdin.close()
