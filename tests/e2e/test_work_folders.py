"""A folder beside the output, in which a command works: kd removes what it made there, and nothing else."""

import pytest
from e2e.conftest import refused


def test_a_folder_of_the_user_with_the_name_of_ours(done):
    output = done.root / "out"
    mine = done.root / ".out.run" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    refused(done.stage("student", "--output", output), 4, mine)
    assert mine.read_text() == "mine" and not output.exists()
    mine.unlink()
    assert done.stage("student", "--output", output).code == 0
    assert output.is_dir() and not mine.parent.exists()


@pytest.mark.parametrize("inside", ["", "encode", "own"])
def test_a_file_that_the_user_adds_while_a_student_is_trained(done, monkeypatch, inside):
    from kdcli.run.stages import TrainStudent

    mine = done.root / ".out.run" / inside / "notes.txt"
    train = TrainStudent.run

    def run(self, context):
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        return train(self, context)

    monkeypatch.setattr(TrainStudent, "run", run)
    assert done.stage("student", "--output", done.root / "out").code == 0
    assert [path for path in (done.root / ".out.run").rglob("*") if path.is_file()] == [mine]
