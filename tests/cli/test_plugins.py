import json
import sys

from kdcli.cli import run

STUDENT = """
'''A student made by somebody else.

More.'''
from pydantic import BaseModel, ConfigDict
api_version = 1
pairs, scores = True, False
class Options(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)
    width: int
    '''How
    wide.'''
    depth: int = 2
def build(options, task, vocabulary_size, vectors, dimension): ...
"""


def plugins(capsys, *arguments):
    assert run(["plugins", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["plugins"]


def test_list(capsys):
    listed = plugins(capsys, "list")
    assert {(plugin["group"], plugin["name"]) for plugin in listed} == {
        ("generators", "gpt2"),
        ("generators", "transfoxl"),
        ("students", "bilstm"),
        ("taggers", "nltk"),
        ("taggers", "pattern"),
    }
    assert not any(plugin["clash"] for plugin in listed)
    assert run(["plugins", "list"]) == 0
    out = capsys.readouterr().out
    assert "bilstm" in out and "kd_taggers.pattern" in out


def test_list_does_not_import(capsys, make_plugin):
    make_plugin("kd-own", "[kdcli.students]\nown = kd_own\n", STUDENT, module="kd_own")
    assert "own" in [plugin["name"] for plugin in plugins(capsys, "list")]
    assert "kd_own" not in sys.modules


def test_show_says_what_it_is_and_takes(capsys, make_plugin):
    make_plugin("kd-own", "[kdcli.students]\nown = kd_own\n", STUDENT, module="kd_own", version="0.3")
    (own,) = plugins(capsys, "show", "own")
    assert (own["full_name"], own["version"], own["about"]) == (
        "kd-own:own",
        "0.3",
        "A student made by somebody else.",
    )
    assert (own["pairs"], own["scores"]) == (True, False)
    assert own["options"] == [
        {"key": "students.own.width", "default": "required", "about": "How wide."},
        {"key": "students.own.depth", "default": 2, "about": ""},
    ]
    assert run(["plugins", "show", "kd-own:own"]) == 0
    out = capsys.readouterr().out
    assert "also for pairs" in out and "students.own.width  required  How wide." in out


def test_show_every_builtin(capsys):
    for name in ("bilstm", "gpt2", "nltk", "pattern", "transfoxl"):
        (shown,) = plugins(capsys, "show", name)
        assert shown["about"]


def test_clash_is_told_and_resolved(capsys, make_plugin):
    make_plugin("kd-other", "[kdcli.students]\nbilstm = kd_other\n", STUDENT, module="kd_other")
    assert run(["plugins", "list"]) == 0
    out, err = capsys.readouterr()
    assert "kd-other:bilstm" in out and "kdcli:bilstm" in out
    assert "write kd-other:bilstm to choose it" in err
    assert run(["plugins", "show", "bilstm"]) == 5
    assert "kd-other:bilstm or kdcli:bilstm" in capsys.readouterr().err
    assert plugins(capsys, "show", "kd-other:bilstm")[0]["module"] == "kd_other"


def test_same_name_in_two_groups_is_no_clash(capsys, make_plugin):
    code = "api_version = 1\ndef tag(texts): ..."
    make_plugin("kd-other", "[kdcli.taggers]\nbilstm = kd_other\n", code, module="kd_other")
    assert [plugin["group"] for plugin in plugins(capsys, "show", "bilstm")] == ["students", "taggers"]


def test_show_of_a_broken_plugin(capsys, make_plugin):
    make_plugin("kd-bad", "[kdcli.students]\nbad = kd_bad_module\n", "1 / 0", module="kd_bad_module")
    assert run(["plugins", "show", "bad"]) == 5
    assert "cannot be imported: ZeroDivisionError" in capsys.readouterr().err
