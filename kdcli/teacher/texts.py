"""The texts of a transfer set, and the hashes that its logits are found by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.errors import DataError
from kdcli.tables.forms import Numbers
from kdcli.tables.hashing import row_hashes
from kdcli.tasks.text_set import TextSet


@dataclass(frozen=True)
class Texts:
    """Some rows of a table.

    Attributes:
        columns: The task's text columns, as Arrow strings.
        hashes: ``uint64 [rows]``, the hash of each row's texts as written.
        numbers: The rows' numbers in the file, for messages.
        batch: All that the file has of these rows.
    """

    columns: list[pa.Array]
    hashes: NDArray[np.uint64]
    numbers: Numbers
    batch: pa.RecordBatch


def read_texts(texts: TextSet) -> Iterator[Texts]:
    """Give the rows of an open set of texts, in batches.

    Raises:
        DataError: A row has no text.
    """
    for numbers, columns, batch in texts.rows():
        for name, column in zip(texts.task.columns, columns, strict=True):
            if column.null_count:
                row = int(numbers[pc.index(column.is_null(), True).as_py()])
                raise DataError("this row has no text", file=texts.path, row=row, key=name)
        yield Texts(columns, row_hashes(columns), numbers, batch)
