import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from kdcli.scaffold import new_plugin

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BERT = 'model_type = "bert", hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 2, intermediate_size = 16'
TINY = ["transfer.method=heavy", "transfer.generator=trigrams", "transfer.heavy.num_samples=200"]
TINY += ["generators.trigrams.order=2", "teacher.max_steps=4", "teacher.max_length=16", f"teacher.config={{{BERT}}}"]
TINY += ["student.dimension=8", "student.max_steps=20", "students.bilstm.hidden=8", "students.bilstm.fc=8"]
ORIGINS = """
import importlib, json, sys
from pathlib import Path
names = "kdcli", "kd_bilstm", "kd_trigrams"
files = [importlib.import_module(name).__file__ for name in names]
print(json.dumps([*files, *(entry for entry in sys.path if (Path(entry) / "kdcli" / "__init__.py").exists())]))
"""


@dataclass(frozen=True)
class Environment:
    prefix: Path
    work: Path

    def run(self, name, *arguments):
        left_out = ("PYTHON", "KD_", "VIRTUAL_ENV")
        environ = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        return succeed(self.prefix / "bin" / name, *arguments, cwd=self.work, env={**environ, "OMP_NUM_THREADS": "1"})

    def kd(self, *arguments):
        return self.run("kd", *arguments)


def succeed(*command, **more):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=240, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    root = tmp_path_factory.mktemp("fresh")
    plugins = [new_plugin(kind="generator", name=name, folder=root / name) for name in ("trigrams", "torn")]
    (root / "torn" / "kd_torn" / "__init__.py").write_text('raise RuntimeError("no GPU today")\n')
    pip = sys.executable, "-m", "pip", "--disable-pip-version-check"
    wheel = "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", root / "wheels"
    succeed(*pip, *wheel, ROOT, *(plugin.folder for plugin in plugins))
    venv.create(root / "venv", with_pip=False)
    (site,) = (root / "venv" / "lib").glob("python*/site-packages")
    # Dependencies alone: a folder that a .pth file adds has its own .pth files, such as an editable kd's, left unread.
    ours = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("".join(f"{entry}\n" for entry in ours))
    wheels = sorted((root / "wheels").glob("*.whl"))
    assert [file.name.partition("-")[0] for file in wheels] == ["kd_torn", "kd_trigrams", "kdcli"]
    succeed(*pip, "--python", root / "venv", "install", "--no-index", "--no-deps", *wheels)
    work = root / "work"
    work.mkdir()
    return Environment(root / "venv", work)


def test_kd_is_the_wheels(fresh):
    origins = json.loads(fresh.run("python", "-c", ORIGINS).stdout)
    (site,) = (fresh.prefix / "lib").glob("python*/site-packages")
    packages = ("kdcli", "kd_bilstm", "kd_trigrams")
    assert origins == [*(str(site / package / "__init__.py") for package in packages), str(site)]
    listed = fresh.kd("plugins", "list", "--json")
    names = {plugin["full_name"] for plugin in json.loads(listed.stdout)["plugins"]}
    assert {"kd-trigrams:trigrams", "kd-torn:torn", "kdcli:gpt2", "kdcli:bilstm"} <= names
    assert not listed.stderr


def test_run_all_with_the_plugin_beside_a_broken_one(fresh):
    done = fresh.kd("run-all", "--profile", "demo", "--run-dir", "run", *(word for x in TINY for word in ("--set", x)))
    head, *models = done.stdout.splitlines()[0].split()
    # A teacher that gives all texts one label leaves no words to tell them apart by.
    assert (head, [model for model in models if model != "tf-idf"]) == ("model", ["teacher", "baseline", "student"])
    assert pl.read_parquet(fresh.work / "run/transfer/heavy.parquet")["source"].value_counts().height == 2
    assert (fresh.work / "run/transfer/generator/followers.json").exists()
    assert sum("torn" in line for line in done.stderr.splitlines() if line.startswith("warning:")) <= 1
    assert "no GPU today" not in done.stdout
    found = [line for line in fresh.kd("doctor").stdout.splitlines() if "no GPU today" in line]
    assert len(found) == 1 and found[0].startswith("generator kd-torn:torn")


def test_a_new_plugin_comes_out_of_the_wheel_whole(fresh):
    written = json.loads(fresh.kd("plugins", "new", "student", "own", "--json").stdout)
    here = new_plugin(kind="student", name="own", folder=fresh.work / "here")
    assert tuple(written["files"]) == here.files
    for file in here.files:
        assert (fresh.work / "kd-own" / file).read_bytes() == (here.folder / file).read_bytes()
