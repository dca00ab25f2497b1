import json

import pytest
import tomli

from kdcli.cli import run
from kdcli.config import files
from kdcli.config.load import load_profile


def result(capsys, *arguments, code=0):
    assert run([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_show_resolved_prints_each_value_with_its_origin(capsys, monkeypatch):
    monkeypatch.setenv("KD_SEED", "7")
    assert run(["profile", "show", "demo", "--resolved", "-s", "student.lr=0.25"]) == 0
    lines = [line.split("  # ") for line in capsys.readouterr().out.splitlines() if "  # " in line]
    origins = {line[0].strip(): line[1] for line in lines}
    assert origins["seed = 7"] == "KD_SEED"
    assert origins["student.lr = 0.25"] == "--set"
    assert origins['task.data_dir = "kd:sample"'] == "demo.toml"
    assert origins["student.rho = 0.95"] == "base.toml"
    assert origins['task.layout = "auto"'] == "default"


def test_copy_is_a_profile_of_ones_own_and_never_overwrites_unasked(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["profile", "copy", "demo"]) == 0
    assert capsys.readouterr().out == "demo is in demo.toml\n"
    assert run(["profile", "copy", "demo", "sub/my.toml"]) == 0
    copied = (tmp_path / "sub" / "my.toml").read_text("utf-8")
    assert "kd run-all --profile sub/my.toml" in copied and "--profile demo" not in copied
    assert tomli.loads(copied) == files.read(files.find("demo"))
    assert load_profile("sub/my.toml").settings == load_profile("demo").settings
    target = tmp_path / "my.toml"
    target.write_text("precious")
    assert run(["profile", "copy", "demo", str(target)]) == 4
    assert "exists already" in capsys.readouterr().err and target.read_text() == "precious"
    assert run(["profile", "copy", "demo", str(target), "-f"]) == 0
    assert load_profile(target).settings.task.name == "demo"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["dmeo"], 3, "did you mean demo?"),
        (["demo", "my.txt"], 2, "a profile's file ends in .toml"),
        (["./demo.toml"], 2, "takes the name of a profile, not a file"),
    ],
)
def test_copy_refuses(arguments, code, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["profile", "copy", *arguments]) == code
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_check_reports_every_wrong_key_at_once_and_reads_the_tables_where_they_are_there(capsys, tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('extends = "base"\nsede = 1\n[student]\nkd_los = "kl"\n[students.bilstm]\nhiden = 3\n')
    assert run(["profile", "check", str(path)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6 and all(f"(file {path}, key " in line for line in lines[::2])
    errors = result(capsys, "profile", "check", str(path), code=3)["error"]["errors"]
    assert [error["hint"] for error in errors] == [
        f"did you mean {key}?" for key in ("student.kd_loss", "seed", "students.bilstm.hidden")
    ]
    data = f"task.data_dir={tmp_path / 'data'}"
    arguments = ["profile", "check", "custom", "--set", 'task.labels=["0", "1"]', "--set", data]
    assert result(capsys, *arguments)["data"] is None
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "data" / f"{split}.tsv").write_text("sentence\tlabel\ngood\t1\nbad\t0\n")
    assert result(capsys, *arguments)["data"] == str(tmp_path / "data")
    (tmp_path / "data" / "train.tsv").write_text("sentence\tlabel\ngood\t1\n \t0\n")
    assert result(capsys, *arguments, code=4)["error"]["file"] == str(tmp_path / "data" / "train.tsv")


PLUGIN = """
'Texts by somebody else.'
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field
api_version = 2
class Inner(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)
    depth: float = Field(0.5, gt=0, lt=1)
    \"\"\"How deep.\"\"\"
class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    order: int = Field(3, ge=2)
    \"\"\"Words that the next one depends on.\"\"\"
    kind: Literal["a", "b"] | None = None
    name: str
    inner: Inner = Inner()
def fine_tune(): ...
def load(): ...
"""


def test_docs_explain_every_setting_and_are_a_profile_of_the_same(capsys, tmp_path, make_plugin):
    make_plugin("kd-own", "[kdcli.generators]\nown = kd_own\n", PLUGIN, module="kd_own", version="0.3")
    sets = ["-s", "student.lr=0.25", "-s", "generators.own.name=x"]
    assert run(["profile", "show", "demo", "--docs", *sets]) == 0
    out, _ = capsys.readouterr()
    for block in (
        "# Passes over the joined set.\n# whole number >= 1; default: 30; from demo.toml\nstudent.epochs = ",
        'default: "auto"; from --set\nstudent.lr = 0.25\n',
        "# Words that the next one depends on.\n# whole number >= 2; default: 3\ngenerators.own.order = 3\n",
        '\n# text; required; from --set\ngenerators.own.name = "x"\n',
        "# How deep.\n# number > 0, < 1; default: 0.5\ngenerators.own.inner.depth = 0.5\n",
        "# a | b | unset; default: unset\n# generators.own.kind =\n",
    ):
        assert block in out
    wanted = result(capsys, "profile", "show", "demo", "--resolved", *sets)["settings"]
    (tmp_path / "copy.toml").write_text(out)
    assert result(capsys, "profile", "show", str(tmp_path / "copy.toml"), "--resolved")["settings"] == wanted


@pytest.mark.parametrize("name", files.names())
def test_docs_of_every_shipped_profile_explain_every_key(name, capsys):
    assert run(["profile", "show", name, "--docs", "--json"]) == 0
    settings = {setting["key"]: setting for setting in json.loads(capsys.readouterr().out)["settings"]}
    assert all(setting["about"] and setting["type"] != "anything" for setting in settings.values())
    assert run(["profile", "show", name, "--resolved", "--json"]) == 0
    origins = json.loads(capsys.readouterr().out)["origins"]
    assert {key: settings[key]["origin"] for key in origins if key in settings} == {
        key: origin for key, origin in origins.items() if key in settings
    }
    assert {key for key in origins if not key.startswith("teacher.config.")} <= set(settings)
