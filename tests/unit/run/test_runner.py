import json
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import pytest
from raising import raising

from kdcli.api import QuietReporter
from kdcli.config.load import Profile
from kdcli.config.schema import Settings
from kdcli.errors import DataError, KdError, MissingError, UsageError
from kdcli.files import alone, sha256
from kdcli.run import LAYOUT, Entry, Lock, artefact, runner, stale
from kdcli.run.runner import ALONE, RunOptions, check, plan, results, run_stages, run_steps, select, would_run
from kdcli.run.stage import RunContext, Stage
from kdcli.run.stages import STAGES


@dataclass(frozen=True)
class Note:
    text: str
    sizes: tuple[int, ...] = ()


class Fake(Stage):
    command = "kd fake"
    result = f"{__name__}:Note"
    runs: ClassVar[list[str]] = []

    def __init__(self, source, change=str.upper, **parameters):
        self.source, self.change, self.values = source, change, parameters

    def parameters(self, run):
        return dict(self.values)

    def inputs(self, run):
        return run.files(self.source) if self.source in LAYOUT else {self.source: run.root / f"{self.source}.txt"}

    def run(self, run):
        self.runs.append(self.name)
        (source,), (output,) = self.inputs(run).values(), self.outputs(run).values()
        output.parent.mkdir(exist_ok=True)
        output.write_text(self.change(source.read_text()))
        return Note(self.name, (len(output.read_text()),))


class Upper(Fake):
    name = "lite"
    makes = ("lite",)


class Doubled(Fake):
    name = "join"
    makes = ("joined",)


class Chain:
    def __init__(self, root):
        self.root, self.letters = root, root / "letters.txt"
        self.letters.write_text("abc")

    def steps(self, *stages, **parameters):
        both = (Upper("letters", seed=1, **parameters), Doubled("lite", lambda text: text * 2, label="teacher"))
        return plan(stages or both, RunContext(Settings(), self.root))

    def run(self, steps=None, *, force=False):
        Fake.runs.clear()
        steps, lock = steps or self.steps(), Lock(self.root, replace=force)
        check(steps, lock, force=force)
        return run_steps(steps, lock, reporter=QuietReporter(), force=force)


@pytest.fixture
def chain(tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "lite", Upper)
    monkeypatch.setitem(STAGES, "join", Doubled)
    return Chain(tmp_path)


def test_second_run_has_nothing_to_do_but_what_depends_on_a_changed_input(chain):
    first, second = chain.run(), chain.run()
    assert [outcome.reasons for outcome in first] == [["first run"], ["first run"]]
    assert Fake.runs == []
    expected = [Note("lite", (3,)), Note("join", (6,))]
    assert [outcome.result for outcome in first] == [outcome.result for outcome in second] == expected
    assert results(chain.root) == {"lite": expected[0], "join": expected[1]}
    chain.letters.write_text("abd")
    assert [outcome.reasons for outcome in chain.run()] == [["input letters changed"], ["input lite changed"]]
    assert Fake.runs == ["lite", "join"] and artefact(chain.root, "joined").read_text() == "ABDABD"
    artefact(chain.root, "lite").unlink()
    chain.run()
    assert Fake.runs == ["lite"]
    chain.letters.write_text("xyz")
    Fake.runs.clear()
    outcomes = would_run(chain.steps(), Lock(chain.root), force=False)
    assert [outcome.reasons[0] for outcome in outcomes] == ["input letters changed", "input lite will change"]
    assert Fake.runs == []


def test_a_plugin_file_that_breaks_while_a_stage_runs_costs_nothing(chain, tmp_path, monkeypatch):
    plugin = tmp_path / "own.py"
    plugin.write_text("api_version = 2\ndef tag(texts): ...\n")
    version = sha256(plugin)[:8]
    monkeypatch.setenv("KD_CODE", str(plugin))

    def change(text):
        plugin.write_text("def tag(: half a line")
        return text

    chain.run(chain.steps(Upper("letters", change)))
    entry = Lock(tmp_path).entry("lite")
    assert entry and entry.ended and entry.versions["own.py"] == version


@pytest.mark.parametrize("error", [KdError("out of luck"), KeyboardInterrupt()])
def test_a_stage_that_fails_keeps_what_it_made_before(chain, error):
    def fail(text):
        raise error

    with pytest.raises(type(error)):
        chain.run(chain.steps(Upper("letters", fail)))
    assert chain.run()[0].reasons == ["it was stopped before its end"]
    with pytest.raises(type(error)):
        chain.run(chain.steps(Upper("letters", fail, seed=2)))
    assert [outcome.reasons for outcome in chain.run()] == [[], []]

    def overwrite(text):
        artefact(chain.root, "lite").write_text("HALF")
        raise error

    with pytest.raises(type(error)):
        chain.run(chain.steps(Upper("letters", overwrite, seed=2)))
    assert chain.run()[0].reasons == ["it was stopped before its end"]


@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("name", ["lite", "joined"])
def test_what_the_user_wrote_is_never_overwritten_without_force(chain, changed, name):
    if changed:
        chain.run()
    output = artefact(chain.root, name)
    output.parent.mkdir(exist_ok=True)
    output.write_text("MINE")
    with raising(DataError, file=output, hint="--force"):
        chain.run()
    assert Fake.runs == [] and output.read_text() == "MINE"
    chain.run(force=True)
    assert output.read_text() in ("ABC", "ABCABC")


@pytest.mark.parametrize("place", [0, 1])
def test_no_output_replaces_what_the_run_reads(chain, place):
    steps = chain.steps()
    name = next(iter(steps[place].outputs))
    steps[place] = replace(steps[place], alone=True, outputs={name: chain.letters})
    with pytest.raises(UsageError):
        chain.run(steps, force=True)
    assert Fake.runs == [] and chain.letters.read_text() == "abc"


def test_a_missing_input_and_the_lock_file_of_an_older_kd_are_errors_before_the_work(chain, tmp_path):
    with raising(DataError, file=tmp_path / "reviews.txt") as caught:
        chain.run(chain.steps(Upper("letters"), Doubled("reviews")))
    assert caught.value.hint is None and Fake.runs == []
    with raising(DataError, file=artefact(tmp_path, "lite")):
        chain.run(chain.steps()[1:])
    old = {"lite": {"parameters": {}, "inputs": {}, "outputs": {"lite": "0"}, "result": {}, "versions": {}}}
    (chain.root / "kd.lock").write_text(json.dumps(old))
    with raising(DataError, "older kd", hint=("--run-dir", "--force")):
        chain.run()
    chain.run(force=True)
    assert list(Lock(chain.root).entries()) == ["lite", "join"]


def test_select_takes_a_range_of_stages():
    stages = [Upper(""), Doubled("")]
    assert select(stages, None, None, None) == stages
    assert select(stages, "export", None, None) == stages[1:]
    assert select(stages, None, "teacher", None) == stages[:1]
    assert select(stages, None, None, "join") == stages[1:]
    assert select(stages, None, "transfer", None) == select(stages, None, None, "transfer") == stages[:1]
    assert select(stages, "transfer", None, None) == stages
    for wrong in (("joint", None, None), ("join", None, "join"), (None, None, "teacher")):
        with pytest.raises(UsageError):
            select(stages, *wrong)


@pytest.mark.parametrize("text", ["[1", "[]", '{"format": 2}', '{"format": 2, "stages": {"lite": {"x": 1}}}'])
def test_a_damaged_lock_file_is_an_error(chain, text):
    (chain.root / "kd.lock").write_text(text)
    with raising(DataError, file=chain.root / "kd.lock"):
        chain.run()


def test_processes_of_torchrun_leave_the_record_to_the_main_one(chain, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(Upper, "together", True)
    assert chain.run(chain.steps()[:1])[0].result == Note("lite", (3,))
    assert not (chain.root / "kd.lock").exists(), "it makes its share, and records nothing"

    def main_process(seconds):
        monkeypatch.setenv("RANK", "0")
        chain.run(force=True)
        monkeypatch.setenv("RANK", "1")

    monkeypatch.setattr(runner.time, "sleep", main_process)
    (outcome,) = run_steps(chain.steps()[1:], Lock(chain.root), reporter=QuietReporter())
    assert outcome.reasons == [] and outcome.result == Note("join", (6,))


class Trained(Fake):
    """A stage of each seed that says in which process it ran."""

    name = "student"
    makes = ("student",)
    per_seed = True

    def run(self, run):
        with run.reporter.progress("train", 2, "updates") as progress:
            progress.advance(2, loss=0.5)
        run.reporter.metrics(self.key(run), 2, loss=0.5)
        if self.values.get("fails") == run.seed:
            raise KdError("the training broke down", hint=str(run.seed))
        self.outputs(run)["student"].write_text(str(run.seed))
        return Note(self.key(run), (os.getpid(),))


@pytest.mark.parametrize("cores", [1, 2])
def test_students_are_trained_in_processes_of_their_own(chain, monkeypatch, cores, notes):
    monkeypatch.setitem(STAGES, "student", Trained)
    monkeypatch.setattr(runner, "usable_cores", lambda: cores)
    steps = plan([Trained("letters")], RunContext(Settings(), chain.root, seeds=3))
    outcomes = run_steps(steps, Lock(chain.root), reporter=notes)
    assert [outcome.stage for outcome in outcomes] == ["student", "student-seed2", "student-seed3"]
    assert (os.getpid() in {pid for outcome in outcomes for pid in outcome.result.sizes}) == (cores == 1)
    assert sorted(notes.points) == [(outcome.stage, 2, {"loss": 0.5}) for outcome in outcomes]
    again = run_steps(steps, Lock(chain.root), reporter=notes)
    assert [outcome.result for outcome in again] == [outcome.result for outcome in outcomes]
    assert not any(outcome.reasons for outcome in again)


def test_a_student_that_fails_ends_all(chain, monkeypatch):
    monkeypatch.setitem(STAGES, "student", Trained)
    monkeypatch.setattr(runner, "usable_cores", lambda: 2)
    steps = plan([Trained("letters", fails=2)], RunContext(Settings(), chain.root, seeds=2))
    with raising(KdError, "broke down", hint="2"):
        run_steps(steps, Lock(chain.root), reporter=QuietReporter())


def test_run_stages_holds_the_folder_and_writes_the_profile(chain):
    def run(**options):
        profile = Profile("demo", Settings(seed=7, device="cpu"), {})
        options = RunOptions(run_dir=chain.root, **options)
        return run_stages(["lite", "join"], profile, options=options, reporter=QuietReporter())

    STAGES.update({"lite": partial(Upper, "letters"), "join": partial(Doubled, "lite")})
    assert [outcome.done for outcome in run(dry_run=True)] == [False, False]
    assert not (chain.root / "profile.toml").exists()
    assert [outcome.done for outcome in run()] == [True, True]
    assert "seed = 7" in (chain.root / "profile.toml").read_text()
    with alone(chain.root, ALONE, inside=True), pytest.raises(KdError, match="another kd"):
        run()


def test_without_a_gpu_here_a_cluster_may_have_one(chain, monkeypatch, notes):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setitem(STAGES, "lite", partial(Upper, "letters"))
    how = {"options": RunOptions(run_dir=chain.root, dry_run=True), "reporter": notes}
    with raising(MissingError, "no cuda", key="device"):
        run_stages(["lite"], Profile("demo", Settings(device="cuda"), {}), **how)
    run_stages(["lite"], Profile("demo", Settings(device="cuda", engine="ray"), {}), **how)
    assert ["no cuda" in warning for warning in notes.warnings] == [True]


def test_a_task_without_a_training_set_is_an_error():
    profile = Profile("ax", Settings.model_validate({"task": {"student_of": "mnli", "metric": "pearson"}}), {})
    with raising(UsageError, key="task.student_of", hint="kd run-all --profile mnli"):
        run_stages(None, profile, reporter=QuietReporter())


def test_a_setting_that_an_older_kd_did_not_have_had_its_default():
    entry = Entry({"student.lr": 0.5}, {}, {"student": "hash"})
    assert stale(entry, {"student.lr": 0.5, "task.positive": ""}, {}, {}) == []
    assert len(stale(entry, {"student.lr": 0.5, "task.positive": "1"}, {}, {})) == 1
