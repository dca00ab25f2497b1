from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kdcli.transfer.rules import TaggedWords

SHARED = Path(__file__).resolve().parents[4] / "shared"


@pytest.fixture
def words_of():
    """Take texts such as ``["the/DT", "film/NN"]``; one space stands after each word."""
    return tagged_words


def tagged_words(tagged):
    pairs = [[word.rpartition("/") for word in text] for text in tagged]
    flat = list(chain.from_iterable(pairs))
    vocabulary, names = (sorted({pair[part] for pair in flat}) for part in (0, 2))
    return TaggedWords(
        offsets=np.cumsum([0, *map(len, pairs)]),
        words=np.array([vocabulary.index(word) for word, _, _ in flat], np.int32),
        gaps=np.zeros(len(flat), np.int32),
        tags=np.array([names.index(name) for _, _, name in flat], np.int32),
        vocabulary=pl.Series(vocabulary, dtype=pl.String),
        spaces=[" "],
        tag_names=names,
    )


@pytest.fixture
def shared_nltk(monkeypatch):
    import nltk

    if not (SHARED / "nltk_data").exists():
        pytest.skip("shared data is not there")
    monkeypatch.setattr(nltk.data, "path", [str(SHARED / "nltk_data"), *nltk.data.path])


@pytest.fixture
def sst2():
    path = SHARED / "data" / "glue" / "SST-2" / "train.tsv"
    if not path.exists():
        pytest.skip("shared data is not there")

    def first(count):
        with path.open(encoding="utf-8", newline="\n") as file:
            return [line.split("\t")[0] for line, _ in zip(file, range(count + 1), strict=False)][1:]

    return first
