"""A part-of-speech tagger that knows words by what they look like."""

import re
from collections.abc import Sequence

api_version = 2

RULES = {
    r"\W+": "SYM",
    r"[\d.,]*\d[\d.,]*": "CD",
    r"the|an?|this|that|these|those": "DT",
    r".+ly": "RB",
    r".+ing": "VBG",
    r".+ed": "VBD",
    r".+(ous|ful|less|ive|able|ible|al|ic|ish)": "JJ",
    r".+[^sui]s": "NNS",
}
"""The tag of each form; the first rule that a whole word meets holds."""


def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Give each word of each text its tag, by the word alone."""
    return [[tag_of(word.lower()) for word in words] for words in texts]


def tag_of(word: str) -> str:
    """Return a word's tag: by the rules, else a noun."""
    return next((tag for rule, tag in RULES.items() if re.fullmatch(rule, word)), "NN")
