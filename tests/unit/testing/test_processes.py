"""``kd`` and plugins in another process."""

import pytest

from kdcli import __version__
from kdcli.api import PluginError
from kdcli.testing import run_cli
from kdcli.testing.checks import heavy_modules
from kdcli.testing.processes import in_another_process, run_python

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


def test_a_plugin_that_fails_in_another_process():
    with pytest.raises(PluginError, match="ModuleNotFoundError: No module named 'kd_no'"):
        in_another_process(heavy_modules, ("", "kd_no"), ())
