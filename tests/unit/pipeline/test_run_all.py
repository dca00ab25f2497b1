from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kdcli.api import QuietReporter
from kdcli.data.parts import Shard
from kdcli.errors import DataError, KdError, UsageError
from kdcli.pipeline.run_all import Outcome, run_alone, run_stages, select
from kdcli.pipeline.run_dir import of_seed, one_launch
from kdcli.pipeline.stages import Stage


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
            self.runs.append("transfer")
            upper.write_text(self.letters.read_text().upper())
            return Said("up")

        def make_doubled(reporter: object) -> Said:
            self.runs.append("join")
            doubled.write_text(upper.read_text() * 2)
            return Said("twice")

        return [
            Stage(
                "transfer",
                "transfer",
                {"seed": 1, **parameters},
                {"letters": self.letters},
                {"upper": upper},
                make_upper,
            ),
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


def test_a_changed_setting_is_named_with_both_values(chain: Chain) -> None:
    chain.run(chain.stages(**{"student.lr": 5e-4}))
    outcomes = chain.run(chain.stages(**{"student.lr": 1e-3}))
    assert outcomes[0].reasons == ["student.lr changed 0.0005 -> 0.001"]
    assert outcomes[1].reasons == []


def test_a_changed_input_runs_all_that_hangs_on_it(chain: Chain) -> None:
    chain.run()
    chain.letters.write_text("abd")
    outcomes = chain.run()
    assert chain.runs == ["transfer", "join"]
    assert outcomes[0].reasons == ["input letters changed"]
    assert outcomes[1].reasons == ["input upper changed"]
    assert (chain.root / "doubled.txt").read_text() == "ABDABD"


def test_a_stage_whose_output_comes_out_the_same_stops_the_wave(chain: Chain) -> None:
    chain.run()
    (chain.root / "upper.txt").unlink()
    chain.run()
    assert chain.runs == ["transfer"]


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


@pytest.mark.parametrize("foreign", [True, False])
def test_what_the_user_wrote_is_never_overwritten_without_force(chain: Chain, foreign: bool) -> None:
    if not foreign:
        chain.run()
    (chain.root / "upper.txt").write_text("MINE")
    with pytest.raises(DataError, match="was not made by transfer") as caught:
        chain.run()
    assert caught.value.exit_code == 4
    assert (chain.root / "upper.txt").read_text() == "MINE"
    chain.run(force=True)
    assert (chain.root / "upper.txt").read_text() == "ABC"


def test_a_missing_input_names_the_command_that_makes_it(chain: Chain, tmp_path: Path) -> None:
    stage = replace(chain.stages()[1], inputs={"transfer": tmp_path / "nowhere.tsv"})
    with pytest.raises(DataError, match="join needs transfer") as caught:
        chain.run([stage])
    assert caught.value.hint == "`kd transfer lite` makes it"


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
