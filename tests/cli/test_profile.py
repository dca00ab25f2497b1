import pytest
import tomli

from kdcli.config import files
from kdcli.config.load import load_profile


def test_show_resolved_prints_each_value_with_its_origin(kd, monkeypatch):
    monkeypatch.setenv("KD_SEED", "7")
    out = kd.ok("profile", "show", "demo", "--resolved", "-s", "student.lr=0.25")
    lines = [line.split("  # ") for line in out.splitlines() if "  # " in line]
    origins = {line[0].strip(): line[1] for line in lines}
    assert origins["seed = 7"] == "KD_SEED"
    assert origins["student.lr = 0.25"] == "--set"
    assert origins['task.data_dir = "kd:sample"'] == "demo.toml"
    assert origins["student.rho = 0.95"] == "base.toml"
    assert origins['task.layout = "auto"'] == "default"


def test_copy_is_a_profile_of_ones_own_and_never_overwrites_unasked(kd, tmp_path):
    assert kd.ok("profile", "copy", "demo") == "demo is in demo.toml\n"
    kd.ok("profile", "copy", "demo", "sub/my.toml")
    copied = (tmp_path / "sub" / "my.toml").read_text("utf-8")
    assert "kd run-all --profile sub/my.toml" in copied and "--profile demo" not in copied
    assert tomli.loads(copied) == files.read(files.find("demo"))
    assert load_profile("sub/my.toml").settings == load_profile("demo").settings
    target = tmp_path / "my.toml"
    target.write_text("precious")
    assert kd("profile", "copy", "demo", target)[0] == 4 and target.read_text() == "precious"
    kd.ok("profile", "copy", "demo", target, "-f")
    assert load_profile(target).settings.task.name == "demo"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["dmeo"], 3, "did you mean demo?"),
        (["demo", "my.txt"], 2, "a profile's file ends in .toml"),
        (["./demo.toml"], 2, "takes the name of a profile, not a file"),
    ],
)
def test_copy_refuses(arguments, code, says, kd, tmp_path):
    kd.says(code, says, "profile", "copy", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_check_reports_every_wrong_key_at_once_and_reads_the_tables_where_they_are_there(kd, tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('extends = "base"\nsede = 1\n[student]\nkd_los = "kl"\n[students.bilstm]\nhiden = 3\n')
    lines = kd("profile", "check", path)[2].splitlines()
    assert len(lines) == 6 and all(f"(file {path}, key " in line for line in lines[::2])
    errors = kd.failed(3, "profile", "check", path)["error"]["errors"]
    assert [error["hint"] for error in errors] == [
        f"did you mean {key}?" for key in ("student.kd_loss", "seed", "students.bilstm.hidden")
    ]
    data = f"task.data_dir={tmp_path / 'data'}"
    arguments = ["profile", "check", "custom", "--set", 'task.labels=["0", "1"]', "--set", data, "--json"]
    assert kd.ok(*arguments)["data"] is None
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "data" / f"{split}.tsv").write_text("sentence\tlabel\ngood\t1\nbad\t0\n")
    assert kd.ok(*arguments)["data"] == str(tmp_path / "data")
    (tmp_path / "data" / "train.tsv").write_text("sentence\tlabel\ngood\t1\n \t0\n")
    assert kd.failed(4, *arguments)["error"]["file"] == str(tmp_path / "data" / "train.tsv")


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


def test_docs_explain_every_setting_and_are_a_profile_of_the_same(kd, tmp_path, make_plugin):
    make_plugin("kd-own", "[kdcli.generators]\nown = kd_own\n", PLUGIN, module="kd_own", version="0.3")
    sets = ["-s", "student.lr=0.25", "-s", "generators.own.name=x"]
    out = kd.ok("profile", "show", "demo", "--docs", *sets)
    for block in (
        "# Passes over the joined set.\n# whole number >= 1; default: 30; from demo.toml\nstudent.epochs = ",
        'default: "auto"; from --set\nstudent.lr = 0.25\n',
        "# Words that the next one depends on.\n# whole number >= 2; default: 3\ngenerators.own.order = 3\n",
        '\n# text; required; from --set\ngenerators.own.name = "x"\n',
        "# How deep.\n# number > 0, < 1; default: 0.5\ngenerators.own.inner.depth = 0.5\n",
        "# a | b | unset; default: unset\n# generators.own.kind =\n",
    ):
        assert block in out
    wanted = kd.ok("profile", "show", "demo", "--resolved", *sets, "--json")["settings"]
    (tmp_path / "copy.toml").write_text(out)
    assert kd.ok("profile", "show", tmp_path / "copy.toml", "--resolved", "--json")["settings"] == wanted


@pytest.mark.parametrize("name", files.names())
def test_docs_of_every_shipped_profile_explain_every_key(name, kd):
    shown = kd.ok("profile", "show", name, "--docs", "--json")["settings"]
    settings = {setting["key"]: setting for setting in shown}
    assert all(setting["about"] and setting["type"] != "anything" for setting in settings.values())
    origins = kd.ok("profile", "show", name, "--resolved", "--json")["origins"]
    assert {key: settings[key]["origin"] for key in origins if key in settings} == {
        key: origin for key, origin in origins.items() if key in settings
    }
    assert {key for key in origins if not key.startswith("teacher.config.")} <= set(settings)
