"""A tiny task, and ``kd`` run on it in this process."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcli.cli import run

GOOD = ["good", "great", "lovely", "fine", "bright", "warm"]
BAD = ["bad", "dull", "awful", "poor", "dark", "cold"]
THINGS = ["plot", "actor", "song", "scene", "ending", "picture", "joke", "camera"]

PROFILE = """
extends = "demo"
[task]
name = "tiny"
data_dir = "{data}"
[transfer.lite]
n_iter = 3
workers = 1
[transfer.heavy]
num_samples = 100
[generators.gpt2]
vocab_size = 300
max_length = 32
lr = 1e-2
batch_size = 16
epochs = 8
[teacher]
vocab_size = 300
epochs = 2
max_length = 32
[teacher.config]
model_type = "bert"
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 64
[student]
dimension = 8
epochs = 3
batch_size = 16
[students.bilstm]
hidden = 8
fc = 8
"""


@dataclass
class Ended:
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        return json.loads(self.out)


class Tiny:
    """A folder with a task of film opinions, a profile for it, and a run folder."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str] | None) -> None:
        self.root = root
        self.capsys = capsys
        self.data = root / "data"
        self.run_dir = root / "run"
        self.profile = root / "tiny.toml"
        self.data.mkdir()
        for split, places in (("train", range(0, 60)), ("dev", range(60, 80)), ("test", range(80, 96))):
            self.write(split, [(text(place), place % 2) for place in places])
        self.profile.write_text(PROFILE.format(data=self.data))

    def write(self, split: str, rows: list[tuple[str, object]], header: str = "sentence\tlabel") -> Path:
        path = self.data / f"{split}.tsv"
        path.write_text("".join(f"{line}\n" for line in (header, *("\t".join(map(str, row)) for row in rows))))
        return path

    def kd(self, *arguments: object) -> Ended:
        """Run ``kd`` as on the command line, with this profile and run folder where the command has them."""
        code = run([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return Ended(code, out, err)

    def stage(self, *arguments: object) -> Ended:
        return self.kd(*arguments, "--profile", self.profile, "--run-dir", self.run_dir)

    @property
    def lock(self) -> dict[str, Any]:
        """What ``kd.lock`` holds."""
        return json.loads((self.run_dir / "kd.lock").read_text("utf-8"))

    def make_pairs(self) -> None:
        """Turn the task into one of pairs; the profile needs ``task.kind=pair``."""
        for split in ("train", "dev", "test"):
            lines = (self.data / f"{split}.tsv").read_text().splitlines()[1:]
            rows = [(f"{place} is", *line.split("\t")) for place, line in enumerate(lines)]
            self.write(split, rows, "sentence1\tsentence2\tlabel")


def text(place: int) -> str:
    words = GOOD if place % 2 else BAD
    first, second = words[place % 6], words[(place // 6) % 6]
    return f"the {THINGS[place % 8]} is {first} and the {THINGS[(place // 8) % 8]} number {place} was {second} ."


@pytest.fixture(autouse=True)
def quick_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time each model of a results table with one call: how fast a tiny one is tells nothing."""
    monkeypatch.setattr("kdcli.evaluate.results.SPEED_SECONDS", 0.0)


@pytest.fixture
def tiny(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tiny:
    return Tiny(tmp_path, capsys)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny task with a finished run; no test changes it."""
    tiny = Tiny(tmp_path_factory.mktemp("trained"), None)
    assert run(["run-all", "-p", str(tiny.profile), "--run-dir", str(tiny.run_dir), "-q"]) == 0
    return tiny.root


class Dbert:
    """Files as d-bert's tools write them, for the tiny task, in the current folder of a test."""

    def __init__(self, root: Path) -> None:
        self.texts = [text(place) for place in range(100, 130)]
        self.logits = np.array([(-1.5, 1.25) if place % 2 else (2.0, -0.75) for place in range(30)], np.float32)
        (root / "confs").mkdir()
        for name, values in CONFS.items():
            (root / "confs" / f"{name}.json").write_text(json.dumps(values, indent=4))
        (root / "augmented.txt").write_text("".join(f"{line}\n" for line in self.texts))
        (root / "samples.txt").write_text("\n".join(f"{line}<|endoftext|>" for line in ["", *self.texts, *self.texts]))
        torch.save([self.logits[:16], self.logits[16:]], root / "logits.pt")
        rows = [f"{a > 0:d}\t{line}\t{b}\t{a}\n" for line, (b, a) in zip(self.texts, self.logits.tolist(), strict=True)]
        (root / "train.tsv").write_text("label\tsentence\tlogits_0\tlogits_1\n" + "".join(rows))
        (root / "joined.tsv").write_bytes((root / "train.tsv").read_bytes())


CONFS: dict[str, dict[str, Any]] = {
    "base": {"distill_lambda": 1, "ce_lambda": 1, "seed": 0, "optimizer": "adam", "lr": 1, "use_maxpool": False},
    "sst2": {"dataset_name": "sst2", "dataset_path": "/nowhere/SST-2", "train_file": "train.tsv"},
    "birnn_sst2": {
        "_inherits_": ["base.json", "sst2.json"],
        "words_dim": 8,
        "clip_grad": 30000,
        "dropout": 0.1,
        "rnn_type": "lstm",
        "hidden_size": 8,
        "lr": 5e-4,
        "fc_size": 8,
        "batch_size": 16,
        "mode": "rand",
        "epochs": 3,
    },
    "config": {"model_file": "/nowhere/uncased_L-24_H-1024_A-16", "learning_rate": 5e-5, "num_train_epochs": 3},
    "sst2-ft": {"_inherits_": "config.json", "n_labels": 2, "task_name": "sst2"},
}
"""Configs of d-bert's form, with a small student."""


@pytest.fixture
def dbert(tiny: Tiny) -> Dbert:
    return Dbert(tiny.root)
