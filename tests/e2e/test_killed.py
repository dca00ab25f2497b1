"""Every command that writes: killed, then the same command again: the bytes of a run in peace, and nothing is left.

The long form is ``KD_KILLS=100 python -m pytest -m slow tests/e2e/test_killed.py -k random``.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.conftest import Tiny

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

COMMANDS = {
    "lite": ["transfer", "lite", "--output", "out.parquet"],
    "corpus": ["transfer", "corpus", "--input", "texts.txt", "--output", "out.parquet"],
    "teacher": ["teacher", "train", "--output", "out"],
    "export": ["teacher", "export", "--output", "out.safetensors"],
    "join": ["join", "--output", "out.parquet"],
    "student": ["student", "--output", "out"],
    "predict": ["predict", "--student", "run/student", "--input", "data/test.tsv", "--output", "out.tsv"],
    "onnx": ["export", "onnx", "--student", "run", "--output", "out"],
    "hub": ["export", "hub-folder", "--student", "run", "--output", "out"],
    "report": ["report", "run", "--output", "report.html"],
}
OWN = ("predict", "onnx", "hub", "report")
"""Commands that take no profile and no run folder here."""
TIMES = {"results.json", "metrics.jsonl", "kd.lock", ".launch.lock", "README.md", "metrics.json"}
"""Files that hold times."""


def start(root: Path, at: int, arguments: list[object]) -> int:
    command = [sys.executable, "-c", KILLED, str(at), *map(str, arguments), "-q"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def left_over(root: Path) -> list[str]:
    """Return what a killed command may leave: temporaries, parts, unfinished trainings, folders to resume with."""
    names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
    ends = (".parts", ".training", ".resume", ".run", ".lock")
    return [name for name in names if "/.kd-" in f"/{name}" or (name.endswith(ends) and Path(name).name not in TIMES)]


def contents(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {
        file.relative_to(path).as_posix(): sha256(file)
        for file in files
        if file.name not in TIMES and file.suffix != ".html"
    }


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "all")
    root = tmp_path / "all"
    (root / "texts.txt").write_text("".join(f"some text of number {number} .\n" for number in range(40)))
    return root


def check(root: Path, name: str, at: int) -> None:
    arguments = COMMANDS[name] + ([] if name in OWN else ["--profile", "tiny.toml", "--run-dir", "run"])
    assert start(root, 10_000, arguments) == 0
    output = root / arguments[arguments.index("--output") + 1]
    whole = output.rename(root / f"whole{output.suffix}")
    expected, before = contents(whole), set(root.rglob("*"))
    start(root, at, arguments)
    assert output.exists() or start(root, 10_000, arguments) == 0
    assert contents(output).values() == expected.values() or contents(output) == expected
    assert left_over(root) == []
    new = {path for path in set(root.rglob("*")) - before if output not in (path, *path.parents)}
    assert not new


@pytest.mark.parametrize("name", ["lite", "predict"])
def test_the_same_command_again(folder, name):
    check(folder, name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_again(folder, name, at):
    check(folder, name, at)


@pytest.mark.slow
def test_random_kills_over_all_stages(tmp_path):
    """``run-all`` is killed again and again; in the end it is the run in peace, byte by byte."""
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
