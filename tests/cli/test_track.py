"""``--track``: the points of ``metrics.jsonl``, in TensorBoard's own file too."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdcli.cli import run

PROFILE = """
extends = "base"
device = "cpu"
[task]
labels = ["0", "1"]
data_dir = "{data}"
[student]
dimension = 4
epochs = 2
batch_size = 4
vectors = ""
[students.bilstm]
hidden = 3
fc = 3
"""


@pytest.fixture
def made(tmp_path):
    texts = [(f"{word} {place}", label) for place in range(8) for word, label in (("good", 1), ("bad", 0))]
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in texts))
    rows = "".join(f"{text}\t{label}\t{1 - label}.5\t{label}.5\n" for text, label in texts)
    (tmp_path / "joined.tsv").write_text("sentence\tlabel\tlogits_0\tlogits_1\n" + rows)
    (tmp_path / "toy.toml").write_text(PROFILE.format(data=tmp_path))
    return tmp_path


def student(made, *more):
    where = ("--profile", made / "toy.toml", "--input", made / "joined.tsv", "--run-dir", made / "run")
    return run([str(argument) for argument in ("student", *where, *more)])


def test_tensorboard_gets_what_metrics_jsonl_gets(made, capsys):
    assert student(made, "--track", "tensorboard") == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (made / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    expected = {}
    for line in lines:
        for name in set(line) - {"time", "stage", "step"}:
            expected.setdefault(f"{line['stage']}/{name}", []).append((line["step"], pytest.approx(line[name])))
    events = EventAccumulator(str(made / "run" / "tensorboard"))
    events.Reload()
    found = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == expected and len(found["student/accuracy"]) == 2


@pytest.mark.parametrize("command", ["run-all", "student", "teacher train", "transfer heavy"])
def test_a_wrong_or_missing_tracker_is_an_error_before_any_work(command, made, capsys, monkeypatch):
    where = ["--profile", str(made / "toy.toml"), "--run-dir", str(made / "run")]
    assert run([*command.split(), *where, "--track", "tensorbord"]) == 2
    assert "(key track)\nhint: the trackers are tensorboard, wandb" in capsys.readouterr().err
    monkeypatch.setattr("kdcli.run.tracking.find_spec", lambda name: None)
    assert run([*command.split(), *where, "--track", "tensorboard"]) == 6
    assert capsys.readouterr().err.endswith("hint: pip install 'kdcli[track]'\n")
    assert not (made / "run").exists()
