import importlib
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from raising import raising
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdcli.config.schema import Settings
from kdcli.errors import DataError, MissingError, ProfileError
from kdcli.run import Lock, own_teacher, profile_of, student_folder, teacher_of
from kdcli.run.runner import check, plan
from kdcli.run.stage import RunContext
from kdcli.run.stages import STAGES, TRANSFER
from kdcli.run.tracking import parse_trackers, tracking

HEAVY = ["cache", "fine-tune", "prefixes", "sample"]
REST = ["teacher", "export", "join", "encode", "student", "baseline", "results"]
ALL = {"method": "lite+heavy+corpus"}


@pytest.fixture
def steps(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\nfine\t1\nbad\t0\n")

    def make(seeds=1, **changes):
        transfer = {"corpus": {"files": [str(tmp_path / "more.txt")]}} | changes.pop("transfer", {})
        task = {"labels": ["0", "1"], "data_dir": str(tmp_path)} | changes.pop("task", {})
        settings = Settings.model_validate({"task": task, "transfer": transfer, **changes})
        stages = [stage() for stage in STAGES.values()]
        run = RunContext(settings, tmp_path / "run", seeds=seeds)
        return plan([stage for stage in stages if stage.applies(settings)], run)

    return make


def of(steps, name):
    return next(step for step in steps if step.stage.name == name)


def names(steps):
    return [step.stage.name for step in steps]


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        ({}, ["lite"]),
        ({"method": "heavy"}, HEAVY),
        ({"method": "corpus"}, ["corpus"]),
        ({"method": "heavy+lite"}, ["lite", *HEAVY, "mix"]),
        ({"method": "lite+corpus"}, ["lite", "corpus", "mix"]),
        ({"method": "corpus+heavy+lite"}, ["lite", *HEAVY, "corpus", "mix"]),
    ],
)
def test_the_stages_of_each_method(steps, transfer, expected):
    assert names(steps(transfer=transfer)) == [*expected, *REST]
    assert set(expected) <= set(TRANSFER)


def test_a_teacher_that_is_fine_tuned_already(steps):
    found = steps(teacher={"train": False, "model": "some/body"})
    assert "teacher" not in names(found)
    assert of(found, "export").parameters["teacher.model"] == "some/body"
    assert "teacher.model" not in of(steps(), "export").parameters


@pytest.mark.parametrize("method", ["corpus", "lite+corpus", "heavy+corpus"])
def test_a_corpus_that_the_generator_orders_needs_it(steps, tmp_path, method):
    found = steps(transfer={"method": method, "corpus": {"files": ["more.txt"], "order_by": "lm"}})
    assert names(found).count("fine-tune") == names(found).count("cache") == 1
    assert of(found, "corpus").inputs["generator"] == tmp_path / "run" / "transfer" / "generator"
    assert "generators.gpt2.max_length" in of(found, "corpus").parameters
    plain = of(steps(transfer={"method": method}), "corpus")
    assert "generator" not in plain.inputs and "generators.gpt2.max_length" not in plain.parameters


def test_each_stage_is_made_of_what_the_ones_before_it_make(steps, tmp_path):
    made = {tmp_path / name for name in ("train.tsv", "dev.tsv", "test.tsv", "more.txt")}
    for step in steps(seeds=2, transfer=ALL):
        assert set(step.inputs.values()) <= made, step.key
        assert not set(step.outputs.values()) & made, "no two stages write to one place"
        made |= set(step.outputs.values())
        path, _, name = step.stage.result.partition(":")
        assert getattr(importlib.import_module(path), name).__dataclass_fields__


def test_further_seeds_have_keys_and_folders_of_their_own(steps, tmp_path):
    found = [step for step in steps(seeds=2, seed=4) if step.stage.per_seed]
    assert [step.key for step in found] == ["student", "student-seed5", "baseline", "baseline-seed5"]
    assert [step.parameters["seed"] for step in found] == [4, 5, 4, 5]
    assert found[3].outputs["baseline"] == tmp_path / "run" / "baseline-seed5"
    assert found[3].inputs["student"] == tmp_path / "run" / "student-seed5"


def test_a_calibration_is_the_students_own(steps, tmp_path):
    asked = {"deferral": {"calibrate": True}}
    assert names(steps(**asked)) == ["lite", *REST, "calibrate"]
    assert changed(steps, asked, {"deferral": {"calibrate": True, "agree": 0.9}}) == ["calibrate"]
    of_second = [step for step in steps(seeds=2, seed=4, **asked) if step.key == "calibrate-seed5"]
    assert of_second[0].outputs == {"calibration": tmp_path / "run" / "student-seed5" / "calibration.json"}
    scores = {"task": {"labels": [], "metric": "pearson"}}
    assert "calibrate" not in names(steps(**scores, **asked))  # what agrees is not said
    assert "calibrate" in names(steps(**scores, deferral={"calibrate": True, "tolerance": 0.5}))
    (tmp_path / "test.tsv").unlink()
    assert "calibrate" not in names(steps(**asked))


def test_with_one_method_its_table_is_the_transfer_set(steps, tmp_path):
    folder = tmp_path / "run" / "transfer"
    assert of(steps(), "export").inputs["transfer"] == folder / "lite.parquet"
    found = steps(transfer={"method": "lite+corpus"})
    assert of(found, "export").inputs["transfer"] == of(found, "mix").outputs["transfer"] == folder / "transfer.parquet"


def sampling(**heavy):
    return {"transfer": {"method": "heavy", "heavy": heavy}}


def changed(steps, before, after):
    """Return the stages that a change of the settings touches themselves, not by their inputs."""
    pairs = zip(steps(**before), steps(**after), strict=True)
    return [a.stage.name for a, b in pairs if (a.parameters, a.inputs) != (b.parameters, b.inputs)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"task": {"name": "other"}}, []),
        ({"task": {"bad_rows": "skip"}}, []),
        ({"task": {"metric": "f1"}}, ["teacher", "student", "baseline", "results"]),
        ({"task": {"more_metrics": ["f1"]}}, ["results"]),
        ({"task": {"label_column": "y"}}, ["lite", "teacher", "student", "baseline", "results"]),
        ({"precision": "bf16"}, ["teacher", "export", "results"]),
        ({"teacher": {"lr": 1e-5}}, ["teacher"]),
        ({"teacher": {"max_length": 64}}, ["teacher", "export", "results"]),
        ({"teacher": {"save_steps": 9}}, []),
        ({"teacher": {"export": {"batch_size": 9}}}, []),
        ({"teacher": {"export": {"precision": "bf16"}}}, ["export"]),
        ({"join": {"label": "gold"}}, ["join"]),
        ({"student": {"min_freq": 2}}, ["encode"]),
        ({"student": {"max_length": 9}}, ["encode", "student", "baseline"]),
        ({"student": {"kd_loss": "kl"}}, ["student"]),
        ({"student": {"lr": 0.5}}, ["student", "baseline"]),
        ({"students": {"bilstm": {"hidden": 9}}}, ["student", "baseline"]),
        ({"seed": 2}, ["lite", "teacher", "encode", "student", "baseline", "results"]),
        ({"transfer": {"lite": {"n_iter": 2}}}, ["lite"]),
        ({"transfer": {"lite": {"workers": 2}}}, []),
        ({"transfer": {"heavy": {"top_k": 2}}}, []),
        *((sampling(**one), ["sample"]) for one in ({"top_k": 5}, {"top_p": 0.9}, {"temperature": 0.5})),
        *((sampling(**one), ["sample"]) for one in ({"num_samples": 5}, {"keep_copies": True})),
        (sampling(batch_size=5), []),
        (sampling(labels=["1"]), ["cache"]),
        # Samples are no longer than this even where the training comes out the same.
        *((sampling() | {"generators": {"gpt2": one}}, HEAVY[1:]) for one in ({"lr": 0.5}, {"max_length": 64})),
        (sampling() | {"generators": {"gpt2": {"save_steps": 7}}}, []),
    ],
)
def test_what_a_setting_touches(steps, change, expected):
    before = sampling() if "method" in change.get("transfer", {}) else {}
    assert changed(steps, before, change) == expected


def test_models_tokenizers_and_plugin_files_on_this_machine_are_inputs(steps, tmp_path, monkeypatch):
    (tmp_path / "lm").mkdir()
    (tmp_path / "bpe").mkdir()
    options = {"model": str(tmp_path / "lm"), "tokenizer": str(tmp_path / "bpe"), "from_scratch": True}
    step = of(steps(transfer={"method": "heavy"}, generators={"gpt2": options}), "fine-tune")
    assert step.inputs["model"] == tmp_path / "lm" and step.inputs["tokenizer"] == tmp_path / "bpe"
    assert set(of(steps(transfer={"method": "heavy"}), "fine-tune").inputs) == {"cache"}
    (tmp_path / "mine.py").write_text("api_version = 2\ndef tag(texts): ...\n")
    monkeypatch.setenv("KD_CODE", str(tmp_path / "mine.py"))
    step = of(steps(transfer={"lite": {"tagger": "mine"}}), "lite")
    assert tmp_path / "mine.py" in step.inputs.values()


def test_options_that_are_paths_are_recorded_as_text(steps, tmp_path, make_plugin):
    code = """
from pathlib import Path
from pydantic import BaseModel
api_version = 2
class Options(BaseModel, extra="forbid"):
    model: Path
def fine_tune(): ...
load = fine_tune
"""
    make_plugin("kd-own", "[kdcli.generators]\nown = kd_own\n", code, module="kd_own")
    transfer = {"method": "heavy", "generator": "own"}
    step = of(steps(transfer=transfer, generators={"own": {"model": str(tmp_path)}}), "fine-tune")
    assert json.loads(json.dumps(step.parameters))["generators.own.model"] == str(tmp_path)
    assert step.inputs["model"] == tmp_path


def test_a_corpus_without_files_and_a_transfer_set_of_another_method_are_errors_before_any_work(steps, tmp_path):
    with raising(ProfileError, key="transfer.corpus.files", hint="--input"):
        steps(transfer={"method": "lite+corpus", "corpus": {"files": []}})
    folder = tmp_path / "run" / "transfer"
    folder.mkdir(parents=True)
    (folder / "heavy.parquet").write_bytes(b"")
    export = of(steps(teacher={"train": False, "model": "some/body"}), "export")
    with raising(DataError, file=folder / "lite.parquet", hint="transfer.method=heavy"):
        check([export], Lock(tmp_path / "run"), force=False)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "student").mkdir(parents=True)
    (folder / "kd.lock").write_text("{}")
    (folder / "profile.toml").write_text('extends = "demo"\n')
    return folder


def test_a_run_stands_for_its_student_and_has_its_profile(run, monkeypatch):
    monkeypatch.chdir(run)
    assert [profile_of(place) for place in (run, run / "student", Path("student"))] == [run / "profile.toml"] * 3
    assert profile_of(run.parent) is None
    (run / "profile.toml").unlink()
    assert profile_of(Path("student")) is None
    assert student_folder(run) == student_folder(run / "student") == run / "student"
    assert student_folder(run.parent / "elsewhere") == run.parent / "elsewhere"
    (run / "student").rmdir()
    with pytest.raises(DataError, match="no student yet"):
        student_folder(run)


def test_the_teacher_of_a_run(run):
    assert own_teacher(run) is None, "it was to be trained, and has not been"
    with pytest.raises(DataError, match="no teacher yet"):
        teacher_of(str(run))
    (run / "profile.toml").write_text('extends = "demo"\n[teacher]\ntrain = false\nmodel = "some/body"\n')
    assert own_teacher(run) == teacher_of(str(run)) == "some/body"
    (run / "teacher").mkdir()
    assert own_teacher(run) == teacher_of(str(run)) == str(run / "teacher")
    assert own_teacher(run / "student") is None, "a student's folder stands for itself alone"
    assert teacher_of("bert-large-uncased") == "bert-large-uncased"


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_point_goes_to_a_file_and_a_tracker_that_fails_is_left_out(tmp_path, notes, wandb, monkeypatch):
    with tracking(("tensorboard",), tmp_path, "sst2", "cpu", notes):
        pass
    assert list(tmp_path.iterdir()) == []
    for loss in (1.0, float("nan")):
        with tracking((), tmp_path / "run", "sst2", "cpu", notes) as track:
            track.metrics("student", 1, loss=loss)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = [(line["stage"], line["step"], line["loss"]) for line in lines]
    assert found == [("student", 1, 1.0), ("student", 1, None)]

    def log(run, values, step=None):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(FakeRun, "log", log)
    with tracking(("wandb", "tensorboard"), tmp_path, "sst2", "cpu", notes) as track:
        track.metrics("student", 1, loss=2.0)
        track.metrics("student", 2, loss=1.0)
    assert notes.warnings == ["wandb does not track any more: ConnectionError: no network"]
    assert scalars(tmp_path / "tensorboard") == {"student/loss": [(1, 2.0), (2, 1.0)]}


class FakeRun:
    """What ``wandb.init`` gives; like a real run, it takes no step below the last one."""

    def __init__(self, **asked):
        self.asked, self.axes, self.points, self.finished = asked, {}, [], False

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
        track.metrics("teacher", 10, loss=0.25)
        track.metrics("student", 3, loss=2.0, f1=0.5)
        track.metrics("student", 6, loss=1.0)
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


def test_a_folder_named_like_a_tracker_is_not_the_library(monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingError):
        parse_trackers("wandb")
