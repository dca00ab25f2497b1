import json

import pytest
from filelock import FileLock
from notes import Notes
from raising import raising

from kdcli.api import QuietReporter
from kdcli.errors import DataError, KdError
from kdcli.files import MARKER
from kdcli.lm.fine_tune import one_training, publish

HALF = "run/model/config.json"


def killed(work, fingerprint):
    with pytest.raises(KeyboardInterrupt), one_training(work, fingerprint, True, QuietReporter(), "generator"):
        (work / "run/model").mkdir(parents=True)
        (work / HALF).touch()
        raise KeyboardInterrupt


def found(work, fingerprint, *, resume=True):
    """Return what the next training finds of the last one, and what it says."""
    said = Notes()
    with one_training(work, fingerprint, resume, said, "generator"):
        there = (work / HALF).exists()
    assert not work.exists(), "a training that ended well leaves nothing"
    return there, said.infos, said.warnings


def test_a_killed_training_continues_if_nothing_changed(tmp_path):
    killed(tmp_path / "work", {"lr": (1, 2), "seed": 3})
    there, said, warnings = found(tmp_path / "work", {"lr": [1, 2], "seed": 3})
    assert there and said == ["continuing the interrupted training"] and warnings == []
    assert found(tmp_path / "work", {"seed": 3}) == (False, [], [])


def test_it_starts_again_with_the_reason(tmp_path, monkeypatch):
    killed(tmp_path / "work", {"lr": 1, "seed": 3})
    there, _, warnings = found(tmp_path / "work", {"lr": 2, "seed": 3, "batch": 4})
    assert not there and warnings == [
        "lr changed (1 -> 2): starting again",
        "batch changed (None -> 4): starting again",
    ]

    killed(tmp_path / "work", {"seed": 3})
    assert found(tmp_path / "work", {"seed": 3}, resume=False) == (False, [], [])

    killed(tmp_path / "work", {"seed": 3})
    monkeypatch.setattr("torch.__version__", "0.1")
    assert found(tmp_path / "work", {"seed": 3})[2][0].startswith("torch changed")


def test_one_training_at_a_time(tmp_path):
    killed(tmp_path / "work", {})
    with (
        FileLock(tmp_path / ".work.lock"),
        pytest.raises(KdError, match="another process trains this generator already"),
        one_training(tmp_path / "work", {}, True, QuietReporter(), "generator"),
    ):
        raise AssertionError
    assert (tmp_path / "work" / HALF).exists()
    assert found(tmp_path / "work", {})[0], "the lock is free again"


def test_files_of_the_user_in_the_folder_stay(tmp_path):
    work = tmp_path / "work"
    killed(work, {"lr": 1})
    (work / "notes.txt").write_text("mine")
    for fingerprint, resume in (({"lr": 2}, True), ({"lr": 1}, False)):  # the folder would be emptied
        with (
            raising(DataError, file=work / "notes.txt"),
            one_training(work, fingerprint, resume, QuietReporter(), "teacher"),
        ):
            raise AssertionError
        assert (work / HALF).exists()
    with one_training(work, {"lr": 1}, True, QuietReporter(), "teacher"):
        assert (work / HALF).exists()
    assert [path.name for path in work.rglob("*")] == ["notes.txt"], "only what kd made is removed"


def test_a_published_model_takes_the_place_of_the_old_one(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.bin").touch()
        publish(tmp_path / name, tmp_path / "output", {"bits": 2.5, "of": name})
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"new.bin", "metrics.json", MARKER}
    assert json.loads((tmp_path / "output/metrics.json").read_text()) == {"bits": 2.5, "of": "new"}
