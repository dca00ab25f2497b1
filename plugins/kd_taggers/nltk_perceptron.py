"""NLTK's averaged perceptron: its model and its tags, for many texts at a time.

A perceptron tags from left to right, because the features of a word hold the two tags before it. But the texts do
not depend on each other, so the i-th words of all of them are tagged together: the weights of a feature are a row
of a matrix, and a word's scores are the sum of its rows, added in NLTK's order so that no rounding differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from kdcli.api import MissingError

if TYPE_CHECKING:
    import numpy as np
    from nltk.tag.perceptron import PerceptronTagger
    from numpy.typing import NDArray

    Rows = NDArray[np.int32]

api_version = 2

DATA = "averaged_perceptron_tagger_eng"  # NLTK's weights, which have to be there


class _Model(NamedTuple):
    """NLTK's weights as a matrix; a row stands for a feature, the last one (zeros) for all that are not there."""

    nltk: PerceptronTagger
    tags: list[str]  # the classes, then the two tags that stand before a text
    rows: dict[str, int]
    weights: NDArray[np.float64]  # [features + 1, classes]
    before: Rows  # [tag before]
    before2: Rows  # [tag two before]
    before_both: Rows  # [tag before, tag two before]
    pairs: dict[str, Rows]  # a word and the tag before it: [tag before]


class _Features(NamedTuple):
    """The different words of a call, and the rows of their features."""

    only_tag: Rows  # [words], -1 where the context decides
    rows: dict[str, Rows]  # feature name -> [words]
    pairs: Rows  # [words, tag before]


def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Give each word of each text the Penn Treebank tag that ``nltk.pos_tag`` gives it; see ``DATA``."""
    import numpy as np

    model = _model()
    ids: dict[str, int] = {}
    start, end = model.nltk.START, model.nltk.END
    tokens = [ids.setdefault(word, len(ids)) for text in texts for word in chain(start, text, end)]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    firsts = np.cumsum(lengths + 4) - lengths - 2
    tags = _tag_side_by_side(model, _look_up(model, ids), np.array(tokens, np.int32), firsts, lengths)
    names = np.array(model.tags, dtype=object)[tags]
    return [names[first : first + length].tolist() for first, length in zip(firsts, lengths, strict=True)]


def _tag_side_by_side(
    model: _Model, features: _Features, tokens: Rows, firsts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Rows:
    """Tag the i-th words of all texts, for one i after the other: ``[tokens]`` tag ids.

    ``tokens`` are word ids; each text stands between two start and two end words, and its own words, ``lengths`` of
    them, begin at ``firsts``.
    """
    import numpy as np

    tags = np.full(len(tokens), len(model.tags) - 1, dtype=np.int32)
    tags[firsts - 1] = len(model.tags) - 2  # nltk takes its two start tags the other way round than its start words
    order = np.argsort(-lengths, kind="stable")
    firsts, lengths = firsts[order], -lengths[order]
    bias = model.weights[model.rows.get("bias", len(model.rows))]
    for i in range(-int(lengths.min(initial=0))):
        here = firsts[: np.searchsorted(lengths, -i)] + i  # longest first: those that still have an i-th word
        only = features.only_tag[tokens[here]]
        tags[here] = only
        here = here[only < 0]
        word, last, next_ = tokens[here], tokens[here - 1], tokens[here + 1]
        before, before2 = tags[here - 1], tags[here - 2]
        found = (  # in nltk's order
            features.rows["i suffix"][word],
            features.rows["i pref1"][word],
            model.before[before],
            model.before2[before2],
            model.before_both[before, before2],
            features.rows["i word"][word],
            features.pairs[word, before],
            features.rows["i-1 word"][last],
            features.rows["i-1 suffix"][last],
            features.rows["i-2 word"][tokens[here - 2]],
            features.rows["i+1 word"][next_],
            features.rows["i+1 suffix"][next_],
            features.rows["i+2 word"][tokens[here + 2]],
        )
        scores = np.broadcast_to(bias, (len(here), len(bias))).copy()
        for rows in found:
            scores += model.weights[rows]
        tags[here] = scores.argmax(axis=1)
    return tags


def _look_up(model: _Model, ids: Iterable[str]) -> _Features:
    """Find the rows of the features of each word."""
    import numpy as np

    none = len(model.rows)
    tag_ids = {name: i for i, name in enumerate(model.tags)}
    edges = {*model.nltk.START, *model.nltk.END}
    normal = [word if word in edges else model.nltk.normalize(word) for word in ids]

    def rows(name: str, values: Sequence[str]) -> Rows:
        return np.array([model.rows.get(f"{name} {value}", none) for value in values], dtype=np.int32)

    endings = [word[-3:] for word in normal]
    by_name = {name: rows(name, normal) for name in ("i word", "i-1 word", "i-2 word", "i+1 word", "i+2 word")}
    by_name |= {name: rows(name, endings) for name in ("i-1 suffix", "i+1 suffix")}
    by_name |= {"i suffix": rows("i suffix", [word[-3:] for word in ids])}
    by_name |= {"i pref1": rows("i pref1", [word[:1] for word in ids])}
    no_pairs = np.full(len(model.tags), none, dtype=np.int32)
    pairs = np.stack([model.pairs.get(word, no_pairs) for word in normal]) if normal else no_pairs[None]
    only = [tag_ids[name] if (name := model.nltk.tagdict.get(word)) else -1 for word in ids]
    return _Features(np.array(only, dtype=np.int32), by_name, pairs)


@lru_cache(maxsize=1)
def _model() -> _Model:
    import numpy as np
    from nltk.tag.perceptron import PerceptronTagger

    try:
        nltk = PerceptronTagger()
    except LookupError as error:
        what = f"the tagger nltk needs the data {DATA}, which NLTK does not find"
        hint = f"python -m nltk.downloader {DATA}, or set NLTK_DATA to the folder it is in, or take the tagger pattern"
        raise MissingError(what, hint=hint) from error
    # nltk gives a tie to the tag that is last in the alphabet, argmax to the first column.
    tags = sorted(nltk.classes, reverse=True)
    column = {name: i for i, name in enumerate(tags)}
    rows = {feature: row for row, feature in enumerate(nltk.model.weights)}
    weights = np.zeros((len(rows) + 1, len(tags)))
    for row, by_tag in enumerate(nltk.model.weights.values()):
        for name, weight in by_tag.items():
            weights[row, column[name]] = weight
    nltk.model.weights = {}  # tens of thousands of dicts that the garbage collector would visit again and again
    tags += nltk.START
    none = len(rows)
    pairs: dict[str, Rows] = {}
    place = {name: i for i, name in enumerate(tags)}
    for feature, row in rows.items():
        if feature.startswith("i-1 tag+i word "):
            name, word = feature.removeprefix("i-1 tag+i word ").split(" ", 1)
            pairs.setdefault(word, np.full(len(tags), none, dtype=np.int32))[place[name]] = row

    def of_tags(name: str) -> Rows:
        return np.array([rows.get(f"{name} {tag}", none) for tag in tags], dtype=np.int32)

    both = np.stack([of_tags(f"i tag+i-2 tag {tag}") for tag in tags])
    return _Model(nltk, tags, rows, weights, of_tags("i-1 tag"), of_tags("i-2 tag"), both, pairs)
