import json

from kdcli.cli import run

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


def plugins(capsys, *arguments):
    assert run(["plugins", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["plugins"]


def test_list(capsys):
    listed = plugins(capsys, "list")
    assert {(plugin["group"], plugin["name"]) for plugin in listed} == {
        ("generators", "gpt2"),
        ("generators", "mlm"),
        ("generators", "transfoxl"),
        ("students", "bilstm"),
        ("students", "dan"),
        ("students", "kimcnn"),
        ("taggers", "nltk"),
        ("taggers", "pattern"),
        ("teachers", "cross-encoder"),
        ("teachers", "ensemble"),
        ("teachers", "setfit"),
        ("teachers", "transformers"),
        ("teachers", "llm"),
        ("teachers", "zero-shot"),
    }
    assert run(["plugins", "list"]) == 0
    out = capsys.readouterr().out
    assert "bilstm" in out and "kd_taggers.pattern" in out


def test_show_describes_a_plugin_and_its_options(capsys, make_plugin):
    site = make_plugin("kd-own", "[kdcli.students]\nown = kd_own\n", STUDENT, module="kd_own", version="0.3")
    (own,) = plugins(capsys, "show", "own")
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
    assert run(["plugins", "show", "own"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "students.own.width whole number yes How wide.",
        "students.own.depth whole number 2 no",
    ):
        assert line in lines


def test_show_every_builtin(capsys):
    for name in [plugin["name"] for plugin in plugins(capsys, "list")]:
        (shown,) = plugins(capsys, "show", name)
        assert shown["about"] and shown["api_version"] == 2 and shown["file"].endswith(".py")
        for option in shown.get("options"):
            assert option["about"] and option["type"] not in ("", "anything"), option["key"]
