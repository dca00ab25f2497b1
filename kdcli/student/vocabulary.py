"""The student's vocabulary: words as BERT's basic tokenisation cuts them, and texts as their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from kdcli.api import MASK
from kdcli.errors import DataError
from kdcli.student.batches import Texts, spans

if TYPE_CHECKING:
    import polars as pl

FILE = "tokenizer.json"
SPECIAL = ("[PAD]", MASK)
"""The first ids. MASK also stands for every word outside the vocabulary: a student that was distilled on masked texts
has learned to do without a masked word, and has never seen a special word for unknown ones."""
UNKNOWN = SPECIAL.index(MASK)

_REMEMBERED = 1_000_000
"""Pieces of text whose ids are cached: a bound on memory."""


def train_vocabulary(
    texts: Iterable[pl.Series], *, max_size: int, min_freq: int, lowercase: bool, more: Iterable[str] = ()
) -> Tokenizer:
    """Make a tokenizer of the most frequent words, and of other words as far as there is room.

    Words of the same frequency are taken in the order of their characters. ``max_size`` includes the special words;
    ``more`` are words that are not in the texts, the most wanted first. Single letters among these, and what is not one
    word, are skipped. Texts without any word are a ``DataError``.
    """
    normalizer, pre_tokenizer = BertNormalizer(lowercase=lowercase), BertPreTokenizer()
    pieces: Counter[str] = Counter()
    for column in texts:
        split = column.drop_nulls().str.replace_all(MASK, " ", literal=True).str.split(" ").explode()
        for piece, count in split.value_counts().iter_rows():
            pieces[piece] += count
    counts: Counter[str] = Counter()
    for piece, count in pieces.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(piece)):
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

    It equals ``tokenizer.encode`` of each text, many times faster: a space always ends a word, so each different piece
    between spaces goes through the tokenizer once.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.dtype = word_type(tokenizer.get_vocab_size())
        # The tokenizer neither changes nor cuts these words.
        ids = tokenizer.get_vocab(with_added_tokens=False)
        self._known = {
            word: [number] for word, number in ids.items() if word.isascii() and word.isalnum() and word == word.lower()
        }

    def encode(self, texts: pl.Series) -> Texts:
        """Encode a column of texts; a null is an empty text."""
        import polars as pl  # costs more than a few texts do

        split = texts.fill_null("").str.split(" ")
        pieces = split.explode()
        different = pieces.unique()
        which = pieces.cast(pl.Enum(different)).to_physical().to_numpy()
        ids = self._ids(different.to_list())
        sizes = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = np.fromiter(chain.from_iterable(ids), self.dtype, int(sizes.sum()))
        # A text without words points at a word behind all others.
        words = np.append(flat[spans((np.cumsum(sizes) - sizes)[which], sizes[which])], self.dtype.type(UNKNOWN))
        ends = _offsets(sizes[which])[_offsets(split.list.len().to_numpy())]
        counts = np.diff(ends)
        begins = np.where(counts == 0, len(words) - 1, ends[:-1])
        lengths = np.clip(counts, 1, self.max_length)
        return Texts(words[spans(begins, lengths)], _offsets(lengths))

    def encode_few(self, texts: Sequence[str]) -> Texts:
        """Encode so few texts that ``encode`` would take longer to begin."""
        words = [
            list(chain.from_iterable(self._ids(text.split(" "))))[: self.max_length] or [UNKNOWN] for text in texts
        ]
        flat = np.array(list(chain.from_iterable(words)), self.dtype)
        return Texts(flat, np.cumsum([0, *map(len, words)]))

    def _ids(self, pieces: list[str]) -> list[list[int]]:
        if len(self._known) > _REMEMBERED:
            self._known = {}
        known = self._known
        new = [piece for piece in pieces if piece not in known]
        if new:
            encodings = self.tokenizer.encode_batch_fast(new, add_special_tokens=False)
            known.update((piece, encoding.ids) for piece, encoding in zip(new, encodings, strict=True))
        return [known[piece] for piece in pieces]


def word_type(vocabulary_size: int) -> np.dtype[Any]:
    """Return the smallest type that holds the ids."""
    return np.dtype(np.uint16 if vocabulary_size <= 1 << 16 else np.uint32)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` into a folder."""
    (folder / FILE).write_text(tokenizer.to_str(pretty=True) + "\n", "utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read ``tokenizer.json`` of an encoded set or of a student; a missing or broken one is a ``DataError``."""
    try:
        return Tokenizer.from_str((folder / FILE).read_text("utf-8"))
    except Exception as error:  # the library raises nothing narrower
        hint = "have its folder written, or copied, again"
        raise DataError(f"the tokenizer cannot be read: {error}", file=folder / FILE, hint=hint) from error


def _offsets(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each of some pieces of these lengths begins, and where the last ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
