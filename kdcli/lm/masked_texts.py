"""Texts with words masked, as a masked language model learns and fills them (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kdcli.lm.texts import IGNORED, TokenRows


class MaskedTexts:
    """Texts as tokens, with a share of the words masked: whole words, all their tokens.

    The tokenizer defines words: BERT's end at white space and at punctuation. All tokens of a masked word become the
    mask token; there are none of BERT's random and unchanged ones, which prepare a model for texts without masks.

    The texts of a pair have a tab between them, and are encoded as the tokenizer (a fast one) encodes two. With a seed,
    masks are drawn anew in each epoch. At least one word of each text is masked.

    Attributes:
        whole: ``bool [texts]``, whether a text is read to its end, at most ``max_length`` tokens.
        tokens: ``int32 [tokens]``, those of all texts, one after the other, before any is masked.
        words: ``int64 [texts]``, the words of each text.
    """

    def __init__(
        self, texts: Sequence[str], tokenizer: Any, max_length: int, seed: int | None = None, *, share: float = 0.2
    ) -> None:
        self.texts = texts
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.seed = seed
        self.share = share
        self._read()
        self.start(0)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``int64 [texts]``: tokens of each text, special ones included."""
        return self.rows.lengths

    def start(self, epoch: int) -> None:
        """Mask the texts as they are learned in this epoch."""
        random = np.random.default_rng((self.seed or 0, epoch if self.seed is not None else 0))
        self.mask(random.random(len(self)), random.random(int(self.words.sum())))

    def mask(self, rounding: NDArray[np.float64], keys: NDArray[np.float64]) -> None:
        """Mask the words with the lowest keys of each text.

        Args:
            rounding: ``[texts]`` in [0, 1), which rounds a share that is not a whole number of words up or down, so
                that the share is right on average.
            keys: ``[words]``, those of all texts one after the other.
        """
        masked_words = np.maximum((self.share * self.words + rounding).astype(np.int64), 1)
        text = np.repeat(np.arange(len(self)), self.words)
        rank = np.arange(len(text)) - np.repeat(self.words.cumsum() - self.words, self.words)
        chosen = np.zeros(len(text) + 1, bool)  # the last stands for tokens outside words
        chosen[np.lexsort((keys, text))] = rank < masked_words[text]
        self.masked = chosen[self.word]
        hidden = np.int32(self.tokenizer.mask_token_id)
        self.rows.fields["input_ids"] = np.where(self.masked, hidden, self.tokens)
        self.rows.fields["labels"] = np.where(self.masked, self.tokens, np.int32(IGNORED))

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the model's inputs and ``labels``, each ``int64 [rows, time]``, padded on the right."""
        return self.rows.batch(rows)

    def filled(self, tokens: NDArray[np.integer]) -> list[str]:
        """Return the texts with the words of ``tokens [tokens]`` for the masked ones, and all else as it is written."""
        sides = [text.split("\t", 1) for text in self.texts]
        masked = np.flatnonzero(self.masked)
        words = np.split(masked, np.flatnonzero(np.diff(self.word[masked])) + 1) if len(masked) else []
        for word in reversed(words):  # from the back, so that spans before it stay valid
            text, side = self._text[word[0]], self._side[word[0]]
            line, start, end = sides[text][side], self._spans[word, 0].min(), self._spans[word, 1].max()
            new = self.tokenizer.decode(tokens[word], clean_up_tokenization_spaces=False).strip()
            blank = line[start:end][: -len(line[start:end].lstrip()) or None]
            sides[text][side] = f"{line[:start]}{blank}{new}{line[end:]}"
        return ["\t".join(side) for side in sides]

    def _read(self) -> None:
        """Encode the texts, number the words, and find their characters."""
        encodings = self._encode()
        tokens = _flat((encoding.ids for encoding in encodings), np.int32)
        types = _flat((encoding.type_ids for encoding in encodings), np.int32)
        side = _flat(map(_number, encoding.sequence_ids) for encoding in encodings)
        word = _flat(map(_number, encoding.word_ids) for encoding in encodings)
        spans = _flat(chain.from_iterable(encoding.offsets) for encoding in encodings).reshape(-1, 2)
        lengths = np.array([len(encoding.ids) for encoding in encodings], np.int64)
        text = np.repeat(np.arange(len(lengths)), lengths)
        written = np.flatnonzero((side >= 0) & (spans[:, 0] < spans[:, 1]))  # not special, not only white space
        # Words of the tokenizer that share a character are one word here, since they are written as one.
        apart = spans[written, 0] >= np.concatenate([[0], spans[written, 1]])[:-1]
        another = (np.diff(text[written], prepend=-1) != 0) | (np.diff(side[written], prepend=-1) != 0)
        first = another | (apart & (np.diff(word[written], prepend=-1) != 0))
        self.tokens, self._text, self._side, self._spans = tokens, text, side, spans
        self.word = np.full(len(tokens), -1)
        self.word[written] = first.cumsum() - 1
        self.words = np.bincount(text[written][first], minlength=len(lengths))
        self.whole = np.array([not encoding.overflowing for encoding in encodings], bool)
        typed = "token_type_ids" in self.tokenizer.model_input_names
        fields = {"input_ids": tokens, "labels": tokens} | ({"token_type_ids": types} if typed else {})
        padding = {"input_ids": self.tokenizer.pad_token_id or 0, "labels": IGNORED, "token_type_ids": 0}
        self.rows = TokenRows(fields, padding, np.concatenate([[0], lengths.cumsum()]))

    def _encode(self) -> list[Any]:
        if not len(self.texts):
            return []
        sides = zip(*(text.split("\t", 1) for text in self.texts), strict=True)
        encoding = self.tokenizer(
            *map(list, sides),
            truncation=True,
            max_length=self.max_length,
            split_special_tokens=True,  # a text that spells [MASK] has no mask there
            verbose=False,
        )
        encodings: list[Any] = encoding.encodings
        return encodings


def masked_fit(nats: float, texts: MaskedTexts) -> dict[str, float]:
    """Return ``bits_per_masked_token`` of texts whose masked tokens, all of them masked at once, take ``nats``."""
    return {"bits_per_masked_token": nats / math.log(2) / max(int(texts.masked.sum()), 1)}


def masked_nats(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of each row's masked tokens, ``float32 [rows]``.

    ``logits`` are ``[rows, time, vocabulary]``, ``labels`` ``int64 [rows, time]``, ``IGNORED`` outside of masks.
    """
    rows, columns = (labels != IGNORED).nonzero(as_tuple=True)
    losses = functional.cross_entropy(logits[rows, columns].float(), labels[rows, columns], reduction="none")
    return torch.zeros(len(labels), device=losses.device).index_add(0, rows, losses)


def _number(value: int | None) -> int:
    return -1 if value is None else value


def _flat(values: Iterable[Iterable[int]], kind: type[Any] = np.int64) -> NDArray[Any]:
    return np.fromiter(chain.from_iterable(values), kind)
