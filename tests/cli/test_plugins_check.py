import json
import re

import pytest

from kdcli.cli import run

SHAPE = """
'''Tag words by what they look like.'''
api_version = {version}
def tag(texts): return [[word[-1:] for word in words] for words in texts]
"""


def checked(capsys, *arguments):
    code = run(["plugins", "check", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def install(make_plugin):
    def make(group, code):
        make_plugin("kd-own", f"[kdcli.{group}]\nown = kd_own\n", code, module="kd_own")

    return make


def test_a_sound_plugin(capsys, install):
    install("taggers", SHAPE.format(version=2))
    code, result = checked(capsys, "own")
    (plugin,) = result["plugins"]
    assert code == 0 and plugin["passed"]
    assert (plugin["group"], plugin["full_name"], plugin["version"]) == ("taggers", "kd-own:own", "1.0")
    assert {outcome["result"] for outcome in plugin["checks"]} == {"passed"}
    assert [outcome["check"] for outcome in plugin["checks"]][:2] == ["loads", "one tag a word"]
    assert run(["plugins", "check", "own"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"one tag a word +passed", out) and out.splitlines()[-1] == "6 passed"
    assert "Traceback" not in err


def test_a_broken_plugin_is_exit_code_5(capsys, install):
    install("taggers", SHAPE.format(version=3))
    code, result = checked(capsys, "own")
    failed = [outcome for outcome in result["plugins"][0]["checks"] if outcome["result"] == "failed"]
    assert code == 5 and not result["plugins"][0]["passed"]
    assert [outcome["check"] for outcome in failed] == ["loads"]
    assert "api_version 3" in failed[0]["detail"] and "docs/plugins.md" in failed[0]["detail"]
    assert run(["plugins", "check", "own"]) == 5
    assert capsys.readouterr().out.splitlines()[-1] == "1 failed, 5 skipped"


def test_options(capsys):
    code, result = checked(capsys, "bilstm", "--set", "hidden=4", "-s", "students.bilstm.fc=5")
    (given,) = [one for one in result["plugins"][0]["checks"] if one["check"] == "options"]
    assert code == 0 and given["detail"] == "hidden = 4, fc = 5"


def test_a_teacher_and_its_model(capsys, tmp_path):
    code, result = checked(capsys, "transformers", "--model", str(tmp_path / "nowhere"))
    found = {one["check"]: one for one in result["plugins"][0]["checks"]}
    assert code == 5 and found["load"]["result"] == "failed" and "nowhere" in found["load"]["detail"]
    assert found["logits"]["result"] == "skipped"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nope"], 5, "no plugin is named nope"),
        (["bilsmt"], 5, "did you mean bilstm?"),
        (["bilstm", "--set", "hiden=4"], 3, "did you mean students.bilstm.hidden?"),
        (["gpt2", "--set", "lr=-1"], 3, "generators.gpt2.lr"),
        (["bilstm", "--set", "hidden"], 2, "--set takes key=value"),
        (["pattern", "--set", "a=1"], 2, "a tagger has no options"),
        (["bilstm", "--model", "x"], 2, "key --model"),
        (["zero-shot", "--set", "template=None"], 3, "teachers.zero-shot.template"),
    ],
)
def test_what_cannot_be_checked(capsys, arguments, code, says):
    assert run(["plugins", "check", *arguments]) == code
    assert says in capsys.readouterr().err
