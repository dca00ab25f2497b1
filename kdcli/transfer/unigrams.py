"""The distribution of the words of each part of speech in the training set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdcli.transfer.tagging import Words, read_words


class Unigrams:
    """For each tag, the words that have it and how often.

    Args:
        counts: Columns ``tag``, ``word`` and ``count``, the rows of a tag together.
    """

    def __init__(self, counts: pa.RecordBatch) -> None:
        self.words: pa.StringArray = counts["word"]
        tags = np.array(counts["tag"].to_pylist(), dtype=object)
        self._upto = np.cumsum(counts["count"].to_numpy())
        last = np.flatnonzero(np.append(tags[1:] != tags[:-1], True)) if len(tags) else np.zeros(0, dtype=np.int64)
        bounds = np.concatenate([[0], self._upto[last]])
        self._bounds = {tag: (bounds[i], bounds[i + 1]) for i, tag in enumerate(tags[last])}

    def draw(
        self, tags: NDArray[np.int32], tag_names: Sequence[str], uniform: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Draw a word for each tag from the tag's unigram distribution.

        Args:
            tags: ``[N]`` ids in ``tag_names``.
            tag_names: Tags that are all in the table.
            uniform: ``[N]`` random numbers in [0, 1).

        Returns:
            ``[N]`` ids in ``words``.
        """
        low, high = np.array([self._bounds[name] for name in tag_names], dtype=np.int64).reshape(-1, 2).T
        # The minimum: a product of a number below 1 can still round up to the count.
        occurrence = np.minimum(low[tags] + (uniform * (high - low)[tags]).astype(np.int64), high[tags] - 1)
        return np.searchsorted(self._upto, occurrence, side="right")


def count_unigrams(parts: Iterable[Path], columns: Sequence[str]) -> pa.Table:
    """Count the words of each tag in the parts of the tagging pass.

    Returns:
        Columns ``tag``, ``word`` and ``count``, in order of tag and word.
    """
    counted = [_count(read_words(path, column)) for path in parts for column in columns]
    total = pa.concat_tables(counted).group_by(["tag", "word"], use_threads=False).aggregate([("count", "sum")])
    return total.rename_columns(["tag", "word", "count"]).sort_by([("tag", "ascending"), ("word", "ascending")])


def _count(words: Words) -> pa.Table:
    keys = words.tags.astype(np.int64) * len(words.vocabulary) + words.words
    found, counts = np.unique(keys, return_counts=True)
    tags, ids = np.divmod(found, max(1, len(words.vocabulary)))
    names = pa.array(words.tag_names, pa.string())
    return pa.table({"tag": names.take(pa.array(tags)), "word": words.vocabulary.take(pa.array(ids)), "count": counts})
