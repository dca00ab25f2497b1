import json

import pytest
from made_student import SINGLE, TEXTS, make_student

from kdcli.cli import run

LABELS = ["no", "yes", "yes", "no", "yes", "yes", "no", "no", "yes", "no"]
PROFILE = """
extends = "base"
[task]
name = "toy"
labels = ["no", "yes"]
names = ["bad", "good"]
data_dir = "{data}"
[teacher]
model = "google-bert/bert-large-uncased"
[transfer]
method = "lite+corpus"
"""
GONE = """generator = "shuffle"
lite = {tagger = "shape"}
[student]
model = "gone"
[generators.shuffle]
share = 1
"""
"""More of a profile: plugins that are not there, though the run was made with them."""


class Command:
    """``kd`` in this process: its exit code, stdout and stderr."""

    def __init__(self, capsys):
        self.capsys = capsys

    def __call__(self, *arguments):
        code = run([str(argument) for argument in arguments])
        return code, *self.capsys.readouterr()

    def ok(self, *arguments):
        """Expect success; return stdout, or with ``--json`` the object in it."""
        code, out, err = self(*arguments)
        assert code == 0, err
        return json.loads(out) if "--json" in arguments else out

    def says(self, expected, parts, *arguments):
        """Expect this exit code, and these parts of what stderr says; return stdout."""
        code, out, err = self(*arguments)
        parts = [parts] if isinstance(parts, str) else parts
        assert (code, [part for part in parts if part not in err]) == (expected, []), err
        return out

    def failed(self, expected, *arguments):
        """Expect this exit code; return the object that ``--json`` gives."""
        code, out, err = self(*arguments, "--json")
        assert code == expected, err
        return json.loads(out)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kd(capsys):
    return Command(capsys)


@pytest.fixture
def made(tmp_path):
    """A run folder with a student and its profile, and the task's dev table."""
    make_student(tmp_path / "run" / "student", SINGLE)
    (tmp_path / "data").mkdir()
    rows = "".join(f"{text}\t{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))
    (tmp_path / "data" / "dev.tsv").write_text(f"sentence\tlabel\n{rows}", "utf-8")
    (tmp_path / "run" / "kd.lock").write_text("{}")
    (tmp_path / "run" / "profile.toml").write_text(PROFILE.format(data=tmp_path / "data"))
    return tmp_path
