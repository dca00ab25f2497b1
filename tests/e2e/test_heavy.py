import json
import os
import subprocess
import sys
from difflib import SequenceMatcher

import pytest
from e2e.conftest import ran, refused, succeeded
from tiny_transfoxl import write_tiny

STEPS = ["cache", "fine-tune", "prefixes", "sample"]
FILES = ("cache.parquet", "generator/model.safetensors", "prefixes.json", "heavy.parquet")
OPTIONS = {
    "gpt2": "",
    "transfoxl": 'model = "FOLDER"\nmax_length = 32\nlr = 1e-2\nepochs = 12\n',
    "mlm": 'model = "tiny"\nvocab_size = 300\nmax_length = 48\nlr = 1e-2\nbatch_size = 16\nepochs = 8\n',
}


def heavy(tiny, *arguments):
    return succeeded(tiny.stage("transfer", "heavy", *arguments))


def choose(tiny, generator):
    """Write a generator's sizes into the profile, and return the flags that choose it."""
    if options := OPTIONS[generator]:
        if generator == "transfoxl":
            texts = ["\t".join(row[:-1]) for row in tiny.rows("train")]
            options = options.replace("FOLDER", write_tiny(tiny.root / "transfoxl", texts))
        tiny.profile.write_text(f"{tiny.profile.read_text()}[generators.{generator}]\n{options}")
    return ["--generator", generator]


def content(tiny):
    return {name: (tiny.run_dir / "transfer" / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("generator", ["gpt2", pytest.param("transfoxl", marks=pytest.mark.slow)])
def test_four_steps_each_with_its_entry_and_then_nothing_to_do(tiny, generator):
    chosen = choose(tiny, generator)
    first = heavy(tiny, *chosen, "--json")
    assert ran(first) == STEPS
    result = first.result["result"]
    assert (result["rows"], result["originals"], result["samples"]) == (160, 60, 100)
    draws = result["samples"] + result["excess"] + result["duplicates"] + result["train_copies"]
    assert draws + result["held_out_copies"] + sum(result["rejected"].values()) == result["draws"] == 1024
    assert result["novelty"]["samples"] == 100 and len(result["novelty"]["examples"]) == 20
    assert result["novelty"]["bits_per_character"] > 0
    assert list(tiny.lock) == STEPS and all(entry["outputs"] for entry in tiny.lock.values())
    tuned = tiny.lock["fine-tune"]["result"]["metrics"]
    assert {"dev_bits_per_character", "dev_word_perplexity", "test_bits_per_character"} <= set(tuned)
    rows = tiny.read("transfer/heavy.parquet")
    assert rows.columns == ["sentence", "source", "label"]
    assert rows.head(60).select("sentence", "label").rows() == [tuple(row) for row in tiny.rows("train")]
    assert list(rows["source"]) == ["original"] * 60 + ["heavy"] * 100
    held_out = {row[0] for split in ("dev", "test") for row in tiny.rows(split)}
    assert rows["sentence"].n_unique() == 160 and not held_out & set(rows["sentence"])
    if generator == "transfoxl":
        words = {word for line in rows["sentence"][:60] for word in line.split()}
        assert {word for line in rows["sentence"] for word in line.split()} == words, "no word is new"
    before = content(tiny)
    again = heavy(tiny, *chosen, "--json")
    assert ran(again) == [] and again.result["result"] == result and content(tiny) == before


def test_each_step_alone_makes_the_same(heavy_done):
    whole = content(heavy_done)
    heavy_done.run_dir = heavy_done.root / "alone"
    missing = heavy_done.stage("transfer", "heavy", "--only", "sample")
    refused(missing, 4, "generator", "`kd transfer heavy --only fine-tune`")
    refused(heavy_done.stage("transfer", "heavy", "--only=fine-tune"), 4, "`kd transfer heavy --only cache`")
    for step in STEPS:
        assert ran(heavy(heavy_done, "--only", step, "--json")) == [step]
    assert content(heavy_done) == whole


def test_outputs_of_the_users_own(heavy_done):
    tiny, mine = heavy_done, heavy_done.root / "mine"
    (tiny.run_dir / "transfer" / "heavy.parquet").unlink()
    heavy(tiny, "--output", mine / "set.jsonl")
    rows = [json.loads(line) for line in (mine / "set.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == ["original"] * 60 + ["heavy"] * 100
    assert not (tiny.run_dir / "transfer" / "heavy.parquet").exists()
    again = tiny.stage("transfer", "heavy", "--lr", 1e-3, "--output", mine / "set.jsonl")
    refused(again, 4, "--force")
    assert "fine-tune:" not in again.err, "the error comes before hours of work"
    heavy(tiny, "--output", mine / "set.jsonl", "--only", "sample", "--force")
    heavy(tiny, "--output", mine / "cache.parquet", "--only", "cache")
    heavy(tiny, "--output", mine / "generator", "--only", "fine-tune")
    heavy(tiny, "--output", mine / "prefixes.json", "--only", "prefixes")
    for name in FILES[:3]:
        assert (mine / name).read_bytes() == (tiny.run_dir / "transfer" / name).read_bytes()


@pytest.mark.parametrize("generator", ["gpt2", pytest.param("transfoxl", marks=pytest.mark.slow)])
def test_run_all_goes_through_to_the_student(heavy_done, generator):
    tiny = heavy_done
    choose(tiny, generator)
    (tiny.root / "more.txt").write_text("".join(f"a film of the year {place}\n" for place in range(30)))
    files = json.dumps([str(tiny.root / "more.txt")])
    chosen = ["transfer.method=lite+heavy+corpus", f"transfer.generator={generator}", f"transfer.corpus.files={files}"]
    line = ["run-all", "--until", "student", "--json", *(word for one in chosen for word in ("--set", one))]
    made = ["lite", *([] if generator == "gpt2" else STEPS[1:])]
    made += ["corpus", "mix", "teacher", "export", "join", "encode", "student"]
    assert ran(tiny.stage(*line)) == made, "nothing is made twice"
    counts = dict(tiny.read("join/joined.parquet").group_by("source", maintain_order=True).len().rows())
    assert list(counts) == ["original", "lite", "heavy", "corpus"] and counts["heavy"] > 90 and counts["corpus"] == 30
    mixed = tiny.lock["mix"]["result"]
    assert mixed["kept"]["heavy"] + mixed["dropped"]["heavy"] == 100, "a sample may equal one of lite's texts"
    assert ran(tiny.stage(*line)) == []
    assert ran(tiny.stage("run-all", "--until", "transfer", "--json", "--set", "transfer.method=lite")) == []


def test_a_masked_model_draws_some_words_of_pairs_anew(tiny):
    tiny.make_pairs()
    line = [*choose(tiny, "mlm"), "--set", "task.kind=pair", "--json"]
    result = heavy(tiny, *line).result["result"]
    assert (result["originals"], result["samples"], result["rejected"]) == (60, 100, {})
    assert result["novelty"]["bits_per_character"] is None, "a masked model has no bits of a text"
    tuned = tiny.lock["fine-tune"]["result"]["metrics"]
    assert tuned["dev_bits_per_masked_token"] > 0 and tuned["test_bits_per_masked_token"] > 0
    pairs = [" \t ".join(pair).split(" ") for pair in tiny.read("transfer/heavy.parquet").rows() for pair in [pair[:2]]]
    for sample in pairs[60:]:
        shared = max(shared_words(sample, original) for original in pairs[:60])
        assert 0.6 < shared < 1, "a fifth of the words may be new"
    made = content(tiny)
    assert ran(heavy(tiny, *line)) == []
    heavy(tiny, *line, "--only", "sample", "--force")
    assert content(tiny) == made
    assert ran(heavy(tiny, *line, "--sample-temperature", 2.0)) == ["sample"]


def shared_words(words, others):
    """Return the share of the words that are also in the other text, in order."""
    blocks = SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / max(len(words), len(others))


def test_a_corpus_in_the_order_of_the_generator(heavy_done):
    tiny = heavy_done
    lines = ["the plot is warm and the actor is fine .", "rain in spain", "zzz qqq xxx", "", "the song was bad ."]
    (tiny.root / "a.txt").write_text("\n".join(lines) + "\n")
    (tiny.root / "b.tsv").write_text("id\tsentence\n1\tthe  song was bad .\n2\tthe joke is dull .\n")
    files = ["--input", tiny.root / "a.txt", "--input", tiny.root / "b.tsv"]
    line = ["transfer", "corpus", *files, "--order-by", "lm", "--num-samples", 3, "--json"]
    ended = tiny.stage(*line)
    assert ran(ended) == ["corpus"]
    result = ended.result["result"]
    assert (result["read"], result["blank"], result["duplicates"], result["kept"]) == (7, 1, 1, 3)
    rows = tiny.read("transfer/corpus.parquet")[60:]
    assert list(rows["source"]) == ["corpus"] * 3
    assert set(rows["sentence"]) == {lines[0], lines[4], "the joke is dull ."}
    (tiny.root / "a.txt").write_text("quite another one .\n")
    again = tiny.stage(*line)
    assert ran(again) == ["corpus"] and "corpus: input corpus 1 changed" in again.err


@pytest.mark.slow
def test_torchrun_fine_tunes_and_its_main_process_samples(tiny):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "kdcli"]
    command += ["transfer", "heavy", "-p", str(tiny.profile), "--run-dir", str(tiny.run_dir), "--num-samples", "3000"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=250)
    assert list(tiny.lock) == STEPS and all(entry["outputs"] for entry in tiny.lock.values())
    together = content(tiny)["heavy.parquet"]
    (tiny.run_dir / "transfer" / "heavy.parquet").unlink()
    assert ran(heavy(tiny, "--num-samples", 3000, "--json")) == ["sample"]
    assert content(tiny)["heavy.parquet"] == together
