"""The tagger of TextBlob's ``PatternTagger``: a lexicon and suffix rules, whose data lies inside the package.

A word's tag depends on the word, and on whether it opens the text (then its lower-case form counts too), so that
each word is tagged once and remembered.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

api_version = 2


def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Give each word of each text the Penn Treebank tag that TextBlob's ``PatternTagger`` gives it."""
    return [[_tag(word, number == 0) for number, word in enumerate(words)] for words in texts]


@lru_cache(maxsize=400_000)
def _tag(word: str, opens: bool) -> str:
    return _find_tags()([word] if opens else [".", word])[-1][1]


@lru_cache(maxsize=1)
def _find_tags() -> Callable[[list[str]], list[list[str]]]:
    """Load the module of TextBlob that tags, but not TextBlob: that brings NLTK, SciPy and scikit-learn, a second."""
    package: Any = find_spec("textblob")
    folder = Path(package.submodule_search_locations[0])
    spec: Any = spec_from_file_location("kd_taggers._textblob_text", folder / "_text.py")
    text = module_from_spec(spec)
    spec.loader.exec_module(text)
    lexicon = text.Lexicon(path=str(folder / "en" / "en-lexicon.txt"), language="en")
    return partial(text.find_tags, lexicon=lexicon, language="en")
