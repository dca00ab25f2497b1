from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest

from kdcli.api import QuietReporter
from kdcli.errors import DataError, KdError, UsageError
from kdcli.files import sha256
from kdcli.parts.parts import Shard
from kdcli.run.lock import Lock
from kdcli.run.run_dir import of_seed, one_launch
from kdcli.run.runner import Outcome, run_alone, run_stages, select
from kdcli.run.stages import Stage


@dataclass(frozen=True)
class Said:
    text: str


class Chain:
    """Two stages, letters -> upper -> doubled, that count their runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs: list[str] = []
        self.letters = root / "letters.txt"
        self.letters.write_text("abc")

    def stages(self, **parameters: object) -> list[Stage]:
        upper, doubled = self.root / "upper.txt", self.root / "doubled.txt"

        def make_upper(reporter: object) -> Said:
            self.runs.append("lite")
            upper.write_text(self.letters.read_text().upper())
            return Said("up")

        def make_doubled(reporter: object) -> Said:
            self.runs.append("join")
            doubled.write_text(upper.read_text() * 2)
            return Said("twice")

        return [
            Stage("lite", "lite", {"seed": 1, **parameters}, {"letters": self.letters}, {"upper": upper}, make_upper),
            Stage("join", "join", {"join.label": "teacher"}, {"upper": upper}, {"doubled": doubled}, make_doubled),
        ]

    def run(self, stages: list[Stage] | None = None, **options: bool) -> list[Outcome]:
        self.runs.clear()
        return run_stages(stages or self.stages(), self.root, reporter=QuietReporter(), **options)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_second_run_has_nothing_to_do_and_remembers_the_results(chain: Chain) -> None:
    first = chain.run()
    second = chain.run()
    assert [outcome.reasons for outcome in first] == [["it has not run yet"], ["it has not run yet"]]
    assert chain.runs == []
    assert [outcome.result for outcome in second] == [{"text": "up"}, {"text": "twice"}]


def test_a_plugin_file_that_breaks_while_a_stage_runs_costs_nothing(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "own.py"
    plugin.write_text("api_version = 2\ndef tag(texts): ...\n")
    version = sha256(plugin)[:8]
    monkeypatch.setenv("KD_CODE", str(plugin))
    first = chain.stages()[0]

    def run(reporter: object) -> object:
        plugin.write_text("def tag(: half a line")
        return first.run(reporter)

    chain.run([replace(first, run=run)])
    entry = Lock(tmp_path).entry("lite")
    assert entry and entry.result == {"text": "up"} and entry.versions["own.py"] == version


def test_a_changed_setting_is_named_with_both_values(chain: Chain) -> None:
    chain.run(chain.stages(**{"student.lr": 5e-4}))
    outcomes = chain.run(chain.stages(**{"student.lr": 1e-3}))
    assert outcomes[0].reasons == ["student.lr changed 0.0005 -> 0.001"]
    assert outcomes[1].reasons == []


def test_a_changed_input_runs_all_that_hangs_on_it(chain: Chain) -> None:
    chain.run()
    chain.letters.write_text("abd")
    outcomes = chain.run()
    assert chain.runs == ["lite", "join"]
    assert outcomes[0].reasons == ["input letters changed"]
    assert outcomes[1].reasons == ["input upper changed"]
    assert (chain.root / "doubled.txt").read_text() == "ABDABD"


def test_a_stage_whose_output_comes_out_the_same_stops_the_wave(chain: Chain) -> None:
    chain.run()
    (chain.root / "upper.txt").unlink()
    chain.run()
    assert chain.runs == ["lite"]


def test_dry_run_writes_nothing_and_follows_the_chain(chain: Chain) -> None:
    chain.run()
    chain.letters.write_text("xyz")
    outcomes = chain.run(dry_run=True)
    assert chain.runs == []
    assert [outcome.reasons for outcome in outcomes] == [["input letters changed"], ["input upper will change"]]


def test_a_stage_that_broke_off_runs_again(chain: Chain) -> None:
    stages = chain.stages()

    def broken(reporter: object) -> Said:
        raise KdError("out of luck")

    with pytest.raises(KdError, match="out of luck"):
        chain.run([stages[0], replace(stages[1], run=broken)])
    outcomes = chain.run()
    assert chain.runs == ["join"]
    assert outcomes[1].reasons == ["it did not come to its end"]


@pytest.mark.parametrize("error", [KdError("out of luck"), KeyboardInterrupt()])
def test_a_stage_that_broke_off_keeps_what_it_made_before(chain: Chain, error: BaseException) -> None:
    def broken(reporter: object) -> Said:
        raise error

    chain.run()
    changed = replace(chain.stages(**{"student.lr": 5e-4})[0], run=broken)
    with pytest.raises(type(error)):
        chain.run([changed])
    assert [outcome.reasons for outcome in chain.run()] == [[], []]

    def overwritten(reporter: object) -> Said:
        (chain.root / "upper.txt").write_text("HALF")
        raise error

    with pytest.raises(type(error)):
        chain.run([replace(changed, run=overwritten)])
    assert chain.run()[0].reasons == ["it did not come to its end"]


@pytest.mark.parametrize("foreign", [True, False])
def test_what_the_user_wrote_is_never_overwritten_without_force(chain: Chain, foreign: bool) -> None:
    if not foreign:
        chain.run()
    (chain.root / "upper.txt").write_text("MINE")
    with pytest.raises(DataError, match="was not made by lite") as caught:
        chain.run()
    assert chain.runs == []
    assert caught.value.exit_code == 4
    assert (chain.root / "upper.txt").read_text() == "MINE"
    chain.run(force=True)
    assert (chain.root / "upper.txt").read_text() == "ABC"


def test_a_missing_input_names_the_command_that_makes_it(chain: Chain, tmp_path: Path) -> None:
    stage = replace(chain.stages()[1], inputs={"transfer": tmp_path / "nowhere.tsv"})
    with pytest.raises(DataError, match="join needs transfer") as caught:
        chain.run([stage])
    assert caught.value.hint == "`kd transfer lite`, `kd transfer heavy` or `kd transfer corpus` makes it"


def test_a_file_of_the_users_that_is_missing_is_told_before_the_work(chain: Chain, tmp_path: Path) -> None:
    stages = chain.stages()
    late = replace(stages[1], inputs={**stages[1].inputs, "corpus 1": tmp_path / "reviews.txt"})
    with pytest.raises(DataError, match="join needs corpus 1") as caught:
        chain.run([stages[0], late])
    assert caught.value.file == str(tmp_path / "reviews.txt")
    assert chain.runs == []


def test_a_foreign_file_in_the_way_is_told_before_the_work(chain: Chain) -> None:
    (chain.root / "doubled.txt").write_text("MINE")
    with pytest.raises(DataError, match="was not made by join"):
        chain.run()
    assert chain.runs == []
    chain.run(force=True)
    assert chain.runs == ["lite", "join"]


def test_processes_wait_for_each_other_and_find_it_done(chain: Chain) -> None:
    stages, waits, said = chain.stages(), Event(), []
    make = stages[0].run

    def slow(reporter: object) -> object:
        assert waits.wait(60)
        return make(reporter)

    class Says(QuietReporter):
        def info(self, message: str) -> None:
            said.append(message)
            if "another process" in message:
                waits.set()

    def work() -> None:
        outcomes.append(run_stages([replace(stages[0], run=slow)], chain.root, reporter=Says()))

    outcomes: list[list[Outcome]] = []
    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert chain.runs == ["lite"]
    assert sorted(outcome.reasons for (outcome,) in outcomes) == [[], ["it has not run yet"]]
    assert "lite: another process is at it" in said


def test_what_processes_do_together_nobody_waits_for(chain: Chain) -> None:
    both = Barrier(2)

    def meet(reporter: object) -> Said:
        both.wait(60)
        return Said("met")

    stage = replace(chain.stages()[0], run=meet, outputs={}, together=True)
    threads = [
        Thread(target=run_stages, args=([stage], chain.root), kwargs={"reporter": QuietReporter()}) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not both.broken


def test_a_shard_that_is_not_the_last_records_nothing_and_stops(chain: Chain) -> None:
    stages = chain.stages()
    outcomes = chain.run([replace(stages[0], run=lambda reporter: None), stages[1]])
    assert [outcome.done for outcome in outcomes] == [False]


def test_run_alone_refuses_an_existing_output(chain: Chain) -> None:
    stage = chain.stages()[0]
    assert run_alone(stage, reporter=QuietReporter()).result == {"text": "up"}
    with pytest.raises(DataError, match="exists already"):
        run_alone(stage, reporter=QuietReporter())
    run_alone(stage, reporter=QuietReporter(), force=True)


def test_select_takes_a_range_of_stages(chain: Chain) -> None:
    stages = chain.stages()
    assert select(stages, None, None, None) == stages
    assert select(stages, "export", None, None) == stages[1:]
    assert select(stages, None, "teacher", None) == stages[:1]
    assert select(stages, None, None, "join") == stages[1:]
    assert select(stages, None, "transfer", None) == select(stages, None, None, "transfer") == stages[:1]
    assert select(stages, "transfer", None, None) == stages
    with pytest.raises(UsageError, match="no stage 'joint'"):
        select(stages, "joint", None, None)
    with pytest.raises(UsageError, match="--only goes without"):
        select(stages, "join", None, "join")
    with pytest.raises(UsageError, match="no stage of this run"):
        select(stages, None, None, "teacher")


def test_one_launch_at_a_time(tmp_path: Path) -> None:
    with one_launch(tmp_path), pytest.raises(KdError, match="another kd is at work"), one_launch(tmp_path):
        pass
    with one_launch(tmp_path, Shard(0, 2)), one_launch(tmp_path, Shard(1, 2)):
        pass


def test_further_seeds_have_folders_of_their_own() -> None:
    assert of_seed(Path("run/student"), 1, 1) == Path("run/student")
    assert of_seed(Path("run/student"), 2, 1) == Path("run/student-seed2")


def test_a_broken_lock_file_is_named(chain: Chain) -> None:
    (chain.root / "kd.lock").write_text("[1")
    with pytest.raises(DataError, match=r"this is no kd\.lock"):
        chain.run()
