"""``kd transfer heavy`` and ``corpus`` on a tiny task, as a user runs them, and the sets of several methods."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEPS = ["cache", "fine-tune", "prefixes", "sample"]
MADE = ("cache/train.txt", "generator/model.safetensors", "prefixes.json", "heavy.tsv", "transfer.tsv")


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text("utf-8").split("\n")[:-1]]


def sources(path: Path) -> list[str]:
    return [row[-2] for row in table(path)[1:]]


def ran(ended) -> list[str]:
    """Return the stages that a command with ``--json`` has run."""
    assert ended.code == 0, ended.err
    return [stage["stage"] for stage in ended.result["stages"] if stage["reasons"]]


def heavy(tiny, *arguments):
    ended = tiny.stage("transfer", "heavy", *arguments)
    assert ended.code == 0, ended.err
    return ended


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "transfer" / name).read_bytes() for name in MADE}


def test_four_steps_each_with_its_entry_and_then_nothing_to_do(tiny):
    first = heavy(tiny, "--json")
    assert ran(first) == [*STEPS, "mix"]
    result = first.result["result"]
    assert (result["rows"], result["originals"], result["samples"]) == (160, 60, 100)
    draws = result["samples"] + result["excess"] + result["duplicates"] + result["train_copies"]
    assert draws + result["held_out_copies"] + sum(result["rejected"].values()) == result["draws"] == 1024
    assert result["novelty"]["samples"] == 100 and len(result["novelty"]["examples"]) == 20
    assert result["novelty"]["bits_per_character"] > 0
    assert list(tiny.lock) == [*STEPS, "mix"]
    assert all(entry["outputs"] for entry in tiny.lock.values())
    tuned = tiny.lock["fine-tune"]["result"]["metrics"]
    assert {"dev_bits_per_character", "dev_word_perplexity", "test_bits_per_character"} <= set(tuned)

    rows = table(tiny.run_dir / "transfer" / "transfer.tsv")
    assert rows[0] == ["sentence", "source", "label"]
    assert [[row[0], row[2]] for row in rows[1:61]] == table(tiny.data / "train.tsv")[1:]
    assert [row[1] for row in rows[1:]] == ["original"] * 60 + ["heavy"] * 100
    assert {row[2] for row in rows[61:]} == {""}
    texts = [row[0] for row in rows[1:]]
    held_out = {row[0] for split in ("dev", "test") for row in table(tiny.data / f"{split}.tsv")}
    assert len(set(texts)) == 160 and not held_out & set(texts)
    report = json.loads((tiny.run_dir / "transfer" / "heavy.tsv.report.json").read_text())
    assert report == result
    assert not list((tiny.run_dir / "transfer").glob("*.samples"))

    before = bytes_of(tiny.run_dir)
    again = heavy(tiny, "--json")
    assert ran(again) == [] and again.result["result"] == result
    assert bytes_of(tiny.run_dir) == before
    shown = heavy(tiny)
    assert shown.out.count("up to date, nothing to do") == 4
    for title in (*STEPS, "novelty"):
        assert f"─ {title} ─" in shown.out


def test_each_step_alone_makes_the_same(tiny):
    missing = tiny.stage("transfer", "heavy", "--only", "sample")
    assert missing.code == 4
    assert "sample needs generator, which is not there" in missing.err
    assert "hint: `kd transfer heavy --only fine-tune` makes it" in missing.err
    assert "hint: `kd transfer heavy --only cache` makes it" in tiny.stage("transfer", "heavy", "--only=fine-tune").err
    for step in STEPS:
        ended = heavy(tiny, "--only", step, "--json")
        assert ran(ended) == ([step] if step != "sample" else ["sample", "mix"])
    alone = bytes_of(tiny.run_dir)
    tiny.run_dir = tiny.root / "at-once"
    heavy(tiny)
    assert bytes_of(tiny.run_dir) == alone


def test_a_changed_setting_runs_what_hangs_on_it_alone(tiny):
    heavy(tiny)
    before = bytes_of(tiny.run_dir)
    dry = heavy(tiny, "--top-k", 3, "--dry-run", "--json")
    reasons = {stage["stage"]: stage["reasons"] for stage in dry.result["stages"]}
    assert reasons["sample"] == ["transfer.heavy.top_k changed 0 -> 3"]
    assert reasons["mix"] == ["input heavy will change"]
    assert not any(reasons[step] for step in STEPS[:3])
    assert bytes_of(tiny.run_dir) == before

    fewer = heavy(tiny, "--top-k", 3, "--json")
    assert ran(fewer) == ["sample", "mix"]
    assert "sample: transfer.heavy.top_k changed 0 -> 3" in fewer.err
    assert bytes_of(tiny.run_dir)["heavy.tsv"] != before["heavy.tsv"]

    trained = heavy(tiny, "--lr", 5e-3, "--json")
    assert ran(trained) == ["fine-tune", "prefixes", "sample", "mix"]
    assert "fine-tune: generators.gpt2.lr changed 0.01 -> 0.005" in trained.err
    assert "warning" not in "".join(line for line in trained.err.splitlines() if "longer than" not in line)


def test_a_dry_run_of_a_fresh_folder_writes_nothing(tiny):
    dry = heavy(tiny, "--dry-run")
    assert [line.split()[0] for line in dry.out.splitlines()[1:]] == [*STEPS, "mix"]
    assert not tiny.run_dir.exists()


def test_outputs_of_the_users_own(tiny):
    mine = tiny.root / "mine"
    heavy(tiny, "--output", mine / "set.jsonl")
    rows = [json.loads(line) for line in (mine / "set.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == ["original"] * 60 + ["heavy"] * 100
    assert list(tiny.lock) == STEPS[:3]
    names = {"cache", "generator", "prefixes.json"}
    assert {path.name for path in (tiny.run_dir / "transfer").iterdir() if path.name[0] != "."} == names

    again = tiny.stage("transfer", "heavy", "--lr", 1e-3, "--output", mine / "set.jsonl")
    assert again.code == 4 and "the output exists already" in again.err and "--force" in again.err
    assert "fine-tune:" not in again.err, "it is told before the hours that this takes"
    heavy(tiny, "--output", mine / "set.jsonl", "--only", "sample", "--force")
    heavy(tiny, "--output", mine / "cache", "--only", "cache")
    heavy(tiny, "--output", mine / "generator", "--only", "fine-tune")
    heavy(tiny, "--output", mine / "prefixes.json", "--only", "prefixes")
    for name in MADE[:3]:
        assert (mine / name).read_bytes() == (tiny.run_dir / "transfer" / name).read_bytes()
    assert list(tiny.lock) == STEPS[:3]


def test_from_one_method_to_another_and_to_both_nothing_is_made_twice(tiny):
    assert ran(tiny.stage("transfer", "lite", "--json")) == ["lite", "mix"]
    assert ran(heavy(tiny, "--json")) == [*STEPS, "mix"]
    assert set(sources(tiny.run_dir / "transfer" / "transfer.tsv")) == {"original", "heavy"}
    both = ["run-all", "--until", "transfer", "--json", "--set"]
    assert ran(tiny.stage(*both, "transfer.method=lite+heavy")) == ["mix"]
    found = sources(tiny.run_dir / "transfer" / "transfer.tsv")
    assert found == sorted(found, key=["original", "lite", "heavy"].index)
    assert found.count("original") == 60 and found.count("lite") > 50 and found.count("heavy") > 90
    mixed = tiny.lock["mix"]["result"]
    assert mixed["kept"]["heavy"] + mixed["dropped"]["heavy"] == 100, "a sample may be one of lite's texts"
    assert mixed["kept"] == {name: found.count(name) for name in ("lite", "heavy")}
    back = tiny.stage(*both, "transfer.method=lite")
    assert ran(back) == ["mix"]
    assert "mix: transfer.method changed lite+heavy -> lite" in back.err
    lite = (tiny.run_dir / "transfer" / "lite.tsv").read_bytes()
    assert (tiny.run_dir / "transfer" / "transfer.tsv").read_bytes() == lite


@pytest.mark.parametrize("method", ["heavy", "lite+heavy"])
def test_run_all_goes_through_to_the_student(tiny, method):
    ended = tiny.stage("run-all", "--set", f"transfer.method={method}", "--json")
    assert ran(ended)[-7:] == ["teacher", "export", "join", "encode", "student", "baseline", "results"]
    assert [row["model"] for row in ended.result["result"]["rows"]] == ["teacher", "baseline", "student"]
    joined = sources_of_joined(tiny)
    assert set(joined) == {"original", *method.split("+")} and joined.count("heavy") > 90
    assert ran(tiny.stage("run-all", "--set", f"transfer.method={method}", "--json")) == []


def sources_of_joined(tiny) -> list[str]:
    header, *rows = table(tiny.run_dir / "join" / "joined.tsv")
    return [row[header.index("source")] for row in rows]


def test_run_all_with_texts_of_ones_own(tiny):
    (tiny.root / "more.txt").write_text("".join(f"a film of the year {place}\n" for place in range(30)))
    files = json.dumps([str(tiny.root / "more.txt")])
    ended = tiny.stage("run-all", "--set", "transfer.method=lite+corpus", "--set", f"transfer.corpus.files={files}")
    assert ended.code == 0, ended.err
    assert sources_of_joined(tiny).count("corpus") == 30


def test_heavy_for_pairs(tiny):
    tiny.make_pairs()
    pair = ["--set", "task.kind=pair", "--set", "generators.gpt2.epochs=16"]
    ended = tiny.stage("run-all", "--set", "transfer.method=heavy", *pair, "--json")
    assert ended.code == 0, ended.err
    lines = (tiny.run_dir / "transfer" / "cache" / "train.txt").read_text().splitlines()
    assert len(lines) == 60 and {line.count("\t") for line in lines} == {1}
    rows = table(tiny.run_dir / "transfer" / "transfer.tsv")
    assert rows[0] == ["sentence1", "sentence2", "source", "label"]
    assert [row[2] for row in rows[1:]] == ["original"] * 60 + ["heavy"] * 100
    assert all(row[0].strip() and row[1].strip() for row in rows)
    assert "not two texts with one tab" in tiny.lock["sample"]["result"]["rejected"]


def test_a_chosen_label(tiny):
    labels = ["--set", 'transfer.heavy.labels=["1"]']
    heavy(tiny, "--only", "cache", *labels)
    good = {row[0] for row in table(tiny.data / "train.tsv")[1:] if row[1] == "1"}
    assert set((tiny.run_dir / "transfer" / "cache" / "train.txt").read_text().splitlines()) == good


@pytest.mark.parametrize("order", ["none", "tfidf", "lm"])
def test_a_corpus(tiny, order):
    lines = ["the plot is warm and the actor is fine .", "rain in spain", "zzz qqq xxx", "", "the song was bad ."]
    (tiny.root / "a.txt").write_text("\n".join(lines) + "\n")
    (tiny.root / "b.tsv").write_text("id\tsentence\n1\tthe  song was bad .\n2\tthe joke is dull .\n")
    files = ["--input", tiny.root / "a.txt", "--input", tiny.root / "b.tsv"]
    ended = tiny.stage("transfer", "corpus", *files, "--order-by", order, "--num-samples", 3, "--json")
    steps = {"lm": ["cache", "fine-tune", "corpus", "mix"]}.get(order, ["corpus", "mix"])
    assert ran(ended) == steps
    result = ended.result["result"]
    assert (result["read"], result["blank"], result["duplicates"], result["kept"]) == (7, 1, 1, 3)
    rows = table(tiny.run_dir / "transfer" / "transfer.tsv")[61:]
    assert [row[1] for row in rows] == ["corpus"] * 3
    if order != "none":
        assert {row[0] for row in rows} == {lines[0], lines[4], "the joke is dull ."}
    shown = tiny.stage("transfer", "corpus", *files, "--order-by", order, "--num-samples", 3)
    assert "transfer corpus" in shown.out and rows[0][0] in shown.out

    (tiny.root / "a.txt").write_text("quite another one .\n")
    again = tiny.stage("transfer", "corpus", *files, "--order-by", order, "--num-samples", 3, "--json")
    assert ran(again) == ["corpus", "mix"] and "corpus: input corpus 1 changed" in again.err


ECHO = """
from pydantic import BaseModel
from kdcli.api import Samples

api_version = 2

class Options(BaseModel, extra="forbid"):
    words: int = 3
    epochs: int = 1

def fine_tune(corpus, checkpoint, settings, reporter):
    checkpoint.mkdir()
    (checkpoint / "words").write_text(" ".join(corpus.train[0].split()[: settings.options.words]))
    return {"dev_bits_per_character": 1, "note": None, "epochs": settings.options.epochs}

def load(checkpoint, settings, reporter):
    return Sampler((checkpoint / "words").read_text())

class Sampler:
    def __init__(self, words):
        self.words = words

    def prefixes(self, corpus):
        return {"words": self.words}

    def sample(self, prefixes, part):
        return Samples([f"{prefixes['words']} {part.first + place}" for place in range(part.count)], {})
"""


def test_a_generator_of_somebody_elses(tiny, make_plugin):
    make_plugin("kd-echo", "[kdcli.generators]\necho = kd_echo\n", ECHO, module="kd_echo")
    shown = heavy(tiny, "--generator", "kd-echo:echo", "--epochs", 2)
    assert "kd-echo:echo" in shown.out and "'the" not in shown.out
    first = table(tiny.data / "train.tsv")[1][0].split()[:3]
    rows = table(tiny.run_dir / "transfer" / "transfer.tsv")[61:]
    assert [row[0] for row in rows] == [f"{' '.join(first)} {place}" for place in range(100)]
    assert tiny.lock["fine-tune"]["result"]["metrics"]["epochs"] == 2
    ended = tiny.stage("transfer", "heavy", "--generator", "echo", "--lr", 1)
    assert ended.code == 2 and "error: --lr: unknown key\nhint: the keys of generators.echo are" in ended.err
    assert tiny.stage("transfer", "heavy", "--generator", "ehco").code == 5


def test_a_killed_sampling_goes_on_and_ends_with_the_same_file(tiny):
    arguments = ["--num-samples", 5000]
    heavy(tiny, *arguments)
    undisturbed = bytes_of(tiny.run_dir)
    for path in (tiny.run_dir / "transfer").glob("heavy.tsv*"):
        path.unlink()
    command = [sys.executable, "-m", "kdcli", "transfer", "heavy", "-p", tiny.profile, "--run-dir", tiny.run_dir]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*map(str, [*command, *arguments])], env=environment, **quiet)
    folder = tiny.run_dir / "transfer" / ".heavy.tsv.samples"
    deadline = time.monotonic() + 120
    while not (folder / "000001.arrow").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tiny.run_dir / "transfer" / "heavy.tsv").exists()
    assert not (folder / "000002.arrow").exists()
    again = heavy(tiny, *arguments)
    assert "sample: it did not come to its end" in again.err
    assert "starting again" not in again.err and "damaged" not in again.err
    assert bytes_of(tiny.run_dir) == undisturbed
    assert not folder.exists()


def test_two_shards_sample_the_same_file(tiny):
    heavy(tiny, "--num-samples", 3000)
    alone = bytes_of(tiny.run_dir)
    (tiny.run_dir / "transfer" / "heavy.tsv").unlink()
    first = heavy(tiny, "--num-samples", 3000, "--shard", "0/2")
    assert "other shards are still at work" in first.out
    assert not (tiny.run_dir / "transfer" / "heavy.tsv").exists()
    heavy(tiny, "--num-samples", 3000, "--shard", "1/2")
    assert bytes_of(tiny.run_dir) == alone
    assert tiny.lock["sample"]["outputs"] and ran(heavy(tiny, "--num-samples", 3000, "--json")) == []


@pytest.mark.slow
def test_torchrun_goes_all_the_way(tiny):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "kdcli"]
    command += ["transfer", "heavy", "-p", str(tiny.profile), "--run-dir", str(tiny.run_dir), "--num-samples", "3000"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=250)
    assert all(entry["outputs"] for entry in tiny.lock.values()) and list(tiny.lock) == [*STEPS, "mix"]
    together = (tiny.run_dir / "transfer" / "heavy.tsv").read_bytes()
    (tiny.run_dir / "transfer" / "heavy.tsv").unlink()
    assert ran(heavy(tiny, "--num-samples", 3000, "--json")) == ["sample"]
    assert (tiny.run_dir / "transfer" / "heavy.tsv").read_bytes() == together
