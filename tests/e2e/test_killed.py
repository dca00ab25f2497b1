"""Every command that writes: killed, then the same command again: the bytes of a run in peace, and nothing is left.

The long form is ``KD_KILLS=100 python -m pytest -m slow tests/e2e/test_killed.py -k random``.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import glue_tables
import pytest
from e2e.conftest import Tiny
from made_student import make_student

from kdcli.api import Task
from kdcli.files import sha256

KILLED = """
import os, signal, sys
rename, left = os.replace, int(sys.argv[1])
def replace(source, target):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
from kdcli.cli import run
sys.exit(run(sys.argv[2:]))
"""
"""Runs kd, and kills it at a renaming: when something is whole, and nobody knows it yet."""

RUN = ["--profile", "tiny.toml", "--run-dir", "run"]
DISTIL = ["--set", "student.max_size=60", "--set", "student.dimension=8", "--set", "transfer.lite.n_iter=1"]
DISTIL += ["--set", "students.bilstm.hidden=8", "--set", "students.bilstm.fc=8", "--set", "student.vectors="]
COMMANDS = {
    "distil": ["distil", "run/teacher", "data/train.tsv", "--run-dir", "out", *DISTIL],
    "lite": ["transfer", "lite", "--output", "out.parquet", *RUN],
    "corpus": ["transfer", "corpus", "--input", "texts.txt", "--output", "out.parquet", *RUN],
    "teacher": ["teacher", "train", "--output", "out", *RUN],
    "export": ["teacher", "export", "--output", "out.safetensors", *RUN],
    "join": ["join", "--output", "out.parquet", *RUN],
    "student": ["student", "--output", "out", *RUN],
    "predict": ["predict", "--student", "run/student", "--input", "data/test.tsv", "--output", "out.tsv"],
    "glue": ["predict", "--student", "mnli", "--glue", "out", "--profile", "mnli", "--data-dir", "mnli-data"],
    "onnx": ["export", "onnx", "--student", "run", "--output", "out"],
    "hub": ["export", "hub-folder", "--student", "run", "--output", "out"],
    "report": ["report", "run", "--output", "out.html"],
    "profile": ["profile", "copy", "sst2", "out.toml"],
    "plugin": ["plugins", "new", "tagger", "mine", "--output", "out"],
    "get": ["data", "get", "glove.6B.50d", "--output", "out", "--url"],
    "get-task": ["data", "get", "rte", "--output", "out", "--url", "hub"],
}
"""What each writes begins with ``out``."""
TIMES = {"results.json", "metrics.jsonl", "kd.lock", ".launch.lock", "README.md", "metrics.json", "distil.json"}
"""Files that hold times."""


def start(root, at, arguments):
    command = [sys.executable, "-c", KILLED, str(at), *map(str, arguments), "-q"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def left_over(root):
    """Return what a killed command may leave: temporaries, parts, unfinished trainings, folders to resume with."""
    names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
    ends = (".parts", ".training", ".resume", ".run", ".lock")
    return [name for name in names if "/.kd-" in f"/{name}" or (name.endswith(ends) and Path(name).name not in TIMES)]


def contents(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    kept = [file for file in files if file.name not in TIMES and file.suffix != ".html"]
    return {file.relative_to(path).as_posix(): sha256(file) for file in kept}


@pytest.fixture
def folder(trained, tmp_path):
    root = shutil.copytree(trained, tmp_path / "all")
    (root / "texts.txt").write_text("".join(f"some text of number {number} .\n" for number in range(40)))
    make_student(root / "mnli", Task("mnli", "pair", ("entailment", "neutral", "contradiction")))
    glue_tables.write("mnli", root / "mnli-data")
    glue_tables.write_hub(root / "hub", "rte", [0, 1])
    return root


@pytest.fixture
def vectors(tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "vectors.zip", "w") as archive:
        archive.writestr("glove.6B.50d.txt", "".join(f"word{row} {row} -{row}.5\n" for row in range(30)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=served))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/vectors.zip"
    server.shutdown()
    thread.join()
    server.server_close()


def check(root, name, at, vectors):
    arguments = [*COMMANDS[name], *([vectors] if name == "get" else [])]
    assert start(root, 10_000, arguments) == 0
    output = root / next(argument for argument in arguments if argument.startswith("out"))
    whole = output.rename(root / f"whole{output.suffix}")
    expected, before = contents(whole), set(root.rglob("*"))
    start(root, at, arguments)
    if not output.exists() or contents(output).keys() != expected.keys():
        assert start(root, 10_000, arguments) == 0
    assert contents(output).values() == expected.values() or contents(output) == expected
    assert left_over(root) == []
    new = {path for path in set(root.rglob("*")) - before if output not in (path, *path.parents)}
    assert not new


QUICK = [("lite", 1), ("predict", 1), ("glue", 6), ("plugin", 2), ("get", 2)]
SLOW = [("distil", 9), *((name, at) for name in COMMANDS for at in (1, 3) if (name, at) not in QUICK)]


@pytest.mark.parametrize(("name", "at"), QUICK)
def test_the_same_command_again(folder, vectors, name, at):
    check(folder, name, at, vectors)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at"), SLOW)
def test_every_command_again(folder, vectors, name, at):
    check(folder, name, at, vectors)


@pytest.mark.slow
def test_random_kills_over_all_stages(tmp_path):
    for name in ("peace", "war"):
        (tmp_path / name).mkdir()
    peace, war = (Tiny(tmp_path / name, None) for name in ("peace", "war"))
    arguments = ["run-all", "--profile", "tiny.toml", "--run-dir", "run", "--data-dir", peace.data]
    assert start(peace.root, 10_000, arguments) == 0
    draw, kills = random.Random(1), 0
    while kills < int(os.environ.get("KD_KILLS", "10")):
        code = start(war.root, draw.randint(1, 12), arguments)
        kills += code != 0
        if code == 0 and kills < int(os.environ.get("KD_KILLS", "10")):
            assert contents(war.run_dir) == contents(peace.run_dir)
            shutil.rmtree(war.run_dir)
    while start(war.root, 10_000, arguments):
        pass
    assert contents(war.run_dir) == contents(peace.run_dir)
    assert left_over(war.root) == []
