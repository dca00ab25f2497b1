"""Points of learning curves, read back from what the trackers have written."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdcli.errors import MissingError
from kdcli.run.tracking import parse_trackers, tracking


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_nothing_is_written_where_there_are_no_points(tmp_path, notes):
    with tracking(("tensorboard",), tmp_path, "sst2", "cpu", notes):
        pass
    assert list(tmp_path.iterdir()) == []


def test_every_point_goes_to_a_file(tmp_path, notes):
    for loss in (1.0, float("nan")):
        with tracking((), tmp_path / "run", "sst2", "cpu", notes) as track:
            track.metrics("student", 1, loss=loss)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"], line["loss"]) for line in lines] == [
        ("student", 1, 1.0),
        ("student", 1, None),
    ]


class FakeRun:
    """What ``wandb.init`` gives; like a real run, it takes no step below the last one."""

    def __init__(self, **asked):
        self.asked = asked
        self.axes = {}
        self.points = []
        self.finished = False

    def define_metric(self, name, *, step_metric):
        self.axes[name] = step_metric

    def log(self, values, step=None):
        assert step is None, "steps of stages go back to 0, and those of a run must not"
        self.points.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    runs = []
    module = ModuleType("wandb")

    def init(**asked):
        runs.append(FakeRun(**asked))
        return runs[-1]

    module.init, module.__spec__ = init, ModuleSpec("wandb", None)  # libraries ask whether it is there
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_wandb_has_an_axis_for_each_stage(tmp_path, wandb, notes):
    with tracking(("wandb", "tensorboard"), tmp_path / "first", "sst2", "cpu", notes) as track:
        track.metrics("teacher", 10, **{"loss": 0.25})
        track.metrics("student", 3, **{"loss": 2.0, "f1": 0.5})
        track.metrics("student", 6, **{"loss": 1.0})
    (run,) = wandb
    assert run.asked == {"project": "sst2", "name": "first", "dir": str(tmp_path / "first")}
    assert run.axes == {"teacher/*": "teacher/step", "student/*": "student/step"}
    assert run.points == [
        {"teacher/loss": 0.25, "teacher/step": 10},
        {"student/loss": 2.0, "student/f1": 0.5, "student/step": 3},
        {"student/loss": 1.0, "student/step": 6},
    ]
    assert run.finished and notes.warnings == []
    assert (tmp_path / "first" / "tensorboard").is_dir()


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(tmp_path, wandb, notes, monkeypatch):
    def log(run, values, step=None):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(FakeRun, "log", log)
    with tracking(("wandb", "tensorboard"), tmp_path, "sst2", "cpu", notes) as track:
        track.metrics("student", 1, **{"loss": 2.0})
        track.metrics("student", 2, **{"loss": 1.0})
    assert notes.warnings == ["wandb does not track any more: ConnectionError: no network"]
    assert scalars(tmp_path / "tensorboard") == {"student/loss": [(1, 2.0), (2, 1.0)]}


def test_a_folder_named_like_a_tracker_is_not_the_library(monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingError):
        parse_trackers("wandb")
