"""NLTK's averaged perceptron: its model and its tags, for many texts at a time.

A perceptron tags from left to right, because the features of a word hold the two tags before it. But the texts do
not depend on each other, so the i-th words of all of them are tagged together: the weights of a feature are a row
of a matrix, and a word's scores are the sum of its rows, added in NLTK's order so that no rounding differs.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdcli.api import MissingError

Rows = NDArray[np.int32]
Places = NDArray[np.int64]

api_version = 2

DATA = "averaged_perceptron_tagger_eng"  # NLTK's weights, which have to be there


class _Model(NamedTuple):
    """NLTK's weights as a matrix; a row stands for a feature, the last one (zeros) for all that are not there."""

    nltk: Any  # its ``PerceptronTagger``
    tags: list[str]  # the classes, then the two tags that stand before a text
    rows: dict[str, int]
    weights: NDArray[np.float64]  # [features + 1, classes]
    pairs: dict[str, Rows]  # a word and the tag before it: [tag before]


def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Give each word of each text the Penn Treebank tag that ``nltk.pos_tag`` gives it; see ``DATA``."""
    model = _model()
    ids: dict[str, int] = {}
    start, end = model.nltk.START, model.nltk.END
    numbers = [ids.setdefault(word, len(ids)) for text in texts for word in chain(start, text, end)]
    tokens = np.array(numbers, np.int32)
    lengths = np.array([len(text) for text in texts], np.int64)
    firsts = np.cumsum(lengths + 4) - lengths - 2  # where the words of each text begin
    tags = np.full(len(tokens), len(model.tags) - 1, np.int32)
    tags[firsts - 1] = len(model.tags) - 2  # nltk takes its two start tags the other way round than its start words
    tag_ids = {name: number for number, name in enumerate(model.tags)}
    only = np.array([tag_ids[name] if (name := model.nltk.tagdict.get(word)) else -1 for word in ids], np.int32)
    score = _scores(model, tokens, tags, list(ids))
    order = np.argsort(-lengths, kind="stable")
    starts, sizes = firsts[order], -lengths[order]
    for i in range(int(lengths.max(initial=0))):
        here = starts[: np.searchsorted(sizes, -i)] + i  # longest first: those that still have an i-th word
        tags[here] = only[tokens[here]]
        here = here[tags[here] < 0]  # the context decides
        tags[here] = score(here).argmax(axis=1)
    names = np.array(model.tags, dtype=object)[tags]
    return [names[first : first + length].tolist() for first, length in zip(firsts, lengths, strict=True)]


def _scores(model: _Model, tokens: Rows, tags: Rows, words: Sequence[str]) -> Callable[[Places], NDArray[np.float64]]:
    """Return a function from places in ``tokens``, which are ids of ``words``, to the scores ``[places, classes]``."""
    none = len(model.rows)
    edges = {*model.nltk.START, *model.nltk.END}
    normal = [word if word in edges else model.nltk.normalize(word) for word in words]
    endings = [word[-3:] for word in normal]

    def rows(name: str, values: Sequence[str]) -> Rows:
        return np.array([model.rows.get(f"{name} {value}", none) for value in values], np.int32)

    suffix, prefix = rows("i suffix", [word[-3:] for word in words]), rows("i pref1", [word[:1] for word in words])
    word, word_1, word_2 = (rows(f"i{place} word", normal) for place in ("", "-1", "-2"))
    next_1, next_2 = (rows(f"i+{place} word", normal) for place in (1, 2))
    suffix_1, next_suffix = (rows(f"i{place} suffix", endings) for place in ("-1", "+1"))
    tag_1, tag_2 = (rows(f"i-{place} tag", model.tags) for place in (1, 2))
    both = np.stack([rows(f"i tag+i-2 tag {tag}", model.tags) for tag in model.tags])
    no_pairs = np.full(len(model.tags), none, np.int32)
    pairs = np.stack([model.pairs.get(one, no_pairs) for one in normal]) if normal else no_pairs[None]
    bias = model.weights[model.rows.get("bias", none)]

    def scores(here: Places) -> NDArray[np.float64]:
        own, last, following = tokens[here], tokens[here - 1], tokens[here + 1]
        before, before_2 = tags[here - 1], tags[here - 2]
        found = (  # in nltk's order
            *(suffix[own], prefix[own], tag_1[before], tag_2[before_2], both[before, before_2], word[own]),
            *(pairs[own, before], word_1[last], suffix_1[last], word_2[tokens[here - 2]]),
            *(next_1[following], next_suffix[following], next_2[tokens[here + 2]]),
        )
        result = np.broadcast_to(bias, (len(here), len(bias))).copy()
        for one in found:
            result += model.weights[one]
        return result

    return scores


@lru_cache(maxsize=1)
def _model() -> _Model:
    from nltk.tag.perceptron import PerceptronTagger

    try:
        nltk = PerceptronTagger()
    except LookupError as error:
        what = f"the tagger nltk needs the data {DATA}, which NLTK does not find"
        hint = f"python -m nltk.downloader {DATA}, or set NLTK_DATA to the folder it is in, or take the tagger pattern"
        raise MissingError(what, hint=hint) from error
    # nltk gives a tie to the tag that is last in the alphabet, argmax to the first column.
    tags = [*sorted(nltk.classes, reverse=True), *nltk.START]
    column = {name: i for i, name in enumerate(tags)}
    rows = {feature: row for row, feature in enumerate(nltk.model.weights)}
    weights = np.zeros((len(rows) + 1, len(nltk.classes)))
    pairs: dict[str, Rows] = {}
    for row, (feature, by_tag) in enumerate(nltk.model.weights.items()):
        for name, weight in by_tag.items():
            weights[row, column[name]] = weight
        if feature.startswith("i-1 tag+i word "):
            name, word = feature.removeprefix("i-1 tag+i word ").split(" ", 1)
            pairs.setdefault(word, np.full(len(tags), len(rows), np.int32))[column[name]] = row
    nltk.model.weights = {}  # tens of thousands of dicts that the garbage collector would visit again and again
    return _Model(nltk, tags, rows, weights, pairs)
