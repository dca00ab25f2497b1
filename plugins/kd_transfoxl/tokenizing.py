"""Texts as words, and words as tokens.

Hyphens inside words, and commas and points inside numbers, are words of their own, as in WikiText-103: ``1,000
well-known`` is ``1 @,@ 000 well @-@ known``. ``join`` puts them back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kd_transfoxl.vocabulary import END, FILE, UNKNOWN, Vocabulary, count_vocabulary, read_vocabulary
from kdcli.api import DataError, MissingError

Words = Literal["moses", "whitespace"]
"""How texts are split: by the rules of Moses; or at white space, where they are tokenised already."""
CONFIG = "tokenizer_config.json"

_INSIDE_WORDS = re.compile(r"(?<=[^\W_])-(?=[^\W_])|(?<=\d)[,.](?=\d)")
_INSIDE_NUMBERS = re.compile(r"(?<=\d)[,.](?=\d)")
_SIGN = re.compile(r" ?(?<!\S)@([-,.])@(?!\S) ?")
_ALONE = re.compile(r"(?<!\S)[,.;:?!](?!\S)")
_ATTACHED = re.compile(r"\w[,.;:?!](?!\S)")


def split(text: str, words: Words) -> list[str]:
    """Split a text into words, as in WikiText-103; the rules of Moses also normalise quotes and other punctuation."""
    if words == "whitespace":
        return _INSIDE_WORDS.sub(r" @\g<0>@ ", text).split()
    moses = _moses()
    tokenized = moses.tokenizer.tokenize(
        moses.normalizer.normalize(text.strip()),
        aggressive_dash_splits=True,
        return_str=True,
        escape=False,
        protected_patterns=["<eos>", "<unk>", "<formula>"],
    )
    return _INSIDE_NUMBERS.sub(r" @\g<0>@ ", tokenized).split()


def join(words: Iterable[str], rules: Words) -> str:
    """Join the words that ``split`` returns.

    With ``whitespace`` the result is the text, with one space between words, but for signs (``@-@``) that stood in it
    already. ``moses`` attaches punctuation to words.
    """
    text = _SIGN.sub(r"\1", " ".join(words))
    return text if rules == "whitespace" else _moses().detokenizer.detokenize(text.split(" "))


def detect_words(texts: Iterable[str]) -> Words:
    """Return ``whitespace`` if most punctuation of the texts stands alone: they are tokenised already, and stay so.

    Otherwise a student would see different words in the samples: ``doesn't`` in place of ``does n't``.
    """
    alone = attached = 0
    for text in texts:
        alone += len(_ALONE.findall(text))
        attached += len(_ATTACHED.findall(text))
    return "whitespace" if alone > attached else "moses"


class WordTokenizer:
    """Texts as the ids of their words, with the methods of a Hugging Face tokenizer that ``kdcli.lm`` needs.

    A tab is ``<eos>``, which also ends a text. A word outside the vocabulary is ``<unk>``, and so is one that spells
    ``<eos>``.
    """

    def __init__(self, vocabulary: Vocabulary, words: Words) -> None:
        self.vocabulary = vocabulary
        self.words = words
        self._ids = self.get_vocab()
        self.eos_token_id = self._ids.pop(END)
        self.unk_token_id = self._ids[UNKNOWN]

    @classmethod
    def train(
        cls, texts: Sequence[str], words: Words, *, min_freq: int = 1, max_size: int | None = None
    ) -> WordTokenizer:
        """Count the words of texts; see ``count_vocabulary``."""
        sides = chain.from_iterable(text.split("\t") for text in texts)
        counted = chain.from_iterable(split(side, words) for side in sides)
        return cls(count_vocabulary(counted, min_freq=min_freq, max_size=max_size), words)

    @classmethod
    def from_pretrained(cls, folder: Path, words: Words | None = None) -> WordTokenizer:
        """Read the files of ``save_pretrained``, or the vocabulary of a published model, which has Moses's words."""
        vocabulary, config = read_vocabulary(folder), _read_config(folder / CONFIG)
        lower_case = bool(config.get("lower_case", vocabulary.lower_case))
        return cls(Vocabulary(vocabulary.words, lower_case), words or config.get("words", "moses"))

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write ``vocab.txt`` and ``tokenizer_config.json`` into a folder."""
        config = {"words": self.words, "lower_case": self.vocabulary.lower_case}
        Path(folder, CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8", newline="\n")
        Path(folder, FILE).write_text("\n".join(self.vocabulary.words) + "\n", "utf-8", newline="\n")

    def __len__(self) -> int:
        return len(self.vocabulary.words)

    def get_vocab(self) -> dict[str, int]:
        """Return the id of each word."""
        return {word: number for number, word in enumerate(self.vocabulary.words)}

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        """Return ``input_ids``: the tokens of each text, without the ``<eos>`` that ends it."""
        return {"input_ids": [self._encode(text) for text in texts]}

    def batch_decode(self, rows: Sequence[Sequence[int] | NDArray[np.integer]], **_: Any) -> list[str]:
        """Decode several texts; see ``decode``."""
        return [self.decode(row) for row in rows]

    def decode(self, tokens: Sequence[int] | NDArray[np.integer], **_: Any) -> str:
        """Return the text of tokens; each ``<eos>`` is a tab."""
        sides: list[list[str]] = [[]]
        for token in np.asarray(tokens).tolist():
            if token == self.eos_token_id:
                sides.append([])
            else:
                sides[-1].append(self.vocabulary.words[token])
        return "\t".join(join(side, self.words) for side in sides)

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = []
        for side in text.split("\t"):
            side = side.lower() if self.vocabulary.lower_case else side
            tokens += [self._ids.get(word, self.unk_token_id) for word in split(side, self.words)]
            tokens.append(self.eos_token_id)
        return tokens[:-1]


@cache
def _moses() -> SimpleNamespace:
    try:
        from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer
    except ImportError as error:
        key, hint = "generators.transfoxl.words", "pip install sacremoses"
        raise MissingError("the rules of Moses need sacremoses, which is not installed", hint=hint, key=key) from error
    return SimpleNamespace(
        normalizer=MosesPunctNormalizer("en"), tokenizer=MosesTokenizer("en"), detokenizer=MosesDetokenizer("en")
    )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
        if config.get("words", "moses") not in ("moses", "whitespace"):
            raise ValueError(f"words = {config['words']!r}")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"the tokenizer's configuration cannot be read: {error}", file=path) from error
    return dict(config)
