from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import chisquare

from kdcli.transfer import unigrams
from kdcli.transfer.unigrams import Unigrams, count_unigrams

TEXTS = [["the/DT", "film/NN"], [], ["a/DT", "film/NN", "a/DT", "the/NN"], ["plot/NN"] * 5]


def counts(rows):
    return pa.record_batch({"tag": [r[0] for r in rows], "word": [r[1] for r in rows], "count": [r[2] for r in rows]})


def test_counts_the_words_of_each_tag_in_all_parts_and_columns(monkeypatch, words_of):
    stored = {("p1", "sentence1"): TEXTS, ("p1", "sentence2"): [[]], ("p2", "sentence1"): TEXTS[:1]}
    stored["p2", "sentence2"] = [["zoo/NN"], ["a/DT"]]
    monkeypatch.setattr(unigrams, "read_words", lambda path, column: words_of(stored[path, column]))
    table = count_unigrams(["p1", "p2"], ["sentence1", "sentence2"])
    expected = Counter(word.split("/")[1] + "/" + word.split("/")[0] for t in stored.values() for x in t for word in x)
    found = {f"{row['tag']}/{row['word']}": row["count"] for row in table.to_pylist()}
    assert found == expected
    assert table["tag"].to_pylist() == sorted(table["tag"].to_pylist())


def test_draws_from_the_distribution_of_the_tag():
    table = counts([("DT", "a", 30), ("DT", "the", 70), ("NN", "film", 5), ("NN", "plot", 3), ("NN", "zoo", 2)])
    drawer = Unigrams(table)
    random = np.random.default_rng(7)
    tags = np.tile(np.array([1, 0], np.int32), 20_000)
    drawn = np.array(drawer.words.take(pa.array(drawer.draw(tags, ["DT", "NN"], random.random(40_000)))).to_pylist())
    for tag, expected in ((0, {"a": 0.3, "the": 0.7}), (1, {"film": 0.5, "plot": 0.3, "zoo": 0.2})):
        found = Counter(drawn[tags == tag])
        assert set(found) == set(expected)
        frequencies = [found[word] for word in expected]
        assert chisquare(frequencies, [20_000 * share for share in expected.values()]).pvalue > 0.001


@pytest.mark.parametrize(("uniform", "word"), [(0.0, "film"), (0.4999, "film"), (0.5, "plot"), (1.0, "plot")])
def test_ends_of_the_range_stay_within_the_tag(uniform, word):
    drawer = Unigrams(counts([("DT", "a", 1), ("NN", "film", 1), ("NN", "plot", 1), ("VB", "go", 1)]))
    drawn = drawer.draw(np.array([0], np.int32), ["NN"], np.array([uniform]))
    assert drawer.words[int(drawn[0])].as_py() == word


def test_no_words_at_all():
    types = pa.schema([("tag", pa.string()), ("word", pa.string()), ("count", pa.int64())])
    assert Unigrams(counts([]).cast(types)).draw(np.zeros(0, np.int32), [], np.zeros(0)).tolist() == []
