"""Which stages a profile has, and what each depends on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdcli.config.schema import Settings
from kdcli.errors import ProfileError
from kdcli.parts.parts import Shard
from kdcli.run.context import Ground, Stage
from kdcli.run.run_dir import Paths
from kdcli.run.stages import NAMES, Plan

HEAVY = ["cache", "fine-tune", "prefixes", "sample"]
REST = ["teacher", "export", "join", "encode", "student", "baseline", "results"]


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\nfine\t1\nbad\t0\n")

    def make(shard: str = "0/1", generators: dict[str, Any] | None = None, **transfer: Any) -> Plan:
        settings = Settings.model_validate(
            {
                "task": {"labels": ["0", "1"], "data_dir": str(tmp_path)},
                "transfer": {"corpus": {"files": [str(tmp_path / "more.txt")]}} | transfer,
                "generators": generators or {},
            }
        )
        return Plan(Ground(settings, Paths.in_run(tmp_path / "run"), "cpu", Shard.parse(shard)))

    return make


def names(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages]


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        ({}, ["lite"]),
        ({"method": "heavy"}, HEAVY),
        ({"method": "corpus"}, ["corpus"]),
        ({"method": "heavy+lite"}, ["lite", *HEAVY]),
        ({"method": "lite+corpus"}, ["lite", "corpus"]),
        ({"method": "corpus+heavy+lite"}, ["lite", *HEAVY, "corpus"]),
    ],
)
def test_the_stages_of_each_method(plan: Any, transfer: dict[str, Any], expected: list[str]) -> None:
    found = names(plan(**transfer).stages())
    assert found == [*expected, "mix", *REST]
    assert sorted(found, key=NAMES.index) == found, "in the order that --from and --until go by"


@pytest.mark.parametrize("method", ["corpus", "lite+corpus", "heavy+corpus"])
def test_a_corpus_that_the_generator_orders_needs_it(plan: Any, tmp_path: Path, method: str) -> None:
    corpus = {"files": ["more.txt"], "order_by": "lm"}
    stages = plan(method=method, corpus=corpus).stages()
    found = names(stages)
    assert sorted(found, key=NAMES.index) == found
    assert found.count("fine-tune") == found.count("cache") == 1
    last = next(stage for stage in stages if stage.name == "corpus")
    assert last.inputs["generator"] == tmp_path / "run" / "transfer" / "generator"
    assert "generators.gpt2.max_length" in last.parameters
    plain = plan(method=method).stage("corpus")
    assert "generator" not in plain.inputs and "generators.gpt2.max_length" not in plain.parameters


def test_each_stage_is_made_of_what_the_ones_before_it_make(plan: Any, tmp_path: Path) -> None:
    made = {tmp_path / name for name in ("train.tsv", "dev.tsv", "test.tsv", "more.txt")}
    for stage in plan(method="lite+heavy+corpus").stages(seeds=2):
        assert set(stage.inputs.values()) <= made, stage.key
        assert not set(stage.outputs.values()) & made, "no two stages write to one place"
        made |= set(stage.outputs.values())


@pytest.mark.parametrize("name", NAMES[:-2])
def test_a_stage_alone_is_the_same_as_in_its_place(plan: Any, name: str) -> None:
    whole = plan(method="lite+heavy+corpus")
    (inside,) = [stage for stage in whole.stages() if stage.name == name]
    alone = whole.stage(name)
    assert (alone.key, alone.parameters, alone.inputs) == (inside.key, inside.parameters, inside.inputs)


def changed(plan: Any, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the stages that a change of the settings touches themselves, not by their inputs."""
    one, other = plan(**before).stages(), plan(**after).stages()
    return [a.name for a, b in zip(one, other, strict=True) if (a.parameters, a.inputs) != (b.parameters, b.inputs)]


@pytest.mark.parametrize(
    ("heavy", "expected"),
    [
        ({"top_k": 5}, ["sample"]),
        ({"top_p": 0.9}, ["sample"]),
        ({"temperature": 0.5}, ["sample"]),
        ({"num_samples": 5}, ["sample"]),
        ({"keep_copies": True}, ["sample"]),
        ({"batch_size": 5}, []),
        ({"labels": ["1"]}, ["cache"]),
    ],
)
def test_what_a_setting_of_sampling_touches(plan: Any, heavy: dict[str, Any], expected: list[str]) -> None:
    assert changed(plan, {"method": "heavy"}, {"method": "heavy", "heavy": heavy}) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lr": 0.5}, ["fine-tune", "prefixes", "sample"]),
        # Samples are no longer than this even where the training comes out the same.
        ({"max_length": 64}, ["fine-tune", "prefixes", "sample"]),
        ({"save_steps": 7}, []),
    ],
)
def test_what_an_option_of_the_generator_touches(plan: Any, options: dict[str, Any], expected: list[str]) -> None:
    after = {"method": "heavy", "generators": {"gpt2": options}}
    assert changed(plan, {"method": "heavy"}, after) == expected


def test_models_and_tokenizers_on_this_machine_are_inputs(plan: Any, tmp_path: Path) -> None:
    (tmp_path / "lm").mkdir()
    (tmp_path / "bpe").mkdir()
    options = {"model": str(tmp_path / "lm"), "tokenizer": str(tmp_path / "bpe"), "from_scratch": True}
    stage = plan(method="heavy", generators={"gpt2": options}).stage("fine-tune")
    assert stage.inputs["model"] == tmp_path / "lm" and stage.inputs["tokenizer"] == tmp_path / "bpe"
    assert set(plan(method="heavy").stage("fine-tune").inputs) == {"cache"}


def test_options_that_are_no_json_stand_in_the_lock_as_their_table_does(
    plan: Any, tmp_path: Path, make_plugin: Any
) -> None:
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
    stage = plan(method="heavy", generator="own", generators={"own": {"model": str(tmp_path)}}).stage("fine-tune")
    assert json.loads(json.dumps(stage.parameters))["generators.own.model"] == str(tmp_path)
    assert stage.inputs["model"] == tmp_path


def test_a_corpus_without_files_is_refused_before_any_work(plan: Any) -> None:
    with pytest.raises(ProfileError, match="no files") as error:
        plan(method="lite+corpus", corpus={"files": []}).stages()
    assert error.value.key == "transfer.corpus.files" and "--input" in (error.value.hint or "")


def test_shards_share_parts_and_seeds(plan: Any) -> None:
    first = names(plan("0/2", method="lite+heavy").share(seeds=3))
    second = plan("1/2", method="lite+heavy").share(seeds=3)
    assert first == ["lite", *HEAVY, "mix", *REST[:4], "student", "student", "baseline", "baseline", "results"]
    assert [stage.key for stage in second] == ["lite", "sample", "mix", "export", "student-seed2", "baseline-seed2"]


def test_torchrun_trains_together_and_shards_do_not(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = {stage.name for stage in plan(method="lite+heavy").stages() if stage.together}
    assert together == {"lite", "sample", "export"}
    monkeypatch.setenv("WORLD_SIZE", "2")
    together = {stage.name for stage in plan(method="lite+heavy").stages() if stage.together}
    assert together == {"lite", "sample", "export", "fine-tune", "teacher"}
