from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_run import entry, write_run

from kdcli.errors import DataError
from kdcli.report.collect import collect


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def test_a_whole_run(root: Path) -> None:
    run = collect(root)
    assert (run.name, run.seed, run.task.labels) == ("run", 7, ("no", "yes"))
    assert run.settings["transfer.method"] == "lite+heavy"
    assert {stage.state for stage in run.stages.values()} == {"done"}
    assert run.results and run.curves and run.transfer and run.predictions
    assert run.versions["torch"] == {"2.13.0": list(run.stages)}


def test_a_half_done_run(tmp_path: Path) -> None:
    run = collect(write_run(tmp_path / "half", half=True))
    assert run.transfer is not None and not run.transfer.labelled
    assert run.results is None and run.predictions == [] and run.curves == []


def test_a_run_that_has_only_begun(root: Path) -> None:
    for path in [path for path in root.rglob("*") if path.is_file() and path.name != "profile.toml"]:
        path.unlink()
    run = collect(root)
    assert (run.stages, run.transfer, run.versions) == ({}, None, {})


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
        ("kd.lock", "[1]"),
        ("kd.lock", '{"lite": {}}'),
        ("results.json", "{}"),
        ("results.json", "[]"),
        ("profile.toml", "[task"),
        ("profile.toml", '[task]\nlabels = ["one"]'),
        ("predictions.parquet", "no parquet"),
        ("join/joined.tsv", "sentence\tsource\nno label\n"),
    ],
)
def test_a_damaged_file_is_named(root: Path, name: str, content: str) -> None:
    (root / name).write_text(content)
    if name.startswith("join"):
        (root / name).write_text("text\nno columns\n")
    with pytest.raises(DataError) as caught:
        collect(root)
    assert caught.value.file == str(root / name)


def test_a_stage_that_is_older_than_what_it_was_made_from(root: Path) -> None:
    entries = {
        "teacher": entry("teacher"),
        "export": entry("export", {"transfer": "t", "teacher": "another-hash"}),
        "student": entry("student"),
        "student-seed8": entry("student-seed8"),
        "baseline": entry("baseline", {"student": "student-hash"}),
        "baseline-seed8": entry("baseline-seed8", {"student": "student-seed8-hash", "dev.tsv": "user's own"}),
        "results": entry("results", {"student-seed8": "student-seed8-hash", "baseline": "gone-hash"}),
        "encode": entry("encode", ended=False),
    }
    (root / "kd.lock").write_text(json.dumps(entries))
    assert {key: stage.state for key, stage in collect(root, texts=False).stages.items()} == {
        "teacher": "done",
        "export": "older than teacher",
        "student": "done",
        "student-seed8": "done",
        "baseline": "done",
        "baseline-seed8": "done",
        "results": "older than baseline",
        "encode": "not ended",
    }
