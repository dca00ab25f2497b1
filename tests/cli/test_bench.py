"""``kd bench``: what it takes and what it shows; the measuring is tested where it is done."""

import json
from dataclasses import replace

import pytest
from made_student import make_student

from kdcli.cli import run
from kdcli.evaluate import bench as benching
from kdcli.evaluate.bench import Latency, Measurement


@pytest.fixture
def student(tmp_path):
    return make_student(tmp_path / "student")


@pytest.fixture
def kd(capsys, monkeypatch):
    asked = []

    def alone(work, subject, texts, seconds):
        asked.append((subject, seconds))
        rates = {1: 1234.5, 32: 20_000.0, 512: 50_000.0}
        latency = Latency(0.81, 0.9, 1.2, 100)
        found = Measurement(subject.name, subject.kind, "", "cpu", rates, latency, 700, 300, 1.5, 90.0, None, 0.2)
        if subject.kind != "teacher":
            return found
        slow = replace(latency, p50=81.0)
        rates = {batch: rate / 100 for batch, rate in rates.items()}
        return replace(found, per_second=rates, latency=slow, parameters=70_000, megabytes=300.0, gpu_peak_megabytes=7)

    monkeypatch.setattr(benching, "_alone", alone)

    def call(*arguments):
        code = run(["bench", *map(str, arguments)])
        return code, *capsys.readouterr(), asked

    return call


def test_json(student, kd):
    code, out, err, asked = kd("--student", student, "--seconds", "0.25", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [model["kind"] for model in found["models"]] == ["pytorch", "numpy"]
    assert found["models"][0]["per_second"] == {"1": 1234.5, "32": 20_000, "512": 50_000}
    assert found["source"] == "kd:sample"
    assert {seconds for _, seconds in asked} == {0.25}


def test_tables(student, kd):
    code, out, err, _ = kd("--student", student, "--teacher", "some/body")
    assert code == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "sentences/s, batch 1 1,234 1,234 12.3" in lines
    assert "smaller on disk 200x 200x" in lines and "shorter latency 100x 100x" in lines
    assert "faster than the teacher, batch 32 100x 100x" in lines and "fewer parameters 100x 100x" in lines
    assert "parameters 700 700 70,000" in lines and "peak MB on the GPU 7" in lines
    assert any("160 texts of kd:sample" in line for line in lines)
    assert any("resident" in line for line in lines)


def test_a_run_brings_its_teacher_and_its_texts(tmp_path, student, kd):
    run_dir = tmp_path / "run"
    (run_dir / "teacher").mkdir(parents=True)
    student.rename(run_dir / "student")
    (run_dir / "kd.lock").write_text("{}")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\ngood\tyes\n")
    profile = f'extends = "base"\n[task]\nlabels = ["no", "yes"]\ndata_dir = "{tmp_path}"\n'
    (run_dir / "profile.toml").write_text(profile)
    code, out, err, asked = kd("--student", run_dir, "--json")
    assert code == 0, err
    assert asked[-1][0].place == str(run_dir / "teacher")
    assert json.loads(out)["texts"] == 1
    code, out, err, asked = kd("--student", run_dir / "student", "--json")
    assert code == 0 and all(model["kind"] != "teacher" for model in json.loads(out)["models"])


def test_texts_of_ones_own(tmp_path, student, kd):
    (tmp_path / "mine.tsv").write_text("id\treview\n1\tgood film\n2\tbad\n")
    code, out, err, _ = kd("--student", student, "--input", tmp_path / "mine.tsv", "--text-col", "review", "--json")
    assert code == 0, err
    assert (json.loads(out)["texts"], json.loads(out)["words"]) == (2, 1.5)
    code, _, err, _ = kd("--student", student, "--data-dir", tmp_path)
    assert code == 2 and "--data-dir needs a profile" in err
