"""Texts as the tokens that a causal language model learns (Tang, Lu, Lin 2019, section on fine-tuning)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdcli.lm.rows import Rows

IGNORED = -100
"""The label of a token that is not predicted."""


class TokenTexts:
    """Texts as tokens, one text a sequence with the end-of-text token behind it.

    With a seed, each text is cut in two at a random character, anew in each epoch, and both pieces are encoded for
    themselves, so that the model learns to go on from a word that was cut. A text of more than ``max_length`` tokens
    is read up to there, and has no end.

    Args:
        texts: The texts.
        tokenizer: The model's tokenizer; its ``eos_token`` ends a text.
        max_length: The longest sequence in tokens, the end included.
        seed: Of the cuts; None leaves the texts whole. So they are, too, where the tokenizer puts a space before
            what it encodes, as some of SentencePiece's do and those of whole words: the cut would be in what the
            model learns.

    Attributes:
        seed: Of the cuts; None where texts stay whole.
        whole: ``bool [texts]``, whether a text is read to its end.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any, max_length: int, seed: int | None = None) -> None:
        self.texts = texts
        self.tokenizer = tokenizer
        self.max_length = max_length
        joins = self._decode([*chain(*self._encode(["hel", "lo"]))]) == "hello"
        self.seed = seed if joins else None
        self._read(0)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``int64 [texts]``: tokens of each text, its end included."""
        return self.rows.lengths

    def start(self, epoch: int) -> None:
        """Encode the texts as they are learned in this epoch; whole ones stay as they are."""
        if self.seed is not None:
            self._read(epoch)

    def _read(self, epoch: int) -> None:
        if self.seed is None:
            encoded = self._encode(self.texts)
        else:
            random = np.random.default_rng((self.seed, epoch)).random(len(self.texts))
            places = [int(share * len(text)) for share, text in zip(random, self.texts, strict=True)]
            heads = self._encode([text[:place] for place, text in zip(places, self.texts, strict=True)])
            tails = self._encode([text[place:] for place, text in zip(places, self.texts, strict=True)])
            encoded = [head + tail for head, tail in zip(heads, tails, strict=True)]
        end = self.tokenizer.eos_token_id
        read = [[*tokens, end][: self.max_length] for tokens in encoded]
        self.whole = np.array([len(tokens) < self.max_length for tokens in encoded], bool)
        offsets = np.cumsum([0, *map(len, read)], dtype=np.int64)
        tokens = np.fromiter(chain.from_iterable(read), np.int32, offsets[-1])
        labels = tokens.copy()
        labels[offsets[:-1]] = IGNORED  # the first token is given
        self.rows = Rows({"input_ids": tokens, "labels": labels}, {"input_ids": end, "labels": IGNORED}, offsets)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask`` and ``labels``, each ``int64 [rows, time]``, padded on the right."""
        return self.rows.batch(rows)

    def first(self) -> NDArray[np.int32]:
        """Return the first token of each text, ``int32 [texts]``."""
        first: NDArray[np.int32] = self.tokens[self.rows.offsets[:-1]]
        return first

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The tokens of all texts, one after the other."""
        return self.rows.fields["input_ids"]

    def read(self) -> list[str]:
        """Return the texts, each as far as it is read."""
        rows = zip(self.texts, self.whole, pairwise(self.rows.offsets), strict=True)
        return [text if whole else self._decode(self.tokens[start:end]) for text, whole, (start, end) in rows]

    def _decode(self, tokens: Sequence[int] | NDArray[np.int32]) -> str:
        text: str = self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        return text

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not len(texts):
            return []
        made = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,  # a text that says <|endoftext|> does not end there
            return_attention_mask=False,
            verbose=False,
        )
        encoded: list[list[int]] = made["input_ids"]
        return encoded
