from pathlib import Path

import pytest

from kdcli.errors import DataError
from kdcli.run.folder import own_teacher, profile_of, student_folder, teacher_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "student").mkdir(parents=True)
    (folder / "kd.lock").write_text("{}")
    (folder / "profile.toml").write_text('extends = "demo"\n')
    return folder


def test_a_run_stands_for_its_student(run: Path) -> None:
    assert student_folder(run) == run / "student"
    assert student_folder(run / "student") == run / "student"
    assert student_folder(run.parent / "elsewhere") == run.parent / "elsewhere"
    (run / "student").rmdir()
    with pytest.raises(DataError, match="no student yet"):
        student_folder(run)


def test_the_profile_is_that_of_the_run_around(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert profile_of(run) == profile_of(run / "student") == run / "profile.toml"
    assert profile_of(run.parent) is None
    monkeypatch.chdir(run)
    assert profile_of(Path("student")) == run / "profile.toml"
    (run / "profile.toml").unlink()
    assert profile_of(Path("student")) is None


def test_the_teacher_of_a_run(run: Path) -> None:
    assert own_teacher(run) is None, "it was to be trained, and has not been"
    with pytest.raises(DataError, match="no teacher yet"):
        teacher_of(str(run))
    (run / "profile.toml").write_text('extends = "demo"\n[teacher]\ntrain = false\nmodel = "some/body"\n')
    assert own_teacher(run) == teacher_of(str(run)) == "some/body"
    (run / "teacher").mkdir()
    assert own_teacher(run) == teacher_of(str(run)) == str(run / "teacher")
    assert own_teacher(run / "student") is None, "a student's folder stands for itself alone"
    assert teacher_of("bert-large-uncased") == "bert-large-uncased"
