"""The student's vocabulary: words as BERT's basic tokenisation cuts them, texts as their ids, and batches of these."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from kdcli.api import MASK, UNKNOWN, Task
from kdcli.errors import DataError

if TYPE_CHECKING:
    import polars as pl

FILE = "tokenizer.json"
PAD = "[PAD]"
SPECIAL = (PAD, MASK)
"""The first ids. MASK also stands for every word outside the vocabulary: a student that was distilled on masked texts
has learned to do without a masked word, and has never seen a special word for unknown ones."""
CONTINUES = "##"
"""The beginning of a piece inside a word, as WordPiece writes it."""

CELLS = 1 << 22  # the largest padded batch of ``compute_batches``, in words: a bound on memory
ROWS = 256  # texts that a PyTorch module predicts at once
SPREAD = 0.25
"""How far apart the lengths of a training batch lie: rows are sorted by their length plus up to this share of it, drawn
anew in each epoch, so that even few texts, or those of rare lengths, meet others every time."""

_REMEMBERED = 1_000_000  # pieces of text whose ids are cached: a bound on memory
_LONGEST = 100  # characters of the longest word that the library's WordPiece reads; a longer one is ``MASK``

Columns = tuple[NDArray[Any], ...]
Compute = Callable[[Columns, Columns], NDArray[np.float32]]
"""Words ``[batch, time]`` and lengths ``[batch]`` of each text column to logits ``[batch, outputs]``."""


@dataclass(frozen=True)
class Texts:
    """Texts as word ids, one after the other; every text has at least one."""

    words: NDArray[np.unsignedinteger]  # ``uint16`` or ``uint32 [all words]``
    offsets: NDArray[np.int64]  # where each text begins, and where the last ends, ``int64 [texts + 1]``

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """The words of each text, ``int32 [texts]``."""
        return np.diff(self.offsets).astype(np.int32)

    def padded(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return rows as ``[rows, time]``, padded with 0 on the right, and their lengths ``int64 [rows]``."""
        begins = self.offsets[rows]
        lengths = self.offsets[rows + 1] - begins
        words = np.zeros((len(rows), int(lengths.max())), self.words.dtype)
        words[np.arange(words.shape[1]) < lengths[:, None]] = self.words[spans(begins, lengths)]
        return words, lengths


def train_vocabulary(
    texts: Iterable["pl.Series"],
    *,
    max_size: int,
    min_freq: int,
    lowercase: bool,
    more: Iterable[str] = (),
    pieces: Iterable[str] = (),
) -> Tokenizer:
    """Make a tokenizer of the most frequent words, and of other words as far as there is room.

    Words of the same frequency are taken in the order of their characters. ``max_size`` includes the special words;
    ``more`` are words that are not in the texts, the most wanted first; single letters are skipped. With ``pieces``, of
    which at most half of ``max_size`` are taken, a word outside the vocabulary is read in pieces, the longest first (Wu
    et al. 2016, section 4.1), and not as ``MASK``. Texts without any word are a ``DataError``.
    """
    normalizer, pre_tokenizer = BertNormalizer(lowercase=lowercase), BertPreTokenizer()
    inside = [piece for piece in pieces if normalizer.normalize_str(piece) == piece][: max_size // 2]
    parts: Counter[str] = Counter()
    for column in texts:
        split = column.drop_nulls().str.replace_all(MASK, " ", literal=True).str.split(" ").explode()
        for piece, count in split.value_counts().iter_rows():
            parts[piece] += count
    counts: Counter[str] = Counter()
    for piece, count in parts.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(piece)):
            counts[word] += count
    if not counts:
        raise DataError("the texts hold no word", hint="at least one text must not be empty")
    frequent = sorted((-count, word) for word, count in counts.items() if count >= min_freq)
    room = max(max_size - len(inside), len(SPECIAL))
    words = dict.fromkeys([*[*SPECIAL, *(word for _, word in frequent)][:room], *inside])
    others = iter(more)
    while len(words) < max_size and (other := next(others, None)) is not None:
        word = normalizer.normalize_str(other)
        if len(word) > 1 and len(pre_tokenizer.pre_tokenize_str(word)) == 1:
            words.setdefault(word.strip())  # the normalizer puts spaces around a Chinese character
    model = WordPiece if inside else WordLevel
    tokenizer = Tokenizer(model({word: number for number, word in enumerate(words)}, unk_token=MASK))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
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
        self._vocabulary = tokenizer.get_vocab(with_added_tokens=False)
        self._known: dict[str, list[int]] = {}

    @cached_property
    def foreign(self) -> NDArray[np.bool_]:
        """Whether an id is ``MASK``, or a piece inside a word, ``bool [ids]``."""
        foreign = np.zeros(self.tokenizer.get_vocab_size(), np.bool_)
        inside = (number for word, number in self._vocabulary.items() if word.startswith(CONTINUES))
        foreign[[UNKNOWN, *inside]] = True
        return foreign

    def encode(self, texts: "pl.Series") -> Texts:
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
        known, ids = self._known, self._vocabulary
        new = [piece for piece in pieces if piece not in known]
        # The tokenizer neither changes nor cuts these words.
        known.update((piece, [ids[piece]]) for piece in new if piece in ids and _is_plain(piece))
        if new := [piece for piece in new if piece not in known]:
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
        tokenizer = Tokenizer.from_str((folder / FILE).read_text("utf-8"))
        if getattr(tokenizer.model, "unk_token", None) != MASK or tokenizer.token_to_id(MASK) != UNKNOWN:
            raise ValueError(f"{MASK} is not its word number {UNKNOWN} and that of unknown words")
        return tokenizer
    except Exception as error:  # the library raises nothing narrower
        hint = "have its folder written, or copied, again"
        raise DataError(f"the tokenizer cannot be read: {error}", file=folder / FILE, hint=hint) from error


def compute_batches(
    compute: Compute, texts: Sequence[Texts], outputs: int, rows: int | None = None
) -> NDArray[np.float32]:
    """Return the logits of texts, ``float32 [texts, outputs]``; texts of similar lengths go together.

    A batch has so many rows, or, for None, as many as make ``CELLS`` padded words.
    """
    lengths = np.maximum.reduce([column.lengths for column in texts])
    order = np.argsort(lengths, kind="stable")
    logits = np.empty((len(order), outputs), np.float32)
    for batch in _cut(order, lengths[order].astype(np.int64), rows):
        words, counts = zip(*(column.padded(batch) for column in texts), strict=True)
        logits[batch] = compute(words, counts)
    return logits


def epoch_batches(lengths: NDArray[Any], size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the row numbers of each batch of an epoch, which depend on the arguments alone; one may be smaller."""
    # Counter-based, so that an epoch does not depend on those before it.
    draws = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    keys = draws.random(len(lengths), np.float32)
    keys *= SPREAD
    keys += 1
    keys *= lengths
    rows = np.argsort(keys, kind="stable")
    batches = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    return [batches[number] for number in draws.permutation(len(batches))]


def _cut(order: NDArray[np.int64], lengths: NDArray[np.int64], rows: int | None) -> Iterator[NDArray[np.int64]]:
    begin = 0
    while begin < len(order):
        cells = np.arange(1, len(order) - begin + 1) * lengths[begin:]
        end = begin + (rows or max(1, int(np.searchsorted(cells, CELLS, side="right"))))
        yield order[begin:end]
        begin = end


def spans(begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices begins[0], begins[0] + 1, ... (lengths[0] of them), begins[1], ... in one array."""
    return np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())


def _offsets(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each of some pieces of these lengths begins, and where the last ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def unknown_words(texts: Texts, foreign: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the words of each text, and those of them whose ids are ``foreign``, ``bool [ids]``: ``[texts]`` each."""
    unknown = np.concatenate([[0], np.cumsum(foreign[texts.words])])
    return np.diff(texts.offsets), np.diff(unknown[texts.offsets])


def text_columns(texts: Any, task: Task) -> list[list[str]]:
    """Return what a caller gave as the text columns of a task; what is no text, or no pair, is a ``DataError``.

    Of an array, or a table of pandas or Polars, it is the columns, whatever their names.
    """
    single = task.kind == "single"
    hint = 'give it texts: predict(["..."])' if single else 'give it pairs of texts: predict([("...", "...")])'
    if isinstance(texts, str):
        raise DataError("predict was given one text alone", hint=hint)
    texts = texts.to_numpy() if hasattr(texts, "to_numpy") else texts
    if isinstance(texts, np.ndarray):  # a column of texts may stand in a table of its own
        texts = texts.ravel().tolist() if single and texts.shape[1:] == (1,) else texts.tolist()
    with suppress(TypeError, UnicodeEncodeError):
        if single:  # all at once; what fails is found row by row
            "".join(texts).encode()
            return [list(map(str, texts))]
    columns: list[list[str]] = [[] for _ in task.columns]
    for number, row in enumerate(texts, 1):
        parts = (row,) if single or not isinstance(row, list | tuple) else row
        if len(parts) != len(columns) or not all(map(_is_text, parts)):
            what = f"this is not {'a text' if single else 'a pair of texts'}: {row!r:.80}"
            raise DataError(what, row=number, hint=hint)
        for column, part in zip(columns, parts, strict=True):
            column.append(str(part))
    return columns


def _is_plain(word: str) -> bool:
    return word.isascii() and word.isalnum() and word == word.lower() and len(word) <= _LONGEST


def _is_text(value: object) -> bool:
    with suppress(UnicodeEncodeError):
        return isinstance(value, str) and (value.isascii() or value.encode() is not None)
    return False
