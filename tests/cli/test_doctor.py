import json

import pytest

from kdcli.cli import doctor, run


@pytest.fixture
def check(capsys, monkeypatch):
    """Run ``kd doctor`` and return its exit code and checks by name; torch is imported for one test alone."""
    monkeypatch.setattr(doctor, "NEEDED", ("json",))

    def run_it():
        code = run(["doctor", "--json"])
        result = json.loads(capsys.readouterr().out)
        return code, {check["name"]: check for check in result["checks"]}, result["fine"]

    return run_it


def test_everything_here_is_fine(capsys):
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("python", "torch", "transformers", "cores", "memory free", "disk free"):
        assert f"{name} " in out
    assert "student kdcli:bilstm" in out and "tagger kdcli:pattern" in out
    assert "broken" not in out


def test_missing_data_of_the_optional_tagger_is_no_fault(check, monkeypatch, tmp_path):
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    import kd_taggers.nltk_perceptron as tagger

    for value in vars(tagger).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    code, checks, fine = check()
    assert (code, fine) == (0, True)
    assert checks["tagger kdcli:nltk"]["status"] == "look" and checks["tagger kdcli:nltk"]["hint"]


def test_broken_plugin_of_somebody_else_is_to_be_looked_at(check, make_plugin):
    make_plugin("kd-bad", "[kdcli.students]\nbad = kd_bad_module\n", "1 / 0", module="kd_bad_module")
    code, checks, fine = check()
    assert (code, fine) == (0, True)
    assert checks["student kd-bad:bad"]["status"] == "look"
    assert "pip uninstall kd-bad" in checks["student kd-bad:bad"]["hint"]


def test_little_disk_is_to_be_looked_at_and_a_missing_dependency_is_broken(check, monkeypatch):
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1e30)
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 1e30)
    code, checks, _ = check()
    assert code == 0
    assert checks["disk free"]["status"] == "look" and "--run-dir" in checks["disk free"]["hint"]
    assert checks["memory free"]["status"] == "look"
    monkeypatch.setattr(doctor, "NEEDED", ("json", "no_such_module"))
    code, checks, fine = check()
    assert (code, fine) == (6, False)
    assert checks["no_such_module"]["status"] == "broken" and checks["json"]["status"] == "fine"
