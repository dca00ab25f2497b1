"""The student's vocabulary: words as BERT's basic tokenisation cuts them, and texts as their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from kdcli.api import MASK
from kdcli.errors import DataError
from kdcli.tables.strings import scalar

FILE = "tokenizer.json"
PAD = "[PAD]"
SPECIAL = (PAD, MASK)
"""The first ids. MASK stands for every word that has no id too: a student that was distilled on masked texts has
learned to do without the word there, while a sign for unknown words would be one that it has never seen."""

_REMEMBERED = 1_000_000
"""Pieces of text whose word ids are remembered: a bound on memory."""


@dataclass(frozen=True)
class Texts:
    """Texts as word ids, one after the other; every text has at least one.

    Attributes:
        words: ``uint16`` or ``uint32 [all words]``.
        offsets: Where each text begins, and where the last ends, ``int64 [texts + 1]``.
    """

    words: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """The words of each text, ``int32 [texts]``."""
        return np.diff(self.offsets).astype(np.int32)


def train_vocabulary(
    texts: Iterable[pa.Array], *, max_size: int, min_freq: int, lowercase: bool, more: Iterable[str] = ()
) -> Tokenizer:
    """Make a tokenizer whose vocabulary holds the most frequent words, and others as far as there is room.

    Words of the same frequency are taken in the order of their characters.

    Args:
        texts: The texts, in arrays of strings.
        max_size: The largest number of words, the special ones included.
        min_freq: The occurrences that a word needs.
        lowercase: Take upper and lower case, and letters with and without accents, for the same.
        more: Words that are not in the texts, the most wanted first; what is not one word, or but a letter, is passed
            over.

    Raises:
        DataError: There is no word.
    """
    normalizer, pre_tokenizer = BertNormalizer(lowercase=lowercase), BertPreTokenizer()
    pieces: Counter[str] = Counter()
    for array in texts:
        for piece in pc.value_counts(_pieces(array, without=MASK).flatten()).to_pylist():
            pieces[piece["values"]] += piece["counts"]
    counts: Counter[str] = Counter()
    for text, count in pieces.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)):
            counts[word] += count
    if not counts:
        raise DataError("the texts hold no word", hint="at least one text must not be empty")
    frequent = sorted((-count, word) for word, count in counts.items() if count >= min_freq)
    words = dict.fromkeys([*SPECIAL, *(word for _, word in frequent)][: max(max_size, len(SPECIAL))])
    others = iter(more)
    while len(words) < max_size and (other := next(others, None)) is not None:
        word = normalizer.normalize_str(other)
        if len(word) > 1 and len(pre_tokenizer.pre_tokenize_str(word)) == 1:
            words.setdefault(word)
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=MASK))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_special_tokens([MASK])
    return tokenizer


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Return the words in the order of their ids."""
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


class TextEncoder:
    """Turns texts into word ids; a text without words becomes one masked word, a long one is cut.

    It gives what ``tokenizer.encode`` gives for each text, many times faster: a space always ends a word, so only the
    different pieces between spaces pass through the tokenizer, each of them once.

    Args:
        tokenizer: The student's.
        max_length: The most words that are kept of a text.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        # Nothing of the tokenizer's changes or cuts these.
        ids = tokenizer.get_vocab(with_added_tokens=False)
        self._known = {
            word: [number] for word, number in ids.items() if word.isascii() and word.isalnum() and word == word.lower()
        }

    def encode(self, texts: pa.Array) -> Texts:
        """Encode an array of strings; a null is an empty text."""
        lists = _pieces(texts)
        pieces = lists.flatten().dictionary_encode()
        ids = self._ids(pieces.dictionary.to_pylist())
        sizes = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = np.fromiter(chain.from_iterable(ids), np.int64, int(sizes.sum()))
        which, offsets = np.from_dlpack(pieces.indices), np.from_dlpack(lists.offsets)  # to_numpy imports pandas
        words = flat[spans((np.cumsum(sizes) - sizes)[which], sizes[which])]
        ends = np.concatenate([[0], np.cumsum(sizes[which])])[offsets - offsets[0]]
        counts = np.diff(ends)
        # A text without words is pointed at a word behind all others.
        words = np.append(words, SPECIAL.index(MASK))
        begins = np.where(counts == 0, len(words) - 1, ends[:-1])
        lengths = np.clip(counts, 1, self.max_length)
        chosen = words[spans(begins, lengths)].astype(word_type(self.tokenizer))
        return Texts(chosen, np.concatenate([[0], np.cumsum(lengths)]))

    def encode_one(self, text: str) -> list[int]:
        """Encode one text, sooner than an array of one would be."""
        words = list(chain.from_iterable(self._ids(text.split(" "))))
        return words[: self.max_length] or [SPECIAL.index(MASK)]

    def _ids(self, pieces: list[str]) -> list[list[int]]:
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        new = [piece for piece in pieces if piece not in self._known]
        encodings = self.tokenizer.encode_batch_fast(new, add_special_tokens=False)
        self._known.update((piece, encoding.ids) for piece, encoding in zip(new, encodings, strict=True))
        return [self._known[piece] for piece in pieces]


def word_type(tokenizer: Tokenizer) -> np.dtype[Any]:
    """Return the smallest type that holds the tokenizer's ids."""
    return np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` into a folder."""
    (folder / FILE).write_text(tokenizer.to_str(pretty=True) + "\n", "utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read ``tokenizer.json`` of an encoded set or of a student.

    Raises:
        DataError: It is missing or broken.
    """
    try:
        return Tokenizer.from_str((folder / FILE).read_text("utf-8"))
    except Exception as error:  # the library raises nothing narrower
        hint = "have its folder written, or copied, again"
        raise DataError(f"the tokenizer cannot be read: {error}", file=folder / FILE, hint=hint) from error


def spans(begins: NDArray[np.int64], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Return the indices begins[0], begins[0] + 1, ... (lengths[0] of them), begins[1], ... in one array."""
    lengths = lengths.astype(np.int64)
    return np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())


def _pieces(texts: pa.Array, without: str = "") -> pa.ListArray:
    """Cut texts at spaces, and where the word is that is to be left out."""
    filled = pc.fill_null(texts.cast(pa.string()), scalar(""))
    return pc.split_pattern(pc.replace_substring(filled, without, " ") if without else filled, " ")
