"""The embedded sample: whole, balanced, varied, and with something to learn in it."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
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


def test_texts_are_clean_sentences_of_4_to_30_words(texts):
    for text in texts:
        assert 4 <= len(text.split()) <= 30, text
        assert text == " ".join(text.split()), text
        assert text[0].isupper(), text
        assert text[-1] in ".?!", text
        assert text.isprintable(), text


def test_no_text_stands_twice_within_or_across_the_splits(texts):
    assert len({" ".join(words(text)) for text in texts}) == len(texts)


def test_no_text_is_a_variant_of_another(texts):
    bags = [set(words(text)) for text in texts]
    for i, one in enumerate(bags):
        for other, text in zip(bags[:i], texts, strict=False):
            assert len(one & other) < 0.75 * len(one | other), (texts[i], text)


def test_the_language_is_varied(texts):
    for length, share in ((1, 0.25), (2, 0.03), (3, 0.01)):
        openings = Counter(tuple(words(text)[:length]) for text in texts)
        assert openings.most_common(1)[0][1] <= share * len(texts), length
    bigrams = Counter(pair for text in texts for pair in pairwise(words(text)))
    assert len(bigrams) / bigrams.total() >= 0.6
    assert len({word for text in texts for word in words(text)}) >= 2000


def test_negation_contrast_and_questions_occur_under_both_labels():
    rows = [row for split in ROWS for row in zip(*load(split), strict=True)]
    for cue in (r"\bnot\b|\bno\b|\bnever\b|n't\b", r"\bbut\b|\byet\b|\bthough\b|\bdespite\b|\bwhile\b", r"\?$"):
        labels = Counter(label for text, label in rows if re.search(cue, text.lower()))
        assert min(labels["0"], labels["1"]) >= 5, cue


def test_a_bag_of_words_learns_something_and_not_everything():
    model = make_pipeline(CountVectorizer(binary=True), LogisticRegression(C=1.0, max_iter=2000)).fit(*load("train"))
    for split in ("dev", "test"):
        assert 0.68 <= model.score(*load(split)) <= 0.9
