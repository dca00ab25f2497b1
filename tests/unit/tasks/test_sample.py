"""The embedded sample: whole, balanced, varied, and with something to learn in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import kdcli.tasks

FOLDER = Path(kdcli.tasks.__file__).parent / "sample"
ROWS = {"train": 640, "dev": 160, "test": 160}


def lines(split):
    content = (FOLDER / f"{split}.tsv").read_bytes().decode("utf-8")
    assert content.endswith("\n")
    assert "\r" not in content
    return content.split("\n")[:-1]


def load(split):
    rows = [line.split("\t") for line in lines(split)[1:]]
    return [text for text, _ in rows], [label for _, label in rows]


def words(text):
    return re.findall(r"[\w']+", text.lower())


@pytest.fixture(scope="module")
def texts():
    return [text for split in ROWS for text in load(split)[0]]


@pytest.mark.parametrize("split", ROWS)
def test_each_split_is_a_glue_table_with_enough_rows_of_both_labels(split):
    assert lines(split)[0] == "sentence\tlabel"
    assert all(line.count("\t") == 1 for line in lines(split))
    _, labels = load(split)
    assert len(labels) >= ROWS[split]
    assert set(labels) == {"0", "1"}
    assert 0.45 <= labels.count("1") / len(labels) <= 0.55
    # Sorted by label, a run cut short would see one class only.
    assert 0.4 <= labels[:100].count("1") / 100 <= 0.6


def test_no_text_stands_twice_within_or_across_the_splits(texts):
    assert len({" ".join(words(text)) for text in texts}) == len(texts)


def test_no_text_is_a_variant_of_another(texts):
    bags = [set(words(text)) for text in texts]
    for i, one in enumerate(bags):
        for other, text in zip(bags[:i], texts, strict=False):
            assert len(one & other) < 0.75 * len(one | other), (texts[i], text)


def test_a_bag_of_words_learns_something_and_not_everything():
    model = make_pipeline(CountVectorizer(binary=True), LogisticRegression(C=1.0, max_iter=2000)).fit(*load("train"))
    for split in ("dev", "test"):
        assert 0.68 <= model.score(*load(split)) <= 0.9
