"""NLTK's averaged perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from kdcli.api import MissingError

if TYPE_CHECKING:
    from nltk.tag.perceptron import PerceptronTagger

api_version = 2

DATA = "averaged_perceptron_tagger_eng"  # NLTK's weights, which have to be there


def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Give each word of each text the Penn Treebank tag that ``nltk.pos_tag`` gives it; see ``DATA``."""
    tagger = _tagger()
    return [[tag for _, tag in tagger.tag(words)] for words in texts]


@lru_cache(maxsize=1)
def _tagger() -> PerceptronTagger:
    from nltk.tag.perceptron import PerceptronTagger

    try:
        return PerceptronTagger()
    except LookupError as error:
        what = f"the tagger nltk needs the data {DATA}, which NLTK does not find"
        hint = f"python -m nltk.downloader {DATA}, or set NLTK_DATA to the folder it is in, or take the tagger pattern"
        raise MissingError(what, hint=hint) from error
