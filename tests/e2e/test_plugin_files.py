"""``--code FILE.py``: a run with plugins that are not installed, from the transfer set to the prediction."""

import inspect
import json
import subprocess
import sys

import fake_plugin
import pytest
from e2e.conftest import refused, succeeded


@pytest.fixture
def code(tmp_path):
    def copy(module, name):
        path = tmp_path / name
        path.write_text(inspect.getsource(module))
        return path

    return copy


def test_a_whole_run_and_a_changed_file(tiny, code, monkeypatch):
    splice, bag = code(fake_plugin, "splice.py"), code(fake_plugin, "bag.py")
    files = ("--code", splice, "--code", bag)
    chosen = ("--set", "transfer.method=heavy", "--set", "transfer.generator=splice", "--set", "student.model=bag")
    line = ("run-all", "--until", "student", *chosen, *files)
    succeeded(tiny.stage(*line, "--json"))
    versions = tiny.lock["student"]["versions"]
    assert {"splice.py", "bag.py"} < set(versions) and len(versions["bag.py"]) == 8

    monkeypatch.delenv("KD_CODE")
    ended = tiny.stage(*line, "--dry-run", "--json")
    assert not any(stage["reasons"] for stage in ended.result["stages"])
    bag.write_text(bag.read_text() + "\n# changed\n")
    reasons = {stage["stage"]: stage["reasons"] for stage in tiny.stage(*line, "--dry-run", "--json").result["stages"]}
    assert reasons.pop("student") == ["input bag.py changed"]
    assert not any(reasons.values()), "nothing else depends on it"
    splice.write_text(splice.read_text() + "\n# changed\n")
    reasons = {stage["stage"]: stage["reasons"] for stage in tiny.stage(*line, "--dry-run", "--json").result["stages"]}
    for stage in ("fine-tune", "prefixes", "sample"):
        assert "input splice.py changed" in reasons[stage]
    assert not reasons["cache"] and not reasons["teacher"]

    monkeypatch.delenv("KD_CODE")
    predict = ("predict", "--student", tiny.run_dir / "student", "--input", tiny.data / "test.tsv")
    ended = tiny.kd(*predict)
    refused(ended, 5, "no student plugin is named bag", "--code bag.py")
    # In a process of its own, and from elsewhere: the flag stands anywhere, and the path is relative.
    arguments = [sys.executable, "-m", "kdcli", *map(str, predict), "--json", "--code", "bag.py"]
    done = subprocess.run(arguments, cwd=bag.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_a_tagger_in_worker_processes(tiny, tmp_path):
    path = tmp_path / "own.py"
    path.write_text("api_version = 2\ndef tag(texts):\n    return [['X' for _ in words] for words in texts]\n")
    lite = ("transfer", "lite", "--set", "transfer.lite.tagger=own", "--workers", 2, "--code", path)
    succeeded(tiny.stage(*lite))
    path.write_text(path.read_text().replace("'X'", "'Y'"))
    ended = tiny.stage(*lite, "--dry-run", "--json")
    assert [stage["reasons"] for stage in ended.result["stages"] if stage["stage"] == "lite"] == [
        ["input own.py changed"]
    ]


def test_debug_shows_where_a_plugin_failed(tiny, tmp_path):
    path = tmp_path / "own.py"
    path.write_text("api_version = 2\ndef tag(texts):\n    return 1 / 0\n")
    ended = tiny.stage("transfer", "lite", "--set", "transfer.lite.tagger=own", "--code", path, "--debug")
    assert ended.code == 5 and "return 1 / 0" in ended.err and "Traceback" in ended.err
