import json
from pathlib import Path

import pytest
from made_student import SINGLE, make_student

from kdcli.errors import KdError

GENERATOR = """
import sys
from pydantic import BaseModel

api_version = 2

class Options(BaseModel, extra="forbid"): ...

def fine_tune(corpus, checkpoint, settings, reporter):
    checkpoint.mkdir()
    return {}

def load(checkpoint, settings, reporter):
    return Sampler()

class Sampler:
    def prefixes(self, corpus):
        return {}

    def sample(self, prefixes, part):
        sys.exit(3)
"""


RUN = """
extends = "base"
[task]
name = "toy"
labels = ["no", "yes"]
[transfer]
generator = "shuffle"
lite = {tagger = "shape"}
[student]
model = "gone"
[generators.shuffle]
share = 1
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


BITS = """        from kdcli.api import Samples

        return Samples([f"text number {draw}" for draw in range(part.first, part.first + part.count)], {})

    def bits(self, texts):
        return texts[0].bits
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", "failed in sample: SystemExit: 3 (file {file}, row 21)"),
        ("    checkpoint.mkdir()", "    sys.exit()", "failed in fine_tune: SystemExit"),
        ("        sys.exit(3)\n", BITS, "failed in bits: AttributeError: 'str' object has no attribute 'bits' (file"),
    ],
)
def test_a_generator_that_fails_or_leaves_is_an_error(kd, old, new, says):
    Path("bad.py").write_text(GENERATOR.replace(old, new) if old else GENERATOR)
    code, _, err = kd("transfer", "heavy", "--code", "bad.py", "--generator", "bad", "--num-samples", 5, "-q")
    assert (code, says.format(file=Path("bad.py").resolve()) in err) == (5, True), err


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (["export", "onnx", "--no-check", "--no-int8", "--output", "onnx"], 0, ""),
        (["export", "hub-folder", "--output", "hub"], 0, ""),
        (["bench"], 1, "measured"),
        (["predict", "--glue", "glue"], 2, "GLUE has no task 'toy'"),
        (["teacher", "export"], 4, "needs transfer"),
        (["join"], 4, "needs transfer"),
    ],
)
def test_a_command_needs_no_plugins_but_those_that_it_uses(kd, monkeypatch, line, code, says):
    def measure(*given):
        raise KdError("measured")

    monkeypatch.setattr("kdcli.evaluate.bench._alone", measure)
    make_student(Path("run/student"), SINGLE)
    Path("run/kd.lock").write_text("{}")
    Path("run/profile.toml").write_text(RUN)
    what = ["--profile", "run/profile.toml"] if line[0] in ("teacher", "join") else ["--student", "run"]
    ended = kd(*line, *what)
    assert (ended[0], says in ended[2], "plugin" in ended[2]) == (code, True, False), ended[2]


def test_a_student_whose_file_has_changed_is_one_warning(kd, monkeypatch):
    Path("mine.py").write_text(
        "from kd_bilstm import *\nfrom kd_bilstm import api_version, pairs, scores, build, fast\n"
    )
    make_student(Path("student"), SINGLE)
    config = json.loads(Path("student/config.json").read_text())
    other = {"plugin": "mine", "plugin_version": {"mine.py": "12345678"}}
    Path("student/config.json").write_text(json.dumps(config | other))
    Path("texts.txt").write_text("a film\n")
    code, _, err = kd("predict", "--code", "mine.py", "--student", "student", "--input", "texts.txt")
    assert (code, err.count("warning: "), "mine.py has changed since the student in student was" in err) == (0, 1, True)
    monkeypatch.delenv("KD_CODE")
    code, _, err = kd("predict", "--student", "student", "--input", "texts.txt")
    assert (code, "--code mine.py" in err) == (5, True)
