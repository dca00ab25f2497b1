import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kdcli.errors import DataError, PluginError, UsageError
from kdcli.files import MARKER
from kdcli.scaffold import GROUPS, new_plugin, template

ROOT = Path(__file__).resolve().parents[3]
every_kind = pytest.mark.parametrize("kind", GROUPS)


def python(*arguments, cwd):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200)


@every_kind
def test_a_package_of_its_name_is_written_and_no_file_of_the_template_is_left_out(kind, tmp_path):
    new = new_plugin(kind=kind, name="my_own", folder=tmp_path / "deep" / "kd-my_own")
    files = sorted(path.relative_to(new.folder).as_posix() for path in new.folder.rglob("*") if path.is_file())
    assert files == sorted([MARKER, *new.files])
    assert {"README.md", "pyproject.toml", "kd_my_own/__init__.py", "tests/test_kd_my_own.py"} <= set(files)
    project = tomllib.loads((new.folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == new.distribution == "kd-my_own" and "kdcli" in project["dependencies"]
    assert project["entry-points"] == {f"kdcli.{GROUPS[kind]}": {"my_own": new.package}}
    assert not any("example" in path.read_text() for path in new.folder.rglob("*") if path.is_file())
    folder = ROOT / "kdcli/scaffold" / kind
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    caches = ("__pycache__", ".ruff_cache", ".mypy_cache", ".pytest_cache")
    wanted = {file.as_posix() for file in files if not set(file.parts) & set(caches)}
    assert set(template(kind, "example")) == wanted | {"tests/test_kd_example.py"}


@every_kind
def test_its_own_tests_pass(kind, tmp_path):
    new = new_plugin(kind=kind, name="brand_new", folder=tmp_path / "kd-brand_new")
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=new.folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["x", "rather_long_name"])
def test_linted_under_any_name(tmp_path, name):
    pytest.importorskip("ruff")
    for kind in GROUPS:
        new_plugin(kind=kind, name=name, folder=tmp_path / kind)
    done = python("-m", "ruff", "check", "--no-cache", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_folder_that_is_there_is_kept_and_a_name_that_is_taken_is_refused(tmp_path, make_plugin):
    new = new_plugin(kind="tagger", name="mine", folder=tmp_path / "mine")
    (new.folder / "README.md").write_text("changed")
    with pytest.raises(DataError, match="exists already"):
        new_plugin(kind="tagger", name="mine", folder=new.folder)
    assert (new.folder / "README.md").read_text() == "changed"
    new_plugin(kind="tagger", name="mine", folder=new.folder, force=True)
    assert (new.folder / "README.md").read_text() != "changed"
    with pytest.raises(PluginError, match="a student is named bilstm already: kdcli:bilstm"):
        new_plugin(kind="student", name="bilstm", folder=tmp_path / "new")
    with pytest.raises(PluginError, match="a package named kd_gpt2 is installed already"):
        new_plugin(kind="student", name="gpt2", folder=tmp_path / "new")
    make_plugin("kd-mine", "[kdcli.students]\nmine = kd_mine\n", module="kd_mine")
    with pytest.raises(PluginError, match="named mine already: kd-mine:mine"):
        new_plugin(kind="student", name="mine", folder=tmp_path / "new")
    new_plugin(kind="student", name="mine", folder=tmp_path / "new", force=True)
    assert (tmp_path / "new" / "kd_mine" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("name", "likely"),
    [("Kd-Word-Grams", "word_grams"), ("a__b", "a_b"), ("n-gram", "n_gram"), ("3gram", None), ("", None), ("é", None)],
)
def test_no_name(tmp_path, name, likely):
    with pytest.raises(UsageError, match="cannot name a plugin") as caught:
        new_plugin(kind="student", name=name, folder=tmp_path / "new")
    assert caught.value.hint.partition(": ")[2] == (likely or "")
    assert not (tmp_path / "new").exists()
