"""Several processes share the row work and end with the file that one would have made."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("command", "output"),
    [(["transfer", "lite"], "transfer/lite.tsv"), (["teacher", "export"], "export/logits.safetensors")],
)
def test_two_shards_make_the_same_file(tiny, command, output):
    before = [] if command[0] == "transfer" else ["transfer", "teacher"]
    if before:
        assert tiny.stage("run-all", "--until", before[-1]).code == 0
    assert tiny.stage(*command).code == 0
    path = tiny.run_dir / output
    alone = path.read_bytes()
    path.unlink()

    first = tiny.stage(*command, "--shard", "0/2")
    assert first.code == 0, first.err
    last = tiny.stage(*command, "--shard", "1/2") if not path.exists() else first
    assert last.code == 0, last.err
    assert path.read_bytes() == alone
    entry = json.loads((tiny.run_dir / "kd.lock").read_text())[command[-1]]
    assert entry["outputs"], "the shard that put the file together did not record it"


@pytest.mark.parametrize("shard", ["2/2", "x", "-1/2", "1"])
def test_a_shard_that_is_none(tiny, shard):
    ended = tiny.stage("transfer", "lite", "--shard", shard)
    assert ended.code == 2 and "I/N" in ended.err


@pytest.mark.slow
def test_torchrun_exports_the_same_logits(tiny):
    assert tiny.stage("run-all", "--until", "export").code == 0
    logits = tiny.run_dir / "export" / "logits.safetensors"
    alone = logits.read_bytes()
    logits.unlink()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "kdcli"]
    command += ["teacher", "export", "-p", str(tiny.profile), "--run-dir", str(tiny.run_dir)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=250)
    assert logits.read_bytes() == alone


def test_two_launches_share_the_seeds(tiny):
    assert tiny.stage("run-all", "--until", "encode").code == 0
    share = ["run-all", "--seeds", "2", "--from", "student", "--until", "baseline", "--shard"]
    first = tiny.stage(*share, "0/2", "--json")
    second = tiny.stage(*share, "1/2", "--json")
    assert [stage["stage"] for stage in first.result["stages"]] == ["student", "baseline"]
    assert [stage["stage"] for stage in second.result["stages"]] == ["student-seed2", "baseline-seed2"]
    whole = tiny.stage("run-all", "--seeds", "2", "--json")
    assert [stage["stage"] for stage in whole.result["stages"] if stage["reasons"]] == ["results"]


def test_run_all_is_not_for_torchrun(tiny, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = tiny.stage("run-all")
    assert ended.code == 2 and "teacher export" in ended.err
