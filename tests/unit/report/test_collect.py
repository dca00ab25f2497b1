from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_run import write_run

from kdcli.errors import DataError
from kdcli.report.collect import Curve, collect, read_curves


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def test_results_are_dataclasses_again(root: Path) -> None:
    run = collect(root)
    assert run.made.keys() == {"lite", "heavy", "mix"}
    assert run.made["lite"].fabricated == 90 and run.made["lite"].examples[0]["rules"] == ["masked"]
    assert run.made["heavy"].novelty.equal_distinct_2 == pytest.approx(0.2)
    assert run.made["mix"].kept == {"lite": 90, "heavy": 40}
    assert run.results and run.results.rows[2].model == "student" and run.results.gap_closed["dev"]["accuracy"] == 0.75


def test_a_method_that_the_profile_left_is_not_shown(root: Path) -> None:
    profile = root / "profile.toml"
    profile.write_text(profile.read_text().replace("lite+heavy", "lite"))
    assert "heavy" not in collect(root).made


def test_the_environment_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_SEED", "99")
    assert collect(root).seed == 7


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_that_is_no_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        collect(tmp_path / name)
    assert caught.value.exit_code == 4 and "kd run-all" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("kd.lock", "[1"),
        ("results.json", "{}"),
        ("profile.toml", "[task"),
        ("profile.toml", '[task]\nlabels = ["one"]'),
        ("predictions.parquet", "no parquet"),
        ("join/joined.parquet", "no parquet"),
    ],
)
def test_a_damaged_file_is_named(root: Path, name: str, content: str) -> None:
    (root / name).write_text(content)
    with pytest.raises(DataError) as caught:
        collect(root)
    assert caught.value.file == str(root / name)


def written(path: Path, *points: dict[str, object]) -> Path:
    file = path / "metrics.jsonl"
    file.write_text("".join(f"{json.dumps({'time': 1.5, **point})}\n" for point in points))
    return file


def point(stage: str, step: int, **values: float | None) -> dict[str, object]:
    return {"stage": stage, "step": step, **values}


def test_a_point_replaces_those_of_its_training_that_are_not_before_it(tmp_path: Path) -> None:
    first = [point("student", step, loss=1.0) for step in (10, 20, 30)]
    again = [point("student", 30, loss=0.5), point("student", 40, loss=0.25)]
    file = written(tmp_path, *first, point("baseline", 5, loss=2.0), *again)
    assert read_curves(file, {}, {}) == [
        Curve("student", "", [10, 20, 30, 40], {"loss": [1.0, 1.0, 0.5, 0.25]}),
        Curve("baseline", "", [5], {"loss": [2.0]}),
    ]


def test_each_learning_rate_is_a_curve_and_those_of_another_grid_are_left_out(tmp_path: Path) -> None:
    points = [
        point("teacher", step, f1=peak * 1e4, lr=peak / step, peak_lr=peak)
        for peak in (2e-5, 5e-5, 1e-4)
        for step in (1, 2)
    ]
    file = written(tmp_path, *points)
    found = read_curves(file, {}, {"grid": {"5e-05": 0.5, "0.0001": 1.0}})
    assert [(curve.label, curve.values) for curve in found] == [
        ("lr 5e-05", {"f1": [0.5, 0.5], "lr": [5e-5, 2.5e-5]}),
        ("lr 0.0001", {"f1": [1.0, 1.0], "lr": [1e-4, 5e-5]}),
    ]
    assert found[0].metrics == ["f1"]
    assert [curve.label for curve in read_curves(file, {}, {"grid": {"5e-05": 0.5}})] == [""]


def test_an_earlier_run_has_the_peak_in_lr_and_a_student_falls_in_one_curve(tmp_path: Path) -> None:
    old = [point("generator", step, loss=1.0, lr=peak) for peak in (0.1, 0.2) for step in (1, 2)]
    file = written(tmp_path, *old, *(point("student", step, loss=2.0, lr=1 / step) for step in (1, 2)))
    found = read_curves(file, {}, {})
    assert [(curve.label, curve.steps) for curve in found] == [("lr 0.1", [1, 2]), ("lr 0.2", [1, 2]), ("", [1, 2])]
    assert found[2].values["lr"] == [1.0, 0.5]


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
    assert curve.values == {"loss": [None, 1.0], "f1": [0.5, None], "lr": [0.1, 0.1]}
