"""The student's vocabulary: words as BERT's basic tokenisation cuts them, and texts as their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
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

FILE = "tokenizer.json"
PAD = "[PAD]"
UNKNOWN = "[UNK]"
SPECIAL = (PAD, UNKNOWN, MASK)
"""The first ids. Only MASK is cut out of a text as it stands; the others cannot be written in one."""


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


def train_vocabulary(texts: Iterable[pa.Array], *, max_size: int, min_freq: int, lowercase: bool) -> Tokenizer:
    """Make a tokenizer whose vocabulary holds the most frequent words.

    Words of the same frequency are taken in the order of their characters.

    Args:
        texts: The texts, in arrays of strings.
        max_size: The largest number of words, the special ones included.
        min_freq: The occurrences that a word needs.
        lowercase: Take upper and lower case, and letters with and without accents, for the same.

    Raises:
        DataError: There is no word.
    """
    normalizer, pre_tokenizer = BertNormalizer(lowercase=lowercase), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for array in texts:
        for piece in pc.value_counts(_pieces(array, without=MASK).flatten()).to_pylist():
            for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(piece["values"])):
                counts[word] += piece["counts"]
    if not counts:
        raise DataError("the texts hold no word", hint="at least one text must not be empty")
    frequent = sorted((-count, word) for word, count in counts.items() if count >= min_freq)
    words = [*SPECIAL, *(word for _, word in frequent[: max(0, max_size - len(SPECIAL))])]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_special_tokens([MASK])
    return tokenizer


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Return the words in the order of their ids."""
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def encode_texts(texts: pa.Array, tokenizer: Tokenizer, max_length: int) -> Texts:
    """Turn texts into word ids; a text without words becomes one unknown word, a long one is cut.

    Gives what ``tokenizer.encode`` gives for each text, many times faster: a space always ends a word, so only the
    different pieces between spaces pass through the tokenizer.

    Args:
        texts: An array of strings; a null is an empty text.
        tokenizer: The student's.
        max_length: The most words that are kept of a text.
    """
    lists = _pieces(texts)
    pieces = lists.flatten().dictionary_encode()
    encodings = tokenizer.encode_batch_fast(pieces.dictionary.to_pylist(), add_special_tokens=False)
    sizes = np.fromiter((len(encoding.ids) for encoding in encodings), np.int64, len(encodings))
    known = np.fromiter((word for encoding in encodings for word in encoding.ids), np.int64, int(sizes.sum()))
    which = pieces.indices.to_numpy()
    words = known[spans((np.cumsum(sizes) - sizes)[which], sizes[which])]
    ends = np.concatenate([[0], np.cumsum(sizes[which])])[lists.offsets.to_numpy() - lists.offsets[0].as_py()]
    counts = np.diff(ends)
    # A text without words is pointed at a word behind all others.
    words = np.append(words, SPECIAL.index(UNKNOWN))
    begins = np.where(counts == 0, len(words) - 1, ends[:-1])
    lengths = np.clip(counts, 1, max_length)
    return Texts(words[spans(begins, lengths)].astype(word_type(tokenizer)), np.concatenate([[0], np.cumsum(lengths)]))


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
        raise DataError(f"the tokenizer cannot be read: {error}", file=folder / FILE) from error


def spans(begins: NDArray[np.int64], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Return the indices begins[0], begins[0] + 1, ... (lengths[0] of them), begins[1], ... in one array."""
    lengths = lengths.astype(np.int64)
    return np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())


def _pieces(texts: pa.Array, without: str = "") -> pa.ListArray:
    """Cut texts at spaces, and where the word is that is to be left out."""
    strings = pc.fill_null(texts.cast(pa.string()), "")
    return pc.split_pattern(pc.replace_substring(strings, without, " ") if without else strings, " ")
