import pytest
from e2e.conftest import refused, succeeded


def lite(tiny, *arguments):
    return tiny.stage("transfer", "lite", *arguments)


def heavy(tiny, *arguments):
    return tiny.stage("transfer", "heavy", *arguments)


def test_a_text_of_100_000_words_and_an_empty_one(tiny):
    tiny.write("train", [*map(tuple, tiny.rows("train")), ("word " * 100_000, 1), ("", 0)])
    succeeded(tiny.stage("run-all", "--until", "student"))
    succeeded(heavy(tiny, "--only", "cache"))
    ended = heavy(tiny, "--only", "fine-tune", "--max-steps", 2)
    assert ended.code == 0 and "longer than 32 tokens" in ended.err


def test_damaged_prefixes_cache_and_checkpoint(heavy_done):
    transfer = heavy_done.run_dir / "transfer"
    prefixes = transfer / "prefixes.json"
    prefixes.write_text(prefixes.read_text()[:-9])
    refused(heavy(heavy_done), 4, "prefixes.json", "changed since")
    refused(heavy(heavy_done, "--only", "sample"), 4, "prefixes.json", "--only prefixes --force")
    assert heavy(heavy_done, "--only", "prefixes", "--force").code == 0
    (transfer / "cache.parquet").write_bytes(b"x" * 100)
    refused(heavy(heavy_done, "--only", "fine-tune"), 4, "cache", "--only cache --force")
    assert heavy(heavy_done, "--only", "cache", "--force").code == 0
    (transfer / "generator" / "model.safetensors").write_bytes(b"x" * 100)
    refused(heavy(heavy_done), 4, "generator", "changed since")
    refused(heavy(heavy_done, "--only", "sample", "--top-k", 2), 4, "generator")


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
