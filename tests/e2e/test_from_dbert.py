"""What d-bert made, through the commands of kd; each row of its README beside a command of kd."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from kdcli.config.dbert.keys import KEYS
from kdcli.tables.read import read_table

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "from-d-bert.md").read_text("utf-8")
README = [
    "augment_data",
    "augment_paired_data",
    "cache_datasets",
    "pair-sentence",
    "finetune_transfoxl",
    "finetune_gpt",
    "build_sampler",
    "model-type",
    "sample_transfoxl",
    "--paired",
    "sst2-ft.json",
    "sst_export.json",
    "join_logits",
    "distill_birnn",
]


@pytest.fixture
def here(tiny, dbert, monkeypatch):
    monkeypatch.chdir(tiny.root)
    return tiny


def rows(path):
    return read_table(path).table().to_pylist()


@pytest.mark.parametrize("command", README)
def test_each_command_of_the_readme_has_its_row(command):
    commands = PAGE.partition("## Commands")[2].partition("## Files")[0]
    beside = [row for row in commands.splitlines() if row.startswith("|") and command in row.split("|")[1]]
    assert beside and all("`kd " in row.split("|")[2] for row in beside)


def test_each_key_is_on_the_page():
    configs = PAGE.partition("## Configs")[2]
    assert [key for key in KEYS if not re.search(rf"^\|.*`{key}`.*\|", configs, re.MULTILINE)] == []


def test_lines_and_logits_to_a_student(here, dbert):
    joined = here.kd("join", "-p", here.profile, "-i", "augmented.txt", "--logits", "logits.pt", "-o", "new.tsv")
    assert joined.code == 0, joined.err
    assert "one text a line" in joined.err and "no column source" in joined.err and "by position" in joined.err
    made = rows("new.tsv")
    assert [row["sentence"] for row in made] == dbert.texts
    found = np.array([[row["logits_0"], row["logits_1"]] for row in made], np.float32)
    assert np.array_equal(found, dbert.logits)
    assert [row["label"] for row in made] == [str(row.argmax()) for row in dbert.logits]


@pytest.mark.parametrize("flags", [[], ["--set", "student.ce_weight=1"]])
def test_a_joined_table_and_a_config_to_a_student(here, flags):
    assert here.kd("profile", "import-dbert", "confs/birnn_sst2.json", "mine.toml").code == 0
    student = ["student", "-p", "mine.toml", "--data-dir", here.data, "-i", "train.tsv", "-o", "student", *flags]
    ended = here.kd("--json", *student)
    assert ended.code == 0, ended.err
    assert "all its rows count as fabricated" in ended.err
    assert ended.result["result"]["updates"] == 3 * 2  # epochs 3, 30 rows in batches of 16
    training = json.loads(Path("student/config.json").read_text())
    assert training["rows"] == 30 and training["dimension"] == 8
    assert (training["training"]["lr"], training["training"]["clip"]) == (1.0, 0.0)
    assert training["options"]["hidden"] == 8
    predicted = here.kd("predict", "--student", "student", "-i", here.data / "test.tsv", "-o", "predictions.tsv")
    assert predicted.code == 0, predicted.err


def test_raw_samples_are_cleaned(here, dbert):
    taken = here.kd("--json", "transfer", "corpus", "-p", here.profile, "-i", "samples.txt", "-o", "transfer.tsv")
    assert taken.code == 0, taken.err
    result = taken.result["result"]
    assert (result["read"], result["blank"], result["duplicates"], result["kept"]) == (61, 1, 30, 30)
    texts = [row["sentence"] for row in rows("transfer.tsv") if row["source"] == "corpus"]
    assert texts == dbert.texts


def test_lines_called_tsv_are_lines_too(here, dbert):
    Path("augmented.txt").rename("lines.tsv")
    taken = here.kd("transfer", "corpus", "-p", here.profile, "-i", "lines.tsv", "-o", "transfer.tsv")
    assert taken.code == 0, taken.err
    assert [row["sentence"] for row in rows("transfer.tsv") if row["source"] == "corpus"] == dbert.texts


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
    made = [(row["sentence1"], row["sentence2"]) for row in rows("transfer.tsv") if row["source"] == "corpus"]
    assert made == [("one is", "the plot was good ."), ("two is", "it was bad .")]
    assert taken.result["result"]["unpaired"] == 2
    refused = here.kd("teacher", "export", *flags[:-1], "logits.safetensors", "--teacher", "gone", "--offline")
    assert refused.code == 4 and "row 3" in refused.err and "kd transfer corpus" in refused.err
