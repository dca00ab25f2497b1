from collections import Counter
from itertools import chain

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import binomtest, chisquare

from kdcli.transfer.rules import Rewriter, Rules, TaggedWords, Unigrams, windows

NOTHING = Rules(0, 0, 0, 1, 5)
TEXT = ["the/DT", "good/JJ", "film/NN", "has/VB", "a/DT", "plot/NN", "and/CC", "ends/VB"]


def unigrams_of(texts):
    found = sorted(Counter(tuple(reversed(word.split("/"))) for text in texts for word in text).items())
    return Unigrams(counts([(*key, count) for key, count in found]))


def counts(rows):
    return pl.DataFrame(rows, schema={"tag": pl.String, "word": pl.String, "count": pl.UInt32}, orient="row")


def words_of(tagged):
    """Take texts such as ``["the/DT", "film/NN"]``; one space stands after each word."""
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


def rewritten(texts, rules, repeat=1, edited=None):
    rewriter = Rewriter(words_of(texts), unigrams_of(texts), rules)
    rows = np.repeat(np.arange(len(texts)), repeat)
    edited = np.ones(len(rows), bool) if edited is None else np.array(edited)
    return rewriter.rewrite(rows, edited, np.random.default_rng(3))


def test_texts_without_rules_or_not_edited_stay():
    done = rewritten([TEXT, [], TEXT[:1]], NOTHING)
    assert done.texts.to_list() == ["the good film has a plot and ends", "", "the"] and done.words.tolist() == [8, 0, 1]
    assert not (done.masked.any() or done.replaced.any() or done.cut.any())
    done = rewritten([TEXT, TEXT], Rules(0.5, 0.5, 1, 1, 2), edited=[False, True])
    assert done.texts[0] == "the good film has a plot and ends"
    assert len(done.texts[1].split()) <= 2
    assert (done.masked + done.replaced > 0).tolist() == done.cut.tolist() == [False, True]


def test_masks_and_replaces_as_often_as_asked():
    n = 20_000
    done = rewritten([TEXT], Rules(0.15, 0.25, 0, 1, 5), repeat=n)
    texts = [text.split() for text in done.texts.to_list()]
    masked = np.array([[word == "[MASK]" for word in text] for text in texts])
    assert all(len(text) == len(TEXT) for text in texts)
    # Each place of the text is masked with the same probability, independently of its neighbours.
    assert chisquare([*masked.sum(axis=0), 8 * n - masked.sum()], [0.15 * n] * 8 + [0.85 * 8 * n]).pvalue > 0.001
    assert binomtest(int((masked[:, 1:] & masked[:, :-1]).sum()), 7 * n, 0.15**2).pvalue > 0.001
    assert (done.masked == masked.sum(axis=1)).all()
    assert binomtest(int(done.replaced.sum()), 8 * n, 0.25).pvalue > 0.001
    # "the" and "a" are the tag's words, so that half of the replacements change the word.
    changed = sum(text[0] == "a" for text in texts)
    assert binomtest(changed, n, 0.25 / 2).pvalue > 0.001


def test_replacement_has_the_same_tag():
    tag_of = dict(word.split("/") for word in TEXT)
    done = rewritten([TEXT], Rules(0, 0.9, 0, 1, 5), repeat=300)
    seen = set()
    for text in done.texts.to_list():
        for old, new in zip(TEXT, text.split(), strict=True):
            assert tag_of[new] == old.split("/")[1]
            seen.add((old, new))
    assert {("the/DT", "a"), ("a/DT", "the"), ("has/VB", "ends"), ("film/NN", "plot")} <= seen


def test_every_window_is_as_likely_as_another():
    """Also the last one, which the released code never draws."""
    n = 40_000
    starts, sizes = windows(np.full(n, 6), np.ones(n, bool), Rules(0, 0, 1, 2, 4), np.random.default_rng(5))
    assert chisquare([(sizes == size).sum() for size in (2, 3, 4)]).pvalue > 0.001
    for size, count in ((2, 5), (3, 4), (4, 3)):
        found = np.bincount(starts[sizes == size])
        assert len(found) == count and chisquare(found).pvalue > 0.001


def test_n_grams_are_taken_as_often_as_asked_and_kept_whole():
    n = 8000
    plain = [f"w{i}/X" for i in range(9)]
    done = rewritten([plain], Rules(0, 0, 0.25, 1, 5), repeat=n)
    words = [text.split() for text in done.texts.to_list()]
    cut = [index for index, text in enumerate(words) if len(text) < 9]
    assert binomtest(len(cut), n, 0.25).pvalue > 0.001
    assert np.flatnonzero(done.cut).tolist() == cut
    for index in cut:
        first = int(words[index][0][1:])
        assert words[index] == [f"w{first + i}" for i in range(len(words[index]))]
    assert {words[index][-1] for index in cut} == {f"w{i}" for i in range(9)}


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 6), st.integers(0, 6), st.integers(0, 2**32))
def test_windows_lie_within_the_text(length, shortest, more, seed):
    rules = Rules(0, 0, 1, shortest, shortest + more)
    starts, sizes = windows(np.full(20, length), np.ones(20, bool), rules, np.random.default_rng(seed))
    assert starts.min() >= 0 and (starts + sizes).max() <= length
    assert min(length, shortest) <= sizes.min() <= sizes.max() <= min(length, shortest + more)


@pytest.mark.parametrize("rules", [Rules(1, 0, 0, 1, 5), Rules(0, 1, 1, 1, 1)])
def test_texts_without_words(rules):
    assert rewritten([[], [], []], rules).texts.to_list() == ["", "", ""]
    assert rewritten([[], ["a/DT"], []], rules).texts.to_list() in (["", "a", ""], ["", "[MASK]", ""])
    assert rewritten([], rules).texts.to_list() == []


def test_white_space_between_words_is_kept_and_the_ends_are_stripped():
    vocabulary, spaces = pl.Series(["Do", "n't", "go", "\u00e9"]), ["", "  ", "\t"]
    gaps, tags = np.array([0, 1, 2, 1]), np.zeros(4, np.int64)
    words = TaggedWords(np.array([0, 4]), np.arange(4), gaps, tags, vocabulary, spaces, ["X"])
    unigrams = unigrams_of([["go/X"]])
    whole = Rewriter(words, unigrams, NOTHING).rewrite(np.array([0]), np.array([True]), np.random.default_rng(1))
    assert whole.texts.to_list() == ["Don't  go\t\u00e9"]
    often = np.zeros(50, int), np.ones(50, bool)
    cut = Rewriter(words, unigrams, Rules(0, 0, 1, 2, 2)).rewrite(*often, np.random.default_rng(1))
    assert set(cut.texts.to_list()) == {"Don't", "n't  go", "go\t\u00e9"}


def test_draws_from_the_distribution_of_the_tag():
    nouns = [("NN", "film", 5), ("NN", "plot", 3), ("NN", "zoo", 2)]
    drawer = Unigrams(counts([("DT", "a", 30), ("DT", "the", 70), *nouns]))
    tags = np.tile([1, 0], 20_000)
    drawn = drawer.words.to_numpy()[drawer.draw(tags, ["DT", "NN"], np.random.default_rng(7).random(40_000))]
    for tag, expected in ((0, {"a": 0.3, "the": 0.7}), (1, {"film": 0.5, "plot": 0.3, "zoo": 0.2})):
        found = Counter(drawn[tags == tag])
        assert set(found) == set(expected)
        frequencies = [found[word] for word in expected]
        assert chisquare(frequencies, [20_000 * share for share in expected.values()]).pvalue > 0.001


@pytest.mark.parametrize(("uniform", "word"), [(0.0, "film"), (0.4999, "film"), (0.5, "plot"), (1.0, "plot")])
def test_ends_of_the_range_stay_within_the_tag(uniform, word):
    drawer = Unigrams(counts([("DT", "a", 1), ("NN", "film", 1), ("NN", "plot", 1), ("VB", "go", 1)]))
    assert drawer.words[int(drawer.draw(np.array([0]), ["NN"], np.array([uniform]))[0])] == word
