import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_student import KINDS, PAIR, SINGLE, TEXTS, columns, make_student

from kdcli.api import Task
from kdcli.errors import DataError, KdError, PluginError
from kdcli.export import start
from kdcli.export.binary import export_binary
from kdcli.export.predictor import predicted
from kdcli.student.student import load_student

SETS = Task("topics", "single", ("a", "b", "c"), multi_label=True, thresholds=(0.3, 0.5, 0.9), metric="micro_f1")
NO_FAST = """
\"\"\"A student without a NumPy form.\"\"\"
from kd_bilstm import Options, build
api_version, pairs, scores = 2, True, True
"""


def lines(task, end="\n"):
    """Return odd texts of a task as lines, one with a byte order mark."""
    rows = zip(*columns(task, [text.replace("\t", " ") for text in TEXTS]), strict=True)
    return "\ufeff" + "".join("\t".join(row) + end for row in rows)


def answer(command, given="", **environment):
    return subprocess.run([*map(str, command)], input=given.encode(), capture_output=True, timeout=120, env=environment)


@pytest.fixture
def stream(tmp_path):
    def make(text):
        (tmp_path / "lines.txt").write_bytes(text.encode())
        return (tmp_path / "lines.txt").open("rb")

    return make


@pytest.mark.parametrize("task", [*KINDS, SETS], ids=["classes", "pairs", "scores", "sets"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_rows_are_those_of_kd_predict(tmp_path, stream, capfd, monkeypatch, task, probabilities):
    from kdcli.cli import run

    if task.is_score and probabilities:
        return
    student = make_student(tmp_path / "student", task)
    text = lines(task, "\r\n")
    found = "".join(predicted(load_student(student), stream(text), "stdin", probabilities=probabilities))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream(text), isatty=lambda: False))
    assert run(["predict", "--student", str(student), *["--probabilities"] * probabilities]) == 0
    assert found == capfd.readouterr().out


def test_numbers_are_written_as_polars_writes_them():
    import numpy as np
    import polars as pl

    from kdcli.export.predictor import _cell

    numbers = np.random.default_rng(1)
    values = (10.0 ** numbers.uniform(-12, 18, 2000) * numbers.choice([-1, 1], 2000)).astype(np.float32)
    values = np.concatenate(
        [values, np.array([0, 1, 0.5, 1e-5, 9.9999e-7, 1e-6, 1e-7, 1e13, 9.999e12, 1e16], np.float32)]
    )
    written = pl.DataFrame({"a": values}).write_csv(include_header=False).split()
    assert [_cell(value) for value in values] == written


def test_a_student_that_needs_torch(tmp_path, make_plugin):
    (tmp_path / "plain.py").write_text(NO_FAST)
    folder = make_student(tmp_path / "student")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "plugin": "plain"}))
    load_student(folder, code=tmp_path / "plain.py")
    with pytest.raises(PluginError, match="PyTorch alone"):
        export_binary(student=folder, output=tmp_path / "predict")
    assert not (tmp_path / "predict").exists()
    (tmp_path / "predict").write_text("of somebody")
    with pytest.raises(DataError, match="exists"):
        export_binary(student=make_student(tmp_path / "other"), output=tmp_path / "predict")


def packed(folder, modules=start.MODULES, digest="0" * 32):
    """Write a file whose program prints where it is."""
    with zipfile.ZipFile(folder / "file", "w") as archive:
        archive.writestr(start.ABOUT, json.dumps({"modules": modules, "digest": digest, "runs_on": "Python 3.99"}))
        archive.write(start.__file__, "__main__.py")
        archive.writestr("kdcli/__init__.py", "")
        archive.writestr("kdcli/export/__init__.py", "")
        archive.writestr("kdcli/export/predictor.py", "def main(folder, runs_on):\n    print(folder)\n    return 0\n")
    return folder / "file"


def test_it_is_unpacked_once_for_this_user(tmp_path):
    file, command = packed(tmp_path), (sys.executable, "-I", tmp_path / "file")
    racing = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env={"XDG_CACHE_HOME": str(tmp_path)}) for _ in range(3)
    ]
    folder = tmp_path / "kd" / ("0" * 32)
    assert {one.communicate()[0].decode() for one in racing} == {f"{folder / 'student'}\n"}
    assert {one.returncode for one in racing} == {0}
    assert [path.name for path in (tmp_path / "kd").iterdir()] == [folder.name]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "kdcli/export/predictor.py").write_text("def main(folder, runs_on):\n    return 9\n")
    assert answer(command, XDG_CACHE_HOME=str(tmp_path)).returncode == 9
    abandoned = tmp_path / "kd" / ".unpacking-abc"
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    folder.rename(tmp_path / "other")
    assert answer(command, HOME=str(tmp_path)).returncode == 0 and (tmp_path / ".cache/kd" / folder.name).exists()
    assert answer(command, XDG_CACHE_HOME=str(tmp_path)).returncode == 0 and not abandoned.exists()
    folder.chmod(0o755)
    done = answer(command, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 6 and b"open to others" in done.stderr
    assert file.exists()


def test_another_python_or_no_place(tmp_path):
    done = answer((sys.executable, packed(tmp_path, ".cpython-399-other.so")), HOME=str(tmp_path))
    assert done.returncode == 6 and b"Python 3.99" in done.stderr and b"hint: " in done.stderr
    (tmp_path / "taken").write_text("")
    done = answer((sys.executable, packed(tmp_path)), XDG_CACHE_HOME=str(tmp_path / "taken"))
    assert done.returncode == 6 and b"XDG_CACHE_HOME" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_the_file_alone_predicts_as_the_student(tmp_path):
    import venv

    for task in (SINGLE, PAIR):
        student = make_student(tmp_path / task.kind, task)
        made = export_binary(student=student, output=tmp_path / f"predict-{task.kind}")
        assert made.megabytes < 25 and "torch" not in made.libraries and "numpy" in made.libraries
        assert b"somebody" not in zipfile.ZipFile(made.file).read("student/config.json")
        student.rename(tmp_path / "moved")
        venv.create(tmp_path / "venv", with_pip=False, clear=True)
        text = lines(task)
        (tmp_path / "lines").write_text(text, "utf-8")
        expected = "".join(
            predicted(load_student(tmp_path / "moved"), (tmp_path / "lines").open("rb"), "stdin", probabilities=True)
        )
        environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin"}
        command = tmp_path / "venv/bin/python", made.file
        done = answer((*command, "--probabilities"), text, **environment)
        assert (done.returncode, done.stdout.decode()) == (0, expected), done.stderr
        done = answer((*command, "--input", tmp_path / "lines"), **environment)
        assert done.stdout.decode() == "".join(
            "\t".join(row.split("\t")[:2]) + "\n" for row in expected.removesuffix("\n").split("\n")
        )
        many = "\n".join(TEXTS[:1] * 5000) if task is SINGLE else "\n".join(["a\tb"] * 5000)
        assert answer(command, many, **environment).stdout.count(b"\n") == 5001
        for given, more, code in ((b"\xff\n", (), 4), (b"", (), 4), (b"", ("--input", "none"), 4), (b"", ("-x",), 2)):
            done = subprocess.run([*map(str, command), *more], input=given, capture_output=True, env=environment)
            assert done.returncode == code and b"Traceback" not in done.stderr
        (tmp_path / "moved").rename(tmp_path / f"old-{task.kind}")


def test_a_plugin_that_predicts_otherwise_in_the_file_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("kdcli.export.binary._packages", lambda modules, libraries: {})
    with pytest.raises(KdError, match="does not predict"):
        export_binary(student=make_student(tmp_path / "student"), output=tmp_path / "predict")
    assert not (tmp_path / "predict").exists() and Path(tmp_path / "student").exists()
