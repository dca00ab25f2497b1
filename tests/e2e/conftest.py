"""A tiny task, and ``kd`` run on it in this process; finished runs that tests copy instead of running them again."""

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
import torch

from kdcli.cli import run

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
GOOD = ["good", "great", "lovely", "fine", "bright", "warm"]
BAD = ["bad", "dull", "awful", "poor", "dark", "cold"]
THINGS = ["plot", "actor", "song", "scene", "ending", "picture", "joke", "camera"]

MODELS = """
[teacher.config]
model_type = "bert"
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 64
[students.bilstm]
hidden = 8
fc = 8
"""
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
[student]
dimension = 8
epochs = 3
batch_size = 16
"""


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def result(self):
        return json.loads(self.out)


class Tiny:
    """A folder with a task of film opinions, a profile for it, and a run folder."""

    def __init__(self, root, capsys):
        self.root = root
        self.capsys = capsys
        self.data = root / "data"
        self.run_dir = root / "run"
        self.profile = root / "tiny.toml"
        self.data.mkdir()
        for split, places in (("train", range(0, 60)), ("dev", range(60, 80)), ("test", range(80, 96))):
            self.write(split, [(text(place), place % 2) for place in places])
        self.profile.write_text(PROFILE.format(data=self.data) + MODELS)

    def write(self, split, rows, header="sentence\tlabel"):
        path = self.data / f"{split}.tsv"
        path.write_text("".join(f"{line}\n" for line in (header, *("\t".join(map(str, row)) for row in rows))))
        return path

    def kd(self, *arguments):
        """Run ``kd`` as on the command line, with this profile and run folder where the command has them."""
        code = run([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return Ended(code, out, err)

    def stage(self, *arguments):
        return self.kd(*arguments, "--profile", self.profile, "--run-dir", self.run_dir)

    def read(self, name):
        return pl.read_parquet(self.run_dir / name)

    def rows(self, split):
        """Return the fields of a table of the task, without its header."""
        return [line.split("\t") for line in (self.data / f"{split}.tsv").read_text().splitlines()[1:]]

    @property
    def lock(self):
        content = json.loads((self.run_dir / "kd.lock").read_text("utf-8"))
        return content.get("stages", content)

    def make_pairs(self):
        """Turn the task into one of pairs; the profile needs ``task.kind=pair``."""
        for split in ("train", "dev", "test"):
            rows = [(f"{place} is", *row) for place, row in enumerate(self.rows(split))]
            self.write(split, rows, "sentence1\tsentence2\tlabel")


def text(place):
    words = GOOD if place % 2 else BAD
    first, second = words[place % 6], words[(place // 6) % 6]
    return f"the {THINGS[place % 8]} is {first} and the {THINGS[(place // 8) % 8]} number {place} was {second} ."


def refused(ended, code, *words):
    assert ended.code == code, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert lines and lines[0].startswith("error: ") and "Traceback" not in ended.err
    for word in words:
        assert str(word) in "\n".join(lines), ended.err


def succeeded(ended):
    assert ended.code == 0, ended.err
    return ended


def ran(ended):
    return [stage["stage"] for stage in succeeded(ended).result["stages"] if stage["reasons"]]


@pytest.fixture
def tiny(tmp_path, capsys):
    return Tiny(tmp_path, capsys)


def finished(root, *arguments):
    """Run a command on the tiny task in a folder of its own; no test changes it."""
    tiny = Tiny(root, None)
    assert run([*arguments, "-p", str(tiny.profile), "--run-dir", str(tiny.run_dir), "-q"]) == 0
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("trained"), "run-all")


@pytest.fixture(scope="session")
def sampled(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("sampled"), "transfer", "heavy")


def copy_of(root, tiny):
    """Give a tiny task the data, the profile and a copy of the run of another one."""
    shutil.copytree(root / "run", tiny.run_dir)
    shutil.rmtree(tiny.data)
    shutil.copytree(root / "data", tiny.data)
    return tiny


@pytest.fixture
def done(trained, tiny):
    return copy_of(trained, tiny)


@pytest.fixture
def heavy_done(sampled, tiny):
    return copy_of(sampled, tiny)


@pytest.fixture
def dbert(tiny):
    """Files as d-bert's tools write them, for the tiny task, in the current folder of a test."""
    texts = [text(place) for place in range(100, 130)]
    logits = np.array([(-1.5, 1.25) if place % 2 else (2.0, -0.75) for place in range(30)], np.float32)
    (tiny.root / "augmented.txt").write_text("".join(f"{line}\n" for line in texts))
    (tiny.root / "samples.txt").write_text("\n".join(f"{line}<|endoftext|>" for line in ["", *texts, *texts]))
    torch.save([logits[:16], logits[16:]], tiny.root / "logits.pt")
    rows = [f"{a > 0:d}\t{line}\t{b}\t{a}\n" for line, (b, a) in zip(texts, logits.tolist(), strict=True)]
    for name in ("train.tsv", "joined.tsv"):
        (tiny.root / name).write_text("label\tsentence\tlogits_0\tlogits_1\n" + "".join(rows))


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(chromium, url, ready="document.title", **wishes):
    """Open a page and wait until it is ready; what it complains of, or asks of others, is a failure."""
    context = chromium.new_context(**wishes)
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(url)
    page.evaluate(ready)
    yield page
    assert complaints == []
    assert [one for one in asked if not one.startswith((url, "blob:"))] == []
    context.close()
