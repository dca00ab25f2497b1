"""IMDB's film reviews (Maas et al. 2011), which come without a dev set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from kdcli.download.hub import Split
from kdcli.errors import DataError

FILES = {name: f"plain_text/{name}-*.parquet" for name in ("train", "test", "unsupervised")}
"""The Parquet files of each split on the Hub."""
SEED = 1
ONE_IN = 10
"""One training review in so many goes to the dev set: 2,500 of the 25,000."""


def imdb_tables(splits: Mapping[str, Split]) -> dict[str, pa.Table]:
    """Cut a dev set off the training reviews, which are shuffled: the Hub has all negative ones first.

    Returns:
        The columns ``sentence`` and ``label`` (0 is negative) of train, dev and test, and ``sentence`` of unsupervised.

    Raises:
        DataError: A column is missing.
    """
    train = _labelled(splits["train"])
    order = np.random.default_rng(SEED).permutation(train.num_rows)
    held_out = train.num_rows // ONE_IN
    return {
        "train": train.take(order[held_out:]),
        "dev": train.take(order[:held_out]),
        "test": _labelled(splits["test"]),
        "unsupervised": pa.table({"sentence": _column(splits["unsupervised"], "text")}),
    }


def _labelled(split: Split) -> pa.Table:
    return pa.table({"sentence": _column(split, "text"), "label": _column(split, "label")})


def _column(split: Split, name: str) -> pa.ChunkedArray:
    if name not in split.rows.schema.names:
        hint = f"it has {', '.join(split.rows.schema.names)}"
        raise DataError(f"the dataset has no column {name!r}", key=name, hint=hint)
    return split.rows[name].cast(pa.string())
