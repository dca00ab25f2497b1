from __future__ import annotations

import json
from pathlib import Path

from kdcli.report.curves import Curve, read_curves


def written(path: Path, *points: dict[str, object]) -> Path:
    file = path / "metrics.jsonl"
    file.write_text("".join(f"{json.dumps({'time': 1.5, **point})}\n" for point in points))
    return file


def point(stage: str, step: int, **values: float | None) -> dict[str, object]:
    return {"stage": stage, "step": step, **values}


def test_no_file_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "metrics.jsonl", {}, {}) == []


def test_a_point_replaces_those_of_its_training_that_are_not_before_it(tmp_path: Path) -> None:
    first = [point("student", step, loss=1.0) for step in (10, 20, 30)]
    again = [point("student", 30, loss=0.5), point("student", 40, loss=0.25)]
    file = written(tmp_path, *first, point("baseline", 5, loss=2.0), *again)
    assert read_curves(file, {}, {}) == [
        Curve("student", "", [10, 20, 30, 40], {"loss": [1.0, 1.0, 0.5, 0.25]}),
        Curve("baseline", "", [5], {"loss": [2.0]}),
    ]


def test_each_learning_rate_is_a_curve_and_those_of_another_grid_are_left_out(tmp_path: Path) -> None:
    file = written(tmp_path, *(point("teacher", 10, f1=lr * 1e4, lr=lr) for lr in (2e-5, 5e-5, 1e-4)))
    found = read_curves(file, {}, {"grid": {"5e-05": 0.5, "0.0001": 1.0}})
    assert [(curve.label, curve.values) for curve in found] == [
        ("lr 5e-05", {"f1": [0.5]}),
        ("lr 0.0001", {"f1": [1.0]}),
    ]
    assert [curve.label for curve in read_curves(file, {}, {"grid": {"5e-05": 0.5}})] == [""]


def test_a_student_that_has_ended_knows_its_curve_better(tmp_path: Path) -> None:
    file = written(tmp_path, point("student", 99, loss=9.0), point("student-seed2", 7, loss=3.0))
    history = [{"update": 10, "epoch": 1.0, "loss": 1.0, "accuracy": 0.5}]
    first, second = read_curves(file, {"student": history}, {})
    assert first == Curve("student", "first seed", [10], {"loss": [1.0], "accuracy": [0.5]})
    assert first.metrics == ["accuracy"]
    assert second == Curve("student", "seed 2", [7], {"loss": [3.0]})


def test_a_line_that_was_cut_off_and_a_value_that_was_no_number(tmp_path: Path) -> None:
    file = written(tmp_path, point("teacher", 1, loss=None, f1=0.5, lr=0.1), point("teacher", 2, loss=1.0, lr=0.1))
    file.write_text(file.read_text() + '{"stage": "teacher", "st')
    (curve,) = read_curves(file, {}, {})
    assert curve.values == {"loss": [None, 1.0], "f1": [0.5, None]}
