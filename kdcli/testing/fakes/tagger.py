"""A tagger that tells numbers, words and signs apart."""

from __future__ import annotations

from collections.abc import Sequence

from kdcli.api import API_VERSION

api_version = API_VERSION


def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Give each word of each text its tag."""
    return [[_tag(word) for word in words] for words in texts]


def _tag(word: str) -> str:
    return "CD" if word.isdecimal() else "NN" if word.isalpha() else "SYM"
