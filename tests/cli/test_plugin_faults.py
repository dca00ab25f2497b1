from pathlib import Path

import pytest
from cli.conftest import GONE, PROFILE
from made_student import SINGLE, make_student

from kdcli.errors import KdError


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (["export", "onnx", "--no-check", "--no-int8", "--output", "onnx"], 0, ""),
        (["export", "hub-folder", "--output", "hub"], 0, ""),
        (["bench"], 1, "measured"),
        (["predict", "--glue", "glue"], 2, "GLUE has no task 'toy'"),
        (["teacher", "export"], 4, "which is not there"),
        (["join"], 4, "which is not there"),
    ],
)
def test_a_command_needs_no_plugins_but_those_that_it_uses(kd, monkeypatch, line, code, says):
    def measure(*given):
        raise KdError("measured")

    monkeypatch.setattr("kdcli.evaluate.bench._alone", measure)
    make_student(Path("run/student"), SINGLE)
    Path("run/kd.lock").write_text("{}")
    Path("run/profile.toml").write_text(PROFILE.replace('data_dir = "{data}"\n', "") + GONE)
    what = ["--profile", "run/profile.toml"] if line[0] in ("teacher", "join") else ["--student", "run"]
    ended = kd(*line, *what)
    assert (ended[0], says in ended[2], "plugin" in ended[2]) == (code, True, False), ended[2]
