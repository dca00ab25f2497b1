"""Files that d-bert made, through the commands of kd; each command of its README beside one of kd."""

import json
from pathlib import Path

import polars as pl
import pytest
from e2e.conftest import refused

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "from-d-bert.md").read_text("utf-8")
README = ("augment_data", "augment_paired_data", "cache_datasets", "pair-sentence", "finetune_transfoxl")
README += ("finetune_gpt", "build_sampler", "model-type", "sample_transfoxl", "--paired", "sst2-ft.json")
README += ("sst_export.json", "join_logits", "distill_birnn")


@pytest.fixture
def here(tiny, dbert, monkeypatch):
    monkeypatch.chdir(tiny.root)
    return tiny


def table(path):
    return pl.read_csv(path, separator="\t", quote_char=None)


def test_each_command_of_the_readme_has_its_row():
    commands = PAGE.partition("## Commands")[2].partition("## Files")[0]
    rows = [row.split("|") for row in commands.splitlines() if row.startswith("|")]
    assert [one for one in README if not any(one in row[1] and "`kd " in row[2] for row in rows)] == []


@pytest.mark.parametrize("flags", [[], ["--set", "student.ce_weight=1"]])
def test_a_joined_table_to_a_student(here, flags):
    student = ["student", "-p", here.profile, "-i", "train.tsv", "-o", "student", *flags]
    ended = here.kd("--json", *student)
    assert ended.code == 0, ended.err
    assert ended.result["result"]["updates"] == 3 * 2  # epochs 3, 30 rows in batches of 16
    assert json.loads(Path("student/config.json").read_text())["rows"] == 30
    predicted = here.kd("predict", "--student", "student", "-i", here.data / "test.tsv", "-o", "predictions.tsv")
    assert predicted.code == 0, predicted.err


@pytest.mark.parametrize("name", ["samples.txt", "augmented.txt", "lines.tsv"])
def test_samples_are_cleaned(here, dbert, name):
    if name == "lines.tsv":  # lines under the name of a table
        Path("augmented.txt").rename("lines.tsv")
    taken = here.kd("--json", "transfer", "corpus", "-p", here.profile, "-i", name, "-o", "transfer.tsv")
    assert taken.code == 0, taken.err
    result = taken.result["result"]
    counts = (61, 1, 30, 30) if name == "samples.txt" else (30, 0, 0, 30)
    assert (result["read"], result["blank"], result["duplicates"], result["kept"]) == counts
    assert list(table("transfer.tsv").filter(pl.col("source") == "corpus")["sentence"]) == dbert.texts


def test_pairs_of_the_samplers(here):
    here.make_pairs()
    lines = [
        "one is <eos> the plot was good . <eos>",
        "two is \t it was bad .<|endoftext|>",
        "no pair",
        "\t",
        "a\tb\tc",
    ]
    Path("pairs.txt").write_text("\n".join(lines))
    flags = ["-p", here.profile, "--set", "task.kind=pair", "-i", "pairs.txt", "-o", "transfer.tsv"]
    taken = here.kd("--json", "transfer", "corpus", *flags)
    assert taken.code == 0, taken.err
    made = table("transfer.tsv").filter(pl.col("source") == "corpus").select("sentence1", "sentence2")
    assert made.rows() == [("one is", "the plot was good ."), ("two is", "it was bad .")]
    assert taken.result["result"]["unpaired"] == 2
    ended = here.kd("teacher", "export", *flags[:-1], "logits.safetensors", "--teacher", "gone", "--offline")
    refused(ended, 4, "row 3", "kd transfer corpus")
