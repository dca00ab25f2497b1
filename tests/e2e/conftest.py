"""A tiny task, and ``kd`` run on it in this process."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.fixture
def tiny(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tiny:
    return Tiny(tmp_path, capsys)
