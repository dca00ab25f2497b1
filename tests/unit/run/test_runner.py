from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from notes import Notes

from kdcli.api import QuietReporter
from kdcli.config.load import Profile
from kdcli.config.schema import Settings
from kdcli.errors import DataError, KdError, UsageError
from kdcli.files import alone, sha256
from kdcli.run import runner
from kdcli.run.folder import LAYOUT, Entry, Lock, artefact, stale
from kdcli.run.runner import (
    ALONE,
    Outcome,
    RunOptions,
    Step,
    check,
    plan,
    results,
    run_stages,
    run_steps,
    select,
    would_run,
)
from kdcli.run.stage import Files, RunContext, Stage
from kdcli.run.stages import STAGES


@dataclass(frozen=True)
class Note:
    text: str
    sizes: tuple[int, ...] = ()


class Fake(Stage):
    command = "kd fake"
    result = f"{__name__}:Note"
    runs: ClassVar[list[str]] = []

    def __init__(self, source: str, change: Callable[[str], str] = str.upper, **parameters: object) -> None:
        self.source, self.change, self.values = source, change, parameters

    def parameters(self, run: RunContext) -> dict[str, Any]:
        return dict(self.values)

    def inputs(self, run: RunContext) -> Files:
        return run.files(self.source) if self.source in LAYOUT else {self.source: run.root / f"{self.source}.txt"}

    def run(self, run: RunContext) -> Note:
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
    def __init__(self, root: Path) -> None:
        self.root, self.letters = root, root / "letters.txt"
        self.letters.write_text("abc")

    def steps(self, *stages: Stage, **parameters: object) -> list[Step]:
        both = (Upper("letters", seed=1, **parameters), Doubled("lite", lambda text: text * 2, label="teacher"))
        return plan(stages or both, RunContext(Settings(), self.root))

    def run(self, steps: Sequence[Step] | None = None, *, force: bool = False) -> list[Outcome]:
        Fake.runs.clear()
        steps, lock = steps or self.steps(), Lock(self.root, replace=force)
        check(steps, lock, force=force)
        return run_steps(steps, lock, reporter=QuietReporter(), force=force)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    monkeypatch.setitem(STAGES, "lite", Upper)
    monkeypatch.setitem(STAGES, "join", Doubled)
    return Chain(tmp_path)


def test_second_run_has_nothing_to_do_and_rebuilds_the_results(chain: Chain) -> None:
    first, second = chain.run(), chain.run()
    assert [outcome.reasons for outcome in first] == [["first run"], ["first run"]]
    assert Fake.runs == []
    expected = [Note("lite", (3,)), Note("join", (6,))]
    assert [outcome.result for outcome in first] == [outcome.result for outcome in second] == expected
    assert results(chain.root) == {"lite": expected[0], "join": expected[1]}


def test_a_plugin_file_that_breaks_while_a_stage_runs_costs_nothing(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "own.py"
    plugin.write_text("api_version = 2\ndef tag(texts): ...\n")
    version = sha256(plugin)[:8]
    monkeypatch.setenv("KD_CODE", str(plugin))

    def change(text: str) -> str:
        plugin.write_text("def tag(: half a line")
        return text

    chain.run(chain.steps(Upper("letters", change)))
    entry = Lock(tmp_path).entry("lite")
    assert entry and entry.ended and entry.versions["own.py"] == version


def test_a_changed_setting_is_named_with_both_values(chain: Chain) -> None:
    chain.run(chain.steps(**{"student.lr": 5e-4}))
    outcomes = chain.run(chain.steps(**{"student.lr": 1e-3}))
    assert outcomes[0].reasons == ["student.lr changed 0.0005 -> 0.001"]
    assert outcomes[1].reasons == []


def test_a_changed_input_runs_all_that_depends_on_it(chain: Chain) -> None:
    chain.run()
    chain.letters.write_text("abd")
    assert [outcome.reasons for outcome in chain.run()] == [["input letters changed"], ["input lite changed"]]
    assert Fake.runs == ["lite", "join"] and artefact(chain.root, "joined").read_text() == "ABDABD"


def test_a_stage_whose_output_comes_out_the_same_stops_the_wave(chain: Chain) -> None:
    chain.run()
    artefact(chain.root, "lite").unlink()
    chain.run()
    assert Fake.runs == ["lite"]


def test_dry_run_writes_nothing_and_follows_the_chain(chain: Chain) -> None:
    chain.run()
    chain.letters.write_text("xyz")
    Fake.runs.clear()
    outcomes = would_run(chain.steps(), Lock(chain.root), force=False)
    assert [outcome.reasons[0] for outcome in outcomes] == ["input letters changed", "input lite will change"]
    assert Fake.runs == []


@pytest.mark.parametrize("error", [KdError("out of luck"), KeyboardInterrupt()])
def test_a_stage_that_fails_keeps_what_it_made_before(chain: Chain, error: BaseException) -> None:
    def fail(text: str) -> str:
        raise error

    with pytest.raises(type(error)):
        chain.run(chain.steps(Upper("letters", fail)))
    assert chain.run()[0].reasons == ["it did not come to its end"]
    with pytest.raises(type(error)):
        chain.run(chain.steps(Upper("letters", fail, seed=2)))
    assert [outcome.reasons for outcome in chain.run()] == [[], []]

    def overwrite(text: str) -> str:
        artefact(chain.root, "lite").write_text("HALF")
        raise error

    with pytest.raises(type(error)):
        chain.run(chain.steps(Upper("letters", overwrite, seed=2)))
    assert chain.run()[0].reasons == ["it did not come to its end"]


@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("name", ["lite", "joined"])
def test_what_the_user_wrote_is_never_overwritten_without_force(chain: Chain, changed: bool, name: str) -> None:
    if changed:
        chain.run()
    output = artefact(chain.root, name)
    output.parent.mkdir(exist_ok=True)
    output.write_text("MINE")
    with pytest.raises(DataError) as caught:
        chain.run()
    assert caught.value.file == str(output) and "--force" in (caught.value.hint or "")
    assert Fake.runs == [] and output.read_text() == "MINE"
    chain.run(force=True)
    assert output.read_text() in ("ABC", "ABCABC")


@pytest.mark.parametrize("place", [0, 1])
def test_no_output_replaces_what_the_run_reads(chain: Chain, place: int) -> None:
    steps = chain.steps()
    name = next(iter(steps[place].outputs))
    steps[place] = replace(steps[place], alone=True, outputs={name: chain.letters})
    with pytest.raises(UsageError):
        chain.run(steps, force=True)
    assert Fake.runs == [] and chain.letters.read_text() == "abc"


def test_a_missing_input_is_an_error_before_the_work(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        chain.run(chain.steps(Upper("letters"), Doubled("reviews")))
    assert caught.value.file == str(tmp_path / "reviews.txt") and caught.value.hint is None and Fake.runs == []
    with pytest.raises(DataError) as caught:
        chain.run(chain.steps()[1:])
    assert caught.value.file == str(artefact(tmp_path, "lite"))


def test_a_missing_artefact_names_the_command_that_makes_it(tmp_path: Path) -> None:
    run = RunContext(Settings(), tmp_path)
    for name, hint in (("export", "kd transfer lite"), ("encode", "kd join"), ("prefixes", "--only cache")):
        with pytest.raises(DataError) as caught:
            check(plan([STAGES[name]()], run), Lock(tmp_path), force=False)
        assert hint in (caught.value.hint or "")


def test_outputs_elsewhere_leave_no_record(chain: Chain) -> None:
    (step, _) = chain.steps()
    step = replace(step, alone=True)
    assert chain.run([step])[0].result == Note("lite", (3,))
    assert not (chain.root / "kd.lock").exists()
    with pytest.raises(DataError, match="exists already"):
        chain.run([step])
    chain.run([step], force=True)


def test_select_takes_a_range_of_stages() -> None:
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
def test_a_damaged_lock_file_is_an_error(chain: Chain, text: str) -> None:
    (chain.root / "kd.lock").write_text(text)
    with pytest.raises(DataError) as caught:
        chain.run()
    assert caught.value.file == str(chain.root / "kd.lock")


def test_the_lock_file_of_an_older_kd_is_an_error_unless_it_is_made_again(chain: Chain) -> None:
    old = {"lite": {"parameters": {}, "inputs": {}, "outputs": {"lite": "0"}, "result": {}, "versions": {}}}
    (chain.root / "kd.lock").write_text(json.dumps(old))
    with pytest.raises(DataError, match="older kd") as caught:
        chain.run()
    assert "--run-dir" in (caught.value.hint or "") and "--force" in (caught.value.hint or "")
    chain.run(force=True)
    assert list(Lock(chain.root).entries()) == ["lite", "join"]


def test_processes_of_torchrun_leave_the_record_to_the_main_one(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(Upper, "together", True)
    assert chain.run(chain.steps()[:1])[0].result == Note("lite", (3,))
    assert not (chain.root / "kd.lock").exists(), "it makes its share, and records nothing"

    def main_process(seconds: float) -> None:
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

    def run(self, run: RunContext) -> Note:
        with run.reporter.progress("train", 2, "updates") as progress:
            progress.advance(2, loss=0.5)
        run.reporter.metrics(self.key(run), 2, loss=0.5)
        if self.values.get("fails") == run.seed:
            raise KdError("the training broke down", hint=str(run.seed))
        self.outputs(run)["student"].write_text(str(run.seed))
        return Note(self.key(run), (os.getpid(),))


@pytest.mark.parametrize("cores", [1, 2])
def test_students_are_trained_in_processes_of_their_own(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setitem(STAGES, "student", Trained)
    monkeypatch.setattr(runner, "usable_cores", lambda: cores)
    steps = plan([Trained("letters")], RunContext(Settings(), chain.root, seeds=3))
    reporter = Notes()
    outcomes = run_steps(steps, Lock(chain.root), reporter=reporter)
    assert [outcome.stage for outcome in outcomes] == ["student", "student-seed2", "student-seed3"]
    assert (os.getpid() in {pid for outcome in outcomes for pid in outcome.result.sizes}) == (cores == 1)
    assert sorted(reporter.points) == [(outcome.stage, 2, {"loss": 0.5}) for outcome in outcomes]
    again = run_steps(steps, Lock(chain.root), reporter=reporter)
    assert [outcome.result for outcome in again] == [outcome.result for outcome in outcomes]
    assert not any(outcome.reasons for outcome in again)


def test_a_student_that_fails_ends_all(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "student", Trained)
    monkeypatch.setattr(runner, "usable_cores", lambda: 2)
    steps = plan([Trained("letters", fails=2)], RunContext(Settings(), chain.root, seeds=2))
    with pytest.raises(KdError, match="broke down") as caught:
        run_steps(steps, Lock(chain.root), reporter=QuietReporter())
    assert caught.value.hint == "2"


def test_run_stages_holds_the_folder_and_writes_the_profile(chain: Chain) -> None:
    def run(**options: Any) -> list[Outcome]:
        profile = Profile("demo", Settings(seed=7, device="cpu"), {})
        options = RunOptions(run_dir=chain.root, **options)
        return run_stages(["lite", "join"], profile, options=options, reporter=QuietReporter())

    class Real(Upper):
        def __init__(self) -> None:
            super().__init__("letters")

    class Other(Doubled):
        def __init__(self) -> None:
            super().__init__("lite")

    STAGES.update({"lite": Real, "join": Other})
    assert [outcome.done for outcome in run(dry_run=True)] == [False, False]
    assert not (chain.root / "profile.toml").exists()
    assert [outcome.done for outcome in run()] == [True, True]
    assert "seed = 7" in (chain.root / "profile.toml").read_text()
    with alone(chain.root, ALONE, inside=True), pytest.raises(KdError, match="another kd"):
        run()


def test_a_task_without_a_training_set_is_an_error() -> None:
    profile = Profile("ax", Settings.model_validate({"task": {"student_of": "mnli", "metric": "pearson"}}), {})
    with pytest.raises(UsageError) as caught:
        run_stages(None, profile, reporter=QuietReporter())
    assert caught.value.key == "task.student_of" and "kd run-all --profile mnli" in (caught.value.hint or "")


def test_a_setting_that_an_older_kd_did_not_have_had_its_default() -> None:
    entry = Entry({"student.lr": 0.5}, {}, {"student": "hash"})
    assert stale(entry, {"student.lr": 0.5, "task.positive": ""}, {}, {}) == []
    assert len(stale(entry, {"student.lr": 0.5, "task.positive": "1"}, {}, {})) == 1
