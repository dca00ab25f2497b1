"""A part-of-speech tagger of a lexicon and a few rules: small, quick, and the same on every machine."""

from __future__ import annotations

import re
from collections.abc import Sequence

api_version = 2

LEXICON = {
    "CC": "and or but nor yet",
    "DT": "the a an this that these those every each some any no",
    "IN": "of in on at by for with from as into than like about over if because while",
    "MD": "can could may might must shall should will would",
    "PRP": "i you he she it we they me him her us them",
    "PRP$": "my your his its our their",
    "RB": "not n't never very too so as just only even still here there",
    "TO": "to",
    "VB": "be have do",
    "VBD": "was were had did",
    "VBP": "am are",
    "VBZ": "is has does 's",
    "WP": "who what whom",
}
"""The frequent words of each tag of the Penn Treebank."""
RULES = {
    r"[.!?]+": ".",
    r"[,;:()'\"`-]+": ",",
    r"\W+": "SYM",
    r"[\d.,]*\d[\d.,]*": "CD",
    r".+ly": "RB",
    r".+ing": "VBG",
    r".+ed": "VBD",
    r".+(ous|ful|less|ive|able|ible|al|ic|ish)": "JJ",
    r".+est": "JJS",
    r".+[^sui]s": "NNS",
}
"""What the other words look like; the first rule that a whole word meets holds."""

TAGS = {word: tag for tag, words in LEXICON.items() for word in words.split()}


def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Give each word of each text its tag, by the word alone."""
    return [[tag_of(word) for word in words] for words in texts]


def tag_of(word: str) -> str:
    """Return a word's tag: from the lexicon, else a proper noun, else by the rules."""
    lower = word.lower()
    name = "NNP" if word[:1].isupper() and not word.isupper() else None
    return TAGS.get(lower) or name or next((tag for rule, tag in RULES.items() if re.fullmatch(rule, lower)), "NN")
