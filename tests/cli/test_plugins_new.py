import json

import pytest

from kdcli.cli import run


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_new_names_the_files_and_the_next_commands(capsys, tmp_path):
    assert run(["plugins", "new", "generator", "own"]) == 0
    out = capsys.readouterr().out
    assert "the generator own in kd-own" in out and "kd_own/__init__.py" in out
    assert "pip install -e kd-own\n  kd plugins check own\n  python -m pytest kd-own\n" in out
    assert (tmp_path / "kd-own" / "pyproject.toml").exists()


def test_new_as_json_and_elsewhere(capsys, tmp_path):
    assert run(["plugins", "new", "tagger", "own", "--output", "a place/own", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["kind"], result["name"], result["distribution"]) == ("tagger", "own", "kd-own")
    assert (result["package"], result["folder"]) == ("kd_own", "a place/own")
    assert all((tmp_path / result["folder"] / file).is_file() for file in result["files"])
    assert result["next"][0] == "pip install -e 'a place/own'"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["generator", "Own"], 2, "error: 'Own' cannot name a plugin (key NAME)\nhint: take lower-case"),
        (["generator", "there"], 4, "(file kd-there)\nhint: --force "),
        (["generator", "gpt2"], 5, "error: a generator is named gpt2 already: kdcli:gpt2 (key NAME)\nhint: take"),
        (["loss", "own"], 2, "'loss' is not one of 'generator', 'student', 'tagger', 'teacher'"),
        (["studnet", "own"], 2, "hint: did you mean student?"),
    ],
)
def test_errors(capsys, tmp_path, arguments, code, says):
    (tmp_path / "kd-there").mkdir()
    assert run(["plugins", "new", *arguments]) == code
    assert says in capsys.readouterr().err


def test_the_check_of_a_new_teacher_names_its_model(capsys, tmp_path):
    assert run(["plugins", "new", "teacher", "own", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["next"][1] == "kd plugins check own --model textblob"
