"""The hash of a text: what joins a text to its logits, and what is stored or compared across runs."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import repeat

import numpy as np
import polars as pl
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

_GROUPS = 16  # groups of hashes that are compared one after the other, so that little memory is needed at once


def text_hash(columns: Sequence[pl.Series]) -> NDArray[np.uint64]:
    """Hash the texts of each row by XXH3-64 of their UTF-8 bytes, ``uint64 [rows]``; a null is a ``ValueError``.

    The hash of a column is the seed of the next one's, so that ``("a", "bc")`` and ``("ab", "c")`` differ.
    """
    if any(column.null_count() for column in columns):
        raise ValueError("a null has no hash")
    hashes: Iterable[int] = repeat(0)
    for column in columns:
        hashes = map(xxh3_64_intdigest, column.cast(pl.Binary).to_list(), hashes)
    return np.fromiter(hashes, np.uint64, len(columns[0]))


def first_of_equals(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which hashes are the first of their value, ``bool [rows]``; beside that it takes some 5 bytes a row."""
    group = hashes.view(np.uint8)[::8] % _GROUPS  # by one byte of each hash
    first = np.zeros(len(hashes), np.bool_)
    for number in range(_GROUPS):
        rows = np.flatnonzero(group == number)
        first[rows] = pl.Series(hashes[rows]).is_first_distinct().to_numpy()
    return first


def text_hash_v1(columns: Sequence[pl.Series]) -> NDArray[np.uint64]:
    """Hash rows as ``kd.logits/1`` does: 8 bytes of BLAKE2b over each text's length (64 bits) and bytes."""
    digests = []
    for row in zip(*(column.to_list() for column in columns), strict=True):
        texts = [text.encode() for text in row]
        message = b"".join(part for text in texts for part in (len(text).to_bytes(8, "little"), text))
        digests.append(blake2b(message, digest_size=8).digest())
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64, copy=False)
