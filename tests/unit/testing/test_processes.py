"""``kd`` in another process, distributions made on the spot, and both as fixtures."""

import os
import sys
from importlib import import_module
from importlib.metadata import distribution

import pytest

from kdcli import __version__, registry
from kdcli.api import PluginError
from kdcli.testing import fake_dist, run_cli
from kdcli.testing.processes import run_elsewhere, run_python

TAGGER = "'''Own.'''\napi_version = 2\ndef tag(texts): return [[WORD] * len(words) for words in texts]\nWORD = 'X'\n"


def test_run_cli(tmp_path, monkeypatch):
    done = run_cli("--version", "--json")
    assert (done.code, done.json, done.stderr) == (0, {"version": __version__}, "")
    wrong = run_cli("plugins", "show", "bilsmt")
    assert wrong.code == 5 and "did you mean bilstm" in wrong.stderr and wrong.stdout == ""
    monkeypatch.setenv("KD_STUDENT__LR", "fast")
    assert run_cli("profile", "check", "demo").code == 3
    monkeypatch.delenv("KD_STUDENT__LR")
    run_cli("profile", "copy", "demo", "mine.toml", cwd=tmp_path)
    assert list(tmp_path.iterdir())


def test_another_process_finds_the_modules_of_this_one(tmp_path, monkeypatch):
    (tmp_path / "kd_beside.py").write_text("print('beside')")
    assert run_python("-c", "import kd_beside").code == 1
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run_python("-c", "import kd_beside").stdout == "beside\n"
    assert run_python("-c", "import os; print(os.environ['A'])", environ={"A": "b"}).stdout == "b\n"


def test_the_current_folder_is_not_searched(tmp_path, monkeypatch):
    """Unless this process searches it: a ``random.py`` there is none of Python's."""
    for name in ("random", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "shape.py").write_text(TAGGER)
    done = run_cli("plugins", "check", "shape", "--code", "shape.py", "--json", cwd=tmp_path)
    assert done.code == 0 and {one["result"] for one in done.json["plugins"][0]["checks"]} == {"passed"}, done
    for name in ("random", "json"):
        (tmp_path / f"{name}.py").unlink()
    (tmp_path / "test_shape.py").write_text(
        "import shape\nfrom kdcli.testing import check_tagger\n\n"
        "def test_it():\n    assert {one.result for one in check_tagger(shape)} == {'passed'}\n"
    )
    done = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_shape.py", cwd=tmp_path)
    assert done.code == 0 and "1 passed" in done.stdout, done


def test_fake_dist_comes_and_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    before = list(sys.path)
    modules = {"kd_own.__init__": TAGGER, "kd_own.inside": "HERE = 1"}
    with fake_dist(tmp_path, "kd-own", {"taggers": {"own": "kd_own"}}, modules, version="0.3") as site:
        assert distribution("kd-own").version == "0.3" and site.parent == tmp_path
        assert registry.load("taggers", "own").tag([["a", "b"]]) == [["X", "X"]]
        assert import_module("kd_own.inside").HERE == 1
        listed = run_cli("plugins", "list", "--json").json["plugins"]
        assert {"kd-own:own"} == {plugin["full_name"] for plugin in listed if plugin["distribution"] != "kdcli"}
    assert sys.path == before and os.environ["PYTHONPATH"] == "elsewhere"
    assert not [name for name in sys.modules if name.startswith("kd_own")]
    assert "own" not in [plugin.name for plugin in registry.plugins("taggers")]


def test_fake_dist_takes_the_place_of_what_was_imported_under_its_name(tmp_path):
    for word in ("X", "Y"):
        source = TAGGER.replace("'X'", repr(word))
        with fake_dist(tmp_path / word, "kd-own", {"kdcli.taggers": {"own": "kd_own"}}, {"kd_own": source}):
            assert registry.load("taggers", "own").tag([["a"]]) == [[word]]


def test_a_plugin_that_fails_in_another_process():
    with pytest.raises(PluginError, match="ModuleNotFoundError: No module named 'kd_no'"):
        run_elsewhere("imports", "module", "kd_no")


def test_fixtures_are_there_on_request_alone(tmp_path):
    (tmp_path / "test_own.py").write_text(
        "def test_it(run_cli, fake_dist, tiny_task, tiny_corpus, check_tagger, check_student, check_generator,\n"
        "            check_teacher, tiny_teacher):\n"
        f"    fake_dist('kd-own', {{'taggers': {{'own': 'kd_own'}}}}, {{'kd_own': {TAGGER!r}}})\n"
        "    assert check_tagger('own') and tiny_task('pair').outputs == 3 and tiny_corpus('pair').kind == 'pair'\n"
        "    assert run_cli('plugins', 'show', 'own').code == 0\n"
    )
    options = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path))
    without = run_python(*options, cwd=tmp_path)
    assert without.code == 1 and "fixture 'run_cli' not found" in without.stdout
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["kdcli.testing.fixtures"]\n')
    done = run_python(*options, cwd=tmp_path)
    assert done.code == 0 and "1 passed" in done.stdout, done.stdout
