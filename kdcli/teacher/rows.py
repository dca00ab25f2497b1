"""Training texts as word pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from kdcli.api import Reporter
from kdcli.lm.rows import Rows

CHUNK = 10_000


def encode_rows(
    columns: Sequence[pa.ChunkedArray],
    labels: np.ndarray,
    tokenizer: Any,
    *,
    inputs: Sequence[str],
    max_length: int,
    reporter: Reporter,
) -> Rows:
    """Cut texts into word pieces, at most ``max_length`` a row; of a pair the longer text is cut first.

    Args:
        columns: One text column, or two.
        labels: The classes or scores of the rows.
        tokenizer: The model's tokenizer.
        inputs: The inputs that the model takes.
        max_length: The longest row, special tokens included.
        reporter: Shown the progress.
    """
    names = [name for name in inputs if name != "attention_mask"]
    pieces: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in names}
    lengths: list[int] = []
    with reporter.progress("word pieces", len(labels)) as progress:
        for start in range(0, len(labels), CHUNK):
            texts = [column.slice(start, CHUNK).to_pylist() for column in columns]
            made = tokenizer(
                *texts,
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
                return_token_type_ids="token_type_ids" in names,
            )
            lengths += map(len, made["input_ids"])
            for name in names:
                pieces[name] += [np.asarray(row, np.int32) for row in made[name]]
            progress.advance(len(texts[0]))
    padding = {name: tokenizer.pad_token_type_id if name == "token_type_ids" else 0 for name in names}
    padding["input_ids"] = tokenizer.pad_token_id
    fields = {name: np.concatenate(rows) for name, rows in pieces.items()}
    return Rows(
        fields,
        padding,
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        labels,
        tokenizer.padding_side == "left",
    )
