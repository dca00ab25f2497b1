"""Tables of one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdcli.errors import DataError
from kdcli.tables.forms import BLOCK, BadRows, Numbers, check_utf8, open_bytes, shown

_TYPES = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


class Jsonl:
    """A file of JSON objects with text, numbers, booleans and nulls in them; a key left out is a null.

    It is read once for the keys and their types, since neither need show in the first rows.

    Args:
        path: The file.
        bad: What becomes of a line that holds no object.

    Raises:
        DataError: The file is missing or empty, a line holds no object, or a column has values of several types.
    """

    def __init__(self, path: Path, bad: BadRows) -> None:
        self.path = path
        seen: dict[str, dict[type, int]] = {}
        for rows, objects in self._objects(bad):
            for row, values in zip(rows, objects, strict=True):
                for key, value in values.items():
                    seen.setdefault(key, {}).setdefault(type(value), row)
        self.schema = pa.schema([(key, _type(path, key, types)) for key, types in seen.items()])
        self.columns = tuple(seen)

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[tuple[Numbers, pa.RecordBatch]]:
        """Give the named columns, a block of lines at a time.

        Raises:
            DataError: A line holds no object (and is not to be skipped), or a value that no table can hold.
        """
        schema = pa.schema([self.schema.field(name) for name in columns])
        for rows, objects in self._objects(bad):
            try:
                batch = pa.RecordBatch.from_pylist(objects, schema)
            except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
                raise self._wrong_value(rows, objects, schema) from None
            yield np.array(rows, np.int64), batch

    def _objects(self, bad: BadRows) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
        row = 1
        with open_bytes(self.path) as stream:
            while lines := stream.readlines(BLOCK):
                check_utf8(b"".join(lines), self.path, row)
                rows, objects = [], []
                for number, line in enumerate(lines, row):
                    try:
                        value = json.loads(line)
                    except (ValueError, RecursionError):
                        value = None
                    if isinstance(value, dict):
                        rows.append(number)
                        objects.append(value)
                    else:
                        bad.add(number, f"no JSON object: {shown(line.rstrip())}")
                yield rows, objects
                row += len(lines)

    def _wrong_value(self, rows: Sequence[int], objects: Sequence[dict[str, Any]], schema: pa.Schema) -> DataError:
        for row, values in zip(rows, objects, strict=True):
            for field in schema:
                try:
                    pa.array([values.get(field.name)], field.type)
                except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError) as error:
                    return DataError(f"no table can hold this value: {error}", file=self.path, row=row, key=field.name)
        raise AssertionError("each value alone can be held")


def _type(path: Path, key: str, seen: dict[type, int]) -> pa.DataType:
    """Choose a column's type from those of its values, each with the row that had it first."""
    types = {kind: row for kind, row in seen.items() if kind is not type(None)}
    if types.keys() == {int, float}:
        return pa.float64()
    kinds = list(types)
    if kinds and (kinds[0] not in _TYPES or len(kinds) > 1):
        wrong = next(kind for kind in kinds if kind not in _TYPES or kind is not kinds[0])
        what = f"a value of JSON type {wrong.__name__}" + (f" after {kinds[0].__name__}" * (wrong is not kinds[0]))
        raise DataError(what, file=path, row=types[wrong], key=key, hint="a column holds values of one simple type")
    return _TYPES[kinds[0]] if kinds else pa.string()
