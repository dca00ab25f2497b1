"""Parquet tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from kdcli.errors import DataError
from kdcli.tables.forms import BadRows, Numbers, check_columns, check_columns_utf8, unzipped

_ROWS = 65_536


class Parquet:
    """A Parquet file; texts of any of Arrow's string types are given as ``pa.string()``.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing, empty, damaged, or none of Parquet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            found = file.schema_arrow
        self.columns = tuple(found.names)
        check_columns(self.columns, path)
        self.schema = pa.schema([(field.name, _plain(field.type)) for field in found])

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
        """Give the named columns; there are no bad rows.

        Raises:
            DataError: The file is damaged, or a text is not UTF-8.
        """
        schema = pa.schema([self.schema.field(name) for name in columns])
        row = 1
        with self._open() as file:
            for batch in file.iter_batches(_ROWS, columns=list(columns), use_threads=False):
                rows = np.arange(row, row + batch.num_rows)
                plain = batch.select(list(columns)).cast(schema)
                check_columns_utf8(plain, self.path, rows)
                yield rows, plain
                row += batch.num_rows

    @contextmanager
    def _open(self) -> Iterator[parquet.ParquetFile]:
        try:
            with unzipped(self.path) as plain, parquet.ParquetFile(plain, pre_buffer=False) as file:
                yield file
        except (pa.ArrowInvalid, pa.ArrowException) as error:
            raise DataError(f"no Parquet file, or a damaged one: {error}", file=self.path) from error


def _plain(kind: pa.DataType) -> pa.DataType:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_large_string(value) or pa.types.is_string_view(value) else value
