"""The tagger of TextBlob's ``PatternTagger``: a lexicon and suffix rules, whose data lies inside the package.

A word's tag depends on the word, and on whether it opens the text (then its lower-case form counts too), so that
each word is tagged once and remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

api_version = 1

REMEMBERED = 200_000


def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Give each word of each text the Penn Treebank tag that TextBlob's ``PatternTagger`` gives it."""
    return [[_opening(words[0]), *map(_following, words[1:])] if words else [] for words in texts]


@lru_cache(maxsize=REMEMBERED)
def _opening(word: str) -> str:
    from textblob.en import parser

    return str(parser.find_tags([word])[0][1])


@lru_cache(maxsize=REMEMBERED)
def _following(word: str) -> str:
    from textblob.en import parser

    return str(parser.find_tags([".", word])[1][1])
