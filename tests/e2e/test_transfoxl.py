"""``kd transfer heavy --generator transfoxl`` as a user runs it; what the road itself promises is in test_heavy."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEPS = ["cache", "fine-tune", "prefixes", "sample"]
MADE = ("generator/model.safetensors", "prefixes.json", "heavy.tsv", "transfer.tsv")
CHOSEN = ["--set", "transfer.method=heavy", "--set", "transfer.generator=transfoxl"]
OPTIONS = """
[generators.transfoxl]
model = "tiny"
n_layer = 3
min_freq = 1
max_length = 32
lr = 1e-2
batch_size = 16
epochs = 12
"""


@pytest.fixture
def worded(tiny):
    """The tiny task, with sizes for a Transformer-XL from scratch."""
    tiny.profile.write_text(tiny.profile.read_text() + OPTIONS)
    return tiny


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text("utf-8").split("\n")[:-1]]


def ran(ended) -> list[str]:
    """Return the stages that a command with ``--json`` has run."""
    assert ended.code == 0, ended.err
    return [stage["stage"] for stage in ended.result["stages"] if stage["reasons"]]


def heavy(tiny, *arguments):
    ended = tiny.stage("transfer", "heavy", "--generator", "transfoxl", *arguments)
    assert ended.code == 0, ended.err
    return ended


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "transfer" / name).read_bytes() for name in MADE}


def test_four_steps_and_then_nothing_to_do(worded):
    first = heavy(worded, "--json")
    assert ran(first) == [*STEPS, "mix"]
    result = first.result["result"]
    assert (result["rows"], result["originals"], result["samples"]) == (160, 60, 100)
    assert result["novelty"]["bits_per_character"] > 0
    tuned = worded.lock["fine-tune"]["result"]["metrics"]
    assert {"dev_bits_per_character", "dev_word_perplexity", "test_bits_per_character"} <= set(tuned)
    rows = table(worded.run_dir / "transfer" / "transfer.tsv")[1:]
    assert [row[1] for row in rows] == ["original"] * 60 + ["heavy"] * 100
    words = {word for row in rows[:60] for word in row[0].split()}
    assert {word for row in rows for word in row[0].split()} == words, "no word is new, and <unk> is none"
    before = bytes_of(worded.run_dir)
    assert ran(heavy(worded, "--json")) == [] and bytes_of(worded.run_dir) == before
    assert ran(heavy(worded, "--set", "generators.transfoxl.n_layer=2", "--json")) == [*STEPS[1:], "mix"]


def test_run_all_goes_through_to_the_student(worded):
    ended = worded.stage("run-all", *CHOSEN, "--json")
    assert ran(ended)[-7:] == ["teacher", "export", "join", "encode", "student", "baseline", "results"]
    assert [row["model"] for row in ended.result["result"]["rows"]] == ["teacher", "baseline", "student"]
    assert ran(worded.stage("run-all", *CHOSEN, "--json")) == []


def test_pairs_have_the_end_sign_for_their_tab(worded):
    worded.make_pairs()
    heavy(worded, "--set", "task.kind=pair", "--set", "generators.transfoxl.epochs=24")
    rows = table(worded.run_dir / "transfer" / "transfer.tsv")
    assert rows[0] == ["sentence1", "sentence2", "source", "label"]
    assert [row[2] for row in rows[1:]] == ["original"] * 60 + ["heavy"] * 100
    assert all(row[0].strip() and row[1].strip() for row in rows)
    assert not any(sign in row[0] + row[1] for row in rows for sign in ("<eos>", "<unk>"))


def test_a_killed_sampling_goes_on_and_ends_with_the_same_file(worded):
    arguments = ["--generator", "transfoxl", "--num-samples", 5000]
    heavy(worded, *arguments)
    undisturbed = bytes_of(worded.run_dir)
    for path in (worded.run_dir / "transfer").glob("heavy.tsv*"):
        path.unlink()
    command = [sys.executable, "-m", "kdcli", "transfer", "heavy", "-p", worded.profile, "--run-dir", worded.run_dir]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*map(str, [*command, *arguments])], env=environment, **quiet)
    folder = worded.run_dir / "transfer" / ".heavy.tsv.samples"
    deadline = time.monotonic() + 120
    while not (folder / "000001.arrow").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = heavy(worded, *arguments)
    assert "sample: it did not come to its end" in again.err and "starting again" not in again.err
    assert bytes_of(worded.run_dir) == undisturbed and not folder.exists()


def test_two_shards_sample_the_same_file(worded):
    heavy(worded, "--num-samples", 3000)
    alone = bytes_of(worded.run_dir)
    (worded.run_dir / "transfer" / "heavy.tsv").unlink()
    for shard in ("0/2", "1/2"):
        heavy(worded, "--num-samples", 3000, "--shard", shard)
    assert bytes_of(worded.run_dir) == alone


def test_a_wrong_option_and_a_wrong_folder(worded):
    ended = worded.stage("transfer", "heavy", "--generator", "transfoxl", "--set", "generators.transfoxl.n_layers=2")
    assert ended.code == 3 and "generators.transfoxl.n_layers" in ended.err and "n_layer" in ended.err
    folder = f"generators.transfoxl.model={worded.data}"
    ended = worded.stage("transfer", "heavy", "--generator", "transfoxl", "--set", folder)
    assert ended.code == 3 and "n_layer is for a model from scratch" in ended.err
    ended = worded.stage("transfer", "heavy", "--generator", "transfoxl", "--set", folder,
                         "--set", "generators.transfoxl.n_layer=auto")  # fmt: skip
    assert ended.code == 4 and "config.json is missing" in ended.err
