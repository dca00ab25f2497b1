import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import venv
import zipfile
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from made_student import KINDS, PAIR, SINGLE, TEXTS, columns, make_student
from made_teacher import rewrite
from polars.testing import assert_frame_equal

from kdcli.api import Task
from kdcli.cli import run
from kdcli.errors import DataError, KdError, PluginError
from kdcli.export import program
from kdcli.export.binary import export_binary
from kdcli.student.student import load_student

SETS = Task("topics", "single", ("a", "b", "c"), multi_label=True, thresholds=(0.3, 0.5, 0.9), metric="micro_f1")
NO_FAST = """
\"\"\"A student without a NumPy form.\"\"\"
from kd_bilstm import Options, build
api_version, pairs, scores = 2, True, True
"""
DIGEST = "0" * 64
PLACE = """
def load_student(folder, code):
    raise SystemExit(str(folder))
"""


def lines(task, end="\n"):
    """Return odd texts of a task as the bytes of lines, with a byte order mark."""
    rows = zip(*columns(task, TEXTS), strict=True)
    return ("\ufeff" + "".join("\t".join(row) + end for row in rows)).encode()


def rows(student, given, probabilities=False):
    return "".join(program.predicted(load_student(student), io.BytesIO(given), probabilities))


def processor_time(*command, **environment):
    """Return the seconds that a program takes for ten lines, at its best."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert answer(*command, given=b"a film\n" * 10, **environment).stdout.count(b"\n") == 11
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def answer(*command, given=b"", **environment):
    return subprocess.run([*map(str, command)], input=given, capture_output=True, timeout=200, env=environment)


@pytest.mark.parametrize("task", [*KINDS, SETS], ids=["classes", "pairs", "scores", "sets"])
def test_rows_are_those_of_kd_predict(tmp_path, capfd, monkeypatch, task):
    student, given = make_student(tmp_path / "student", task), lines(task, "\r\n")
    for probabilities in (False, True)[: 2 - task.is_score]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given), isatty=lambda: False))
        assert run(["predict", "--student", str(student), *["--probabilities"] * probabilities]) == 0
        assert rows(student, given, probabilities) == capfd.readouterr().out


def test_numbers_are_written_as_polars_writes_them():
    numbers = np.random.default_rng(1)
    values = (10.0 ** numbers.uniform(-12, 18, 2000) * numbers.choice([-1, 1], 2000)).astype(np.float32)
    values = np.append(values, np.float32([0, 1, 0.5, 1e-5, 9.9999e-7, 1e-6, 1e-7, 1e13, 9.999e12, 1e16]))
    written = pl.DataFrame({"a": values}).write_csv(include_header=False).split()
    assert [program._written(value) for value in values] == written


def test_a_student_that_needs_torch_and_a_file_that_exists(tmp_path):
    (tmp_path / "plain.py").write_text(NO_FAST)
    folder = make_student(tmp_path / "student")
    with pytest.raises(DataError, match="exists"):
        export_binary(student=folder, output=tmp_path / "plain.py")
    rewrite(folder, plugin="plain")
    load_student(folder, code=tmp_path / "plain.py")
    with pytest.raises(PluginError, match="PyTorch alone"):
        export_binary(student=folder, output=tmp_path / "predict")
    assert not (tmp_path / "predict").exists()


def packed(folder, modules=program.MODULES):
    """Write a file whose student only says where it is."""
    (folder / "in" / "kdcli" / "student").mkdir(parents=True)
    (folder / "in" / "kdcli" / "errors.py").write_text("class KdError(Exception):\n    pass\n")
    (folder / "in" / "kdcli" / "student" / "student.py").write_text(PLACE)
    with zipfile.ZipFile(folder / "file", "w") as archive, tarfile.open(folder / "tar", "w:xz") as content:
        content.add(folder / "in", ".")
        content.close()
        archive.write(folder / "tar", f"{program.CONTENT}/{program.PACKAGES}")
        about = {"modules": modules, "digest": DIGEST, "runs_on": "Python 3.99", "kd": "1"}
        archive.writestr(program.ABOUT, json.dumps(about))
        archive.writestr(f"{program.CONTENT}/student/{program.WEIGHTS}", b"acebd")
        archive.write(program.__file__, "__main__.py")
    return sys.executable, "-I", folder / "file"


def test_it_is_unpacked_once_for_this_user(tmp_path):
    command, cache, home = packed(tmp_path), {"XDG_CACHE_HOME": str(tmp_path)}, {"HOME": str(tmp_path)}
    racing = [subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, env=cache) for _ in range(3)]
    folder = tmp_path / "kd" / DIGEST
    assert {one.communicate()[1].decode() for one in racing} == {f"{folder / 'student'}\n"}
    assert [path.name for path in (tmp_path / "kd").iterdir()] == [DIGEST]
    assert (folder / "student" / program.WEIGHTS).read_bytes() == b"abcde"
    (folder / "kdcli" / "student" / "student.py").write_text(
        "def load_student(folder, code):\n    raise SystemExit(9)\n"
    )
    assert answer(*command, **cache).returncode == 9
    assert answer(*command, **home).returncode == 1 and (tmp_path / ".cache" / "kd" / DIGEST).exists()


def test_another_python_or_no_place(tmp_path):
    (tmp_path / "other").mkdir()
    done = answer(*packed(tmp_path / "other", ".cpython-399-other.so"), HOME=str(tmp_path))
    assert done.returncode == 1 and b"Python 3.99" in done.stderr and b"hint: " in done.stderr
    (tmp_path / "taken").write_text("")
    done = answer(*packed(tmp_path), XDG_CACHE_HOME=str(tmp_path / "taken"))
    assert done.returncode == 1 and b"XDG_CACHE_HOME" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("task", [SINGLE, PAIR], ids=["classes", "pairs"])
def test_the_file_alone_predicts_as_the_student(tmp_path, task):
    student, given = make_student(tmp_path / "student", task), lines(task)
    loaded = load_student(student)
    for name in ("embedding.trained.weight", "embedding.frozen.weight"):  # as training rounds them
        if name in loaded.weights:
            loaded.weights[name] = loaded.weights[name].astype(np.float16).astype(np.float32)
    loaded.save(student)
    expected = rows(student, given, True)
    made = export_binary(student=student, output=tmp_path / "predict")
    assert made.megabytes < 20 and "numpy" in made.libraries and "torch" not in made.libraries
    student.rename(tmp_path / "kept")
    venv.create(tmp_path / "venv", with_pip=False)
    command = tmp_path / "venv" / "bin" / "python", made.file
    environment = {"HOME": str(tmp_path), "PATH": "/nowhere"}
    done = answer(*command, "--probabilities", given=given, **environment)
    assert done.returncode == 0, done.stderr
    # Another number of threads adds up in another order.
    found, expected = (pl.read_csv(text, separator="\t") for text in (done.stdout, expected.encode()))
    assert_frame_equal(found, expected, abs_tol=1e-6)
    unpacked = next((tmp_path / ".cache" / "kd").iterdir())
    assert "somebody" not in (unpacked / "student" / "config.json").read_text()
    assert list(unpacked.glob("numpy*/licenses/**/LICENSE*")) and not list(unpacked.glob("**/direct_url.json"))
    if task is SINGLE:
        kd = sys.executable, "-m", "kdcli", "predict", "--student", tmp_path / "kept"
        path = os.pathsep.join(filter(None, sys.path))
        assert processor_time(*command, **environment) < 1.5 * processor_time(*kd, PYTHONPATH=path, **environment)
    line = b"a\tb\n" if task is PAIR else b"a film\n"
    assert answer(*command, given=line * 5000, **environment).stdout.count(b"\n") == 5001
    for wrong, more, code in ((b"\xff\n", (), 4), (b"", (), 4), (b"", ("-x",), 2), (b"", ("--version",), 0)):
        done = answer(*command, *more, given=wrong, **environment)
        assert done.returncode == code and b"Traceback" not in done.stderr


@pytest.mark.slow
def test_a_file_that_cannot_predict_is_not_written(tmp_path, monkeypatch):
    def bare(files, plugin, folder):
        return {}

    monkeypatch.setattr("kdcli.export.binary._copy_libraries", bare)
    with pytest.raises(KdError, match="does not predict"):
        export_binary(student=make_student(tmp_path / "student"), output=tmp_path / "predict")
    assert not (tmp_path / "predict").exists()
