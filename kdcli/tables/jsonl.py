"""Tables of one JSON object a line.

Polars turns values of mixed types and half surrogate pairs into other texts in silence, so that Python's ``json`` reads
the lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kdcli.errors import DataError
from kdcli.tables import text
from kdcli.tables.text import BadRows, check_utf8, open_bytes, shown, with_row_numbers

_TYPES: dict[type, pl.DataType] = {str: pl.String(), bool: pl.Boolean(), int: pl.Int64(), float: pl.Float64()}
_ERRORS = (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError)


class Jsonl:
    """A file of JSON objects that hold texts, numbers, booleans and nulls; a missing key is a null.

    It is read once for the keys and their types. Columns that nobody asks for may hold anything.
    """

    def __init__(self, path: Path, bad: BadRows) -> None:
        self.path = path
        self.notes: list[str] = []
        self._wrong: dict[str, DataError] = {}
        seen: dict[str, dict[type, int]] = {}
        for rows, objects in self._objects(bad):
            for row, values in zip(rows, objects, strict=True):
                for key, value in values.items():
                    seen.setdefault(key, {}).setdefault(type(value), row)
        self.schema = pl.Schema({key: self._type(key, types) for key, types in seen.items()})

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns, a block of lines at a time."""
        for name in columns:
            if name in self._wrong:
                raise self._wrong[name]
        for rows, objects in self._objects(bad):
            series = [self._series(name, rows, [values.get(name) for values in objects]) for name in columns]
            yield with_row_numbers(pl.DataFrame(series), rows)

    def _objects(self, bad: BadRows) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
        row = 1
        with open_bytes(self.path) as stream:
            if stream.peek(1).lstrip()[:1] == b"[":
                hint = f"write one object a line: jq -c '.[]' {self.path} > NEW.jsonl"
                raise DataError("the file is one JSON array, not one object a line", file=self.path, row=1, hint=hint)
            while lines := stream.readlines(text.BLOCK):
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
                    elif line.isspace():
                        bad.blank += 1
                    else:
                        bad.add(number, f"not a JSON object: {shown(line.rstrip())}")
                yield rows, objects
                row += len(lines)

    def _series(self, name: str, rows: Sequence[int], values: list[Any]) -> pl.Series:
        dtype = self.schema[name]
        try:
            return pl.Series(name, values, dtype)
        except _ERRORS:
            for row, value in zip(rows, values, strict=True):
                try:
                    pl.Series([value], dtype=dtype)
                except _ERRORS:
                    raise DataError("no table can hold this value", file=self.path, row=row, key=name) from None
            raise

    def _type(self, key: str, seen: dict[type, int]) -> pl.DataType:
        """Choose the type of a column by the types of its values, each with the first row that has it."""
        rows = {kind: row for kind, row in seen.items() if kind is not type(None)}
        if rows.keys() == {int, float}:
            return pl.Float64()
        kinds = list(rows)
        if not kinds:
            return pl.String()
        wrong = next((kind for kind in kinds if kind not in _TYPES or kind is not kinds[0]), None)
        if wrong is None:
            return _TYPES[kinds[0]]
        what = f"a value of JSON type {wrong.__name__}" + (f" after {kinds[0].__name__}" * (wrong is not kinds[0]))
        hint = "a column holds values of one simple type"
        self._wrong[key] = DataError(what, file=self.path, row=rows[wrong], key=key, hint=hint)
        return pl.Object()
