import re

import pytest

from kdcli.cli import doctor

STUDENT = """
'''A student made by somebody else.

More.'''
from pydantic import BaseModel, ConfigDict
api_version = 2
pairs, scores = True, False
class Options(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)
    width: int
    '''How
    wide.'''
    depth: int = 2
def build(options, task, vocabulary_size, vectors, dimension): ...
"""


def test_list_and_show_every_builtin(kd):
    names, listed = {}, kd.ok("plugins", "list", "--json")["plugins"]
    for plugin in listed:
        names.setdefault(plugin["group"], set()).add(plugin["name"])
    assert names == {
        "generators": {"gpt2", "mlm", "transfoxl"},
        "students": {"bilstm", "dan", "kimcnn"},
        "taggers": {"nltk", "pattern"},
        "teachers": {"cross-encoder", "ensemble", "llm", "setfit", "transformers", "zero-shot"},
    }
    out = kd.ok("plugins", "list")
    assert "bilstm" in out and "kd_taggers.pattern" in out
    for plugin in listed:
        (shown,) = kd.ok("plugins", "show", plugin["name"], "--json")["plugins"]
        assert shown["about"] and shown["api_version"] == 2 and shown["file"].endswith(".py")
        for option in shown.get("options"):
            assert option["about"] and option["type"] not in ("", "anything"), option["key"]


def test_show_describes_a_plugin_and_its_options(kd, make_plugin):
    site = make_plugin("kd-own", "[kdcli.students]\nown = kd_own\n", STUDENT, module="kd_own", version="0.3")
    (own,) = kd.ok("plugins", "show", "own", "--json")["plugins"]
    assert (own["full_name"], own["version"]) == ("kd-own:own", "0.3")
    assert own["about"] == "A student made by somebody else."
    assert (own["pairs"], own["scores"]) == (True, False)
    whole = {"type": "whole number"}
    assert own["options"] == [
        {"key": "students.own.width", **whole, "default": None, "required": True, "about": "How wide."},
        {"key": "students.own.depth", **whole, "default": 2, "required": False, "about": ""},
    ]
    assert (own["api_version"], own["fast"], own["onnx"]) == (2, False, False)
    assert own["file"] == str(site / "kd_own.py")
    lines = [" ".join(line.split()) for line in kd.ok("plugins", "show", "own").splitlines()]
    for line in ("students.own.width whole number yes How wide.", "students.own.depth whole number 2 no"):
        assert line in lines


def test_new_names_the_files_and_the_next_commands_here_or_elsewhere(kd, tmp_path):
    out = kd.ok("plugins", "new", "generator", "own")
    assert "pip install -e kd-own\n  kd plugins check own\n  python -m pytest kd-own\n" in out
    assert (tmp_path / "kd-own" / "pyproject.toml").exists()
    result = kd.ok("plugins", "new", "tagger", "own", "--output", "a place/own", "--json")
    assert (result["kind"], result["name"], result["folder"]) == ("tagger", "own", "a place/own")
    assert all((tmp_path / result["folder"] / file).is_file() for file in result["files"])
    assert result["next"][0] == "pip install -e 'a place/own'"
    result = kd.ok("plugins", "new", "teacher", "mine", "--json")
    assert result["next"][1] == "kd plugins check mine --model textblob"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["generator", "there"], 4, "(file kd-there)\nhint: --force "),
        (["loss", "own"], 2, "'loss' is not one of 'generator', 'student', 'tagger', 'teacher'"),
        (["studnet", "own"], 2, "hint: did you mean student?"),
    ],
)
def test_errors(kd, tmp_path, arguments, code, says):
    (tmp_path / "kd-there").mkdir()
    kd.says(code, says, "plugins", "new", *arguments)


SHAPE = """
'''Tag words by what they look like.'''
api_version = {version}
def tag(texts): return [[word[-1:] for word in words] for words in texts]
"""


def test_a_sound_plugin(kd, make_plugin):
    make_plugin("kd-own", "[kdcli.taggers]\nown = kd_own\n", SHAPE.format(version=2), module="kd_own")
    (plugin,) = kd.ok("plugins", "check", "own", "--json")["plugins"]
    assert plugin["passed"]
    assert (plugin["group"], plugin["full_name"], plugin["version"]) == ("taggers", "kd-own:own", "1.0")
    assert {outcome["result"] for outcome in plugin["checks"]} == {"passed"}
    assert [outcome["check"] for outcome in plugin["checks"]][:2] == ["loads", "one tag a word"]
    out = kd.ok("plugins", "check", "own")
    assert re.search(r"one tag a word +passed", out) and out.splitlines()[-1] == "5 passed"


def test_a_broken_plugin_is_exit_code_5(kd, make_plugin):
    make_plugin("kd-own", "[kdcli.taggers]\nown = kd_own\n", SHAPE.format(version=3), module="kd_own")
    (plugin,) = kd.failed(5, "plugins", "check", "own")["plugins"]
    failed = [outcome for outcome in plugin["checks"] if outcome["result"] == "failed"]
    assert not plugin["passed"] and [outcome["check"] for outcome in failed] == ["loads"]
    said = ("api_version 3", "docs/plugins.md", "pip install -U kd-own")
    assert [part for part in said if part not in failed[0]["detail"]] == []
    assert kd("plugins", "check", "own")[1].splitlines()[-1] == "1 failed, 4 skipped"


def test_options_and_a_teacher_with_its_model(kd, tmp_path):
    result = kd.ok("plugins", "check", "bilstm", "--set", "hidden=4", "-s", "students.bilstm.fc=5", "--json")
    (given,) = [one for one in result["plugins"][0]["checks"] if one["check"] == "options"]
    assert given["detail"] == "hidden = 4, fc = 5"
    result = kd.failed(5, "plugins", "check", "transformers", "--model", tmp_path / "nowhere")
    found = {one["check"]: one for one in result["plugins"][0]["checks"]}
    assert found["load"]["result"] == "failed" and "nowhere" in found["load"]["detail"]
    assert found["logits"]["result"] == "skipped"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["bilsmt"], 5, "did you mean bilstm?"),
        (["bilstm", "--set", "hiden=4"], 3, "did you mean students.bilstm.hidden?"),
        (["gpt2", "--set", "lr=-1"], 3, "generators.gpt2.lr"),
        (["bilstm", "--set", "hidden"], 2, "--set takes key=value"),
        (["pattern", "--set", "a=1"], 2, "a tagger has no options"),
        (["bilstm", "--model", "x"], 2, "key --model"),
        (["zero-shot", "--set", "template=None"], 3, "teachers.zero-shot.template"),
    ],
)
def test_what_cannot_be_checked(kd, arguments, code, says):
    kd.says(code, says, "plugins", "check", *arguments)


def test_everything_here_is_fine(kd):
    out = kd.ok("doctor")
    for name in ("python", "torch", "transformers", "cores", "memory free", "disk free"):
        assert f"{name} " in out
    assert "student kdcli:bilstm" in out and "tagger kdcli:pattern" in out
    assert "broken" not in out


def test_what_is_missing_is_to_be_looked_at_or_broken(kd, monkeypatch, tmp_path):
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    monkeypatch.setattr(doctor, "NEEDED", ("json",))  # torch is imported for one test alone
    import kd_taggers.nltk_perceptron as tagger

    for value in vars(tagger).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1e30)
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 1e30)
    result = kd.ok("doctor", "--json")
    checks = {check["name"]: check for check in result["checks"]}
    assert result["fine"] and {checks[name]["status"] for name in ("disk free", "memory free")} == {"look"}
    assert checks["tagger kdcli:nltk"]["status"] == "look" and checks["tagger kdcli:nltk"]["hint"]
    assert "--run-dir" in checks["disk free"]["hint"]
    monkeypatch.setattr(doctor, "NEEDED", ("json", "no_such_module"))
    result = kd.failed(6, "doctor")
    checks = {check["name"]: check for check in result["checks"]}
    assert not result["fine"]
    assert checks["no_such_module"]["status"] == "broken" and checks["json"]["status"] == "fine"
