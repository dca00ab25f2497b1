"""The one reader of tables: TSV, CSV, JSONL, Parquet and plain lines, each also as ``.gz``."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kdcli import tables
from kdcli.errors import DataError
from kdcli.tables import SEPARATOR, text
from kdcli.tables.csv_file import KINDS, Quoted, open_csv
from kdcli.tables.parquet import ParquetFile
from kdcli.tables.text import ROW_NUMBER, BadRowsMode, Form, as_texts, form_of, shown

__all__ = ["ROW_NUMBER", "BadRowsMode", "Form", "TableReader", "as_texts", "files_of", "form_of", "read_table", "shown"]

_TYPES: dict[type, pl.DataType] = {
    **{str: pl.String(), bool: pl.Boolean(), int: pl.Int64(), float: pl.Float64()},
    list: pl.List(pl.String()),
}
_ERRORS = (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError)
_SHARDS = re.compile(r"-\*-of-(\d+)\.")
_IN_COLUMNS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1, "-1": -1, "-1.0": -1}
"""What a column of one label holds; -1 hides the labels of a test row."""


class TableReader:
    """A table on disk, which can be read as often as wanted; ``bad`` are the bad rows of the latest reading."""

    def __init__(self, source: text.TableSource, path: Path, columns: Sequence[str], bad_rows: BadRowsMode) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.schema = pl.Schema({name: source.schema[name] for name in columns})
        self.bad = text.BadRows(path, bad_rows)
        self._source = source

    @property
    def notes(self) -> list[str]:
        """Peculiarities of the file that the user should know, such as an unusual separator."""
        blank = [f"{self.bad.blank:,} blank lines are no rows"] if self.bad.blank else []
        return [*self._source.notes, *blank]

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in frames of the columns and ``ROW_NUMBER``, in memory bounded by a block of the file.

        A bad row (unless it is skipped), bytes that are not UTF-8 and a column of mixed types are a ``DataError``.
        """
        self.bad = text.BadRows(self.path, self.bad.mode)
        for frame in self._source.batches(self.columns, self.bad):
            if len(frame):
                yield frame

    def frame(self) -> pl.DataFrame:
        """Read all rows."""
        empty = pl.DataFrame(schema={**self.schema, ROW_NUMBER: pl.Int64()})
        return pl.concat(list(self.batches()) or [empty])


def read_table(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    header: bool = True,
    bad_rows: BadRowsMode = "error",
    form: Form | None = None,
    quoted: Quoted | None = None,
    separator: str | None = None,
    labels: bool | None = None,
    sets: tuple[str, Mapping[str, str]] | None = None,
) -> TableReader:
    """Open a table.

    A byte order mark is skipped, and ``NA`` is text. A blank line is an empty text where a TSV or CSV has one column;
    elsewhere it is no row.

    Args:
        path: The file; its suffix decides the form.
        columns: The columns to read, in this order; all by default.
        header: Whether the first row of a TSV or CSV names the columns; without it they are ``c0``, ``c1``, ...
        bad_rows: Whether a row that cannot be read is an error, or is counted and skipped.
        form: The form, where the suffix does not tell.
        quoted: Whether a TSV or CSV has CSV's quoting; by default a CSV has it, and a TSV has not; ``"escaped"``: with
            a backslash before a quote inside a field.
        separator: What separates the fields of a CSV; by default what its first line shows.
        labels: Whether the lines of a ``.txt`` begin with labels, as fastText has them; by default as its first does.
        sets: The column of sets of labels, and the labels of the columns with 0 or 1 that it is made of, if it is.

    Raises:
        DataError: The file is missing, empty or damaged, its suffix is unknown, or a column is missing.
    """
    path = Path(path)
    form, files = form or form_of(path), files_of(path)

    def open_file(file: Path) -> text.TableSource:
        if form == "txt":
            lines = text.Delimited(file, "", header=False)
            labelled = lines.first[0].startswith(text.LABEL) if labels is None else labels
            return text.LabelledLines(lines) if labelled else lines
        if form == "tsv":
            return KINDS[quoted or False](file, "\t", header=header)
        if form == "jsonl":
            return Jsonl(file, text.BadRows(file, bad_rows))
        if form == "parquet":
            return ParquetFile(file)
        return open_csv(file, header=header, quoted=quoted, separator=separator)

    sources = [open_file(file) for file in files]
    source: text.TableSource = sources[0] if files == [path] else Chain(sources, files)
    source = LabelSets(source, path, *sets) if sets else source
    text.check_columns(columns or (), source.schema, path)
    return TableReader(source, path, columns or tuple(source.schema), bad_rows)


def files_of(path: Path) -> list[Path]:
    """Return the files of a table: itself, the shards of ``train-*-of-00002.parquet``, or a folder's part files.

    A shard that is missing, or a folder without part files, as Spark writes them, is a ``DataError``.
    """
    if path.is_dir():
        if files := sorted(file for file in path.glob("part-*") if file.is_file() and file.stat().st_size):
            return files
        raise DataError("this is a folder without part files (part-*), not a table", file=path)
    shards = _SHARDS.search(path.name)
    if not shards:
        return [path]
    count = shards[1]
    files = [path.with_name(path.name.replace("*", f"{number:0{len(count)}d}")) for number in range(int(count))]
    if missing := [file for file in files if not file.exists()]:
        hint = f"the table has {int(count)} shards: copy them all"
        raise DataError("a shard of this table is missing", file=missing[0], hint=hint)
    return files


class Chain:
    """Files of the same columns that are one table."""

    def __init__(self, sources: Sequence[text.TableSource], files: Sequence[Path]) -> None:
        self.schema = sources[0].schema
        own = next((source.notes for source in sources if source.notes), [])  # those of one file stand for all
        self.notes = [f"{len(files)} files are one table", *own]
        self._sources = dict(zip(files, sources, strict=True))
        for file, source in self._sources.items():
            if source.schema != self.schema:
                what = f"its columns are {dict(source.schema)}, and those of {files[0].name} {dict(self.schema)}"
                raise DataError(what, file=file, hint="the files of one table have the same columns")

    def batches(self, columns: Sequence[str], bad: text.BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns of one file after the other; rows are counted over all of them."""
        last = 0
        for file, source in self._sources.items():
            bad.path, before = file, last
            for frame in source.batches(columns, bad):
                found = frame.with_columns(pl.col(ROW_NUMBER) + before) if before else frame
                last = int(found[-1, ROW_NUMBER]) if len(found) else last
                yield found


class LabelSets:
    """A table whose labels, lists or several columns in its file, are one column of texts ``a|b``."""

    def __init__(self, source: text.TableSource, path: Path, column: str, labels: Mapping[str, str]) -> None:
        """Give a source the column; ``labels`` are those of the columns with 0 or 1, none where it is there already."""
        self._source, self._path, self._column, self._labels = source, path, column, labels
        self._lists = not labels and source.schema.get(column, pl.String()).is_nested()
        new = {column: pl.String()} if labels or self._lists else {}
        self.schema, self.notes = pl.Schema({**source.schema, **new}), source.notes

    def batches(self, columns: Sequence[str], bad: text.BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns; a list with another value than labels, or a value but 0 and 1, is a ``DataError``."""
        there = [name for name in columns if name != self._column or not self._labels]
        more = [name for name in self._labels if self._column in columns and name not in there]
        for frame in self._source.batches([*there, *more], bad):
            if self._column in columns and self._labels:
                frame = frame.with_columns(self._from_columns(frame))
            elif self._column in columns and self._lists:
                frame = frame.with_columns(self._from_lists(frame[self._column], frame[ROW_NUMBER]))
            yield frame.select(*columns, ROW_NUMBER)

    def _from_lists(self, sets: pl.Series, rows: pl.Series) -> pl.Series:
        try:
            texts = sets.cast(pl.List(pl.String))
        except pl.exceptions.PolarsError as error:
            what = f"the label column holds {sets.dtype}, not lists of labels"
            raise DataError(what, file=self._path, key=self._column) from error
        wrong = texts.list.eval(pl.element().str.contains(SEPARATOR, literal=True).fill_null(True)).list.any()
        if wrong.any():
            row = int(wrong.fill_null(False).arg_max() or 0)
            what = f"a label is missing or has a {SEPARATOR}: {sets[row].to_list()}"
            raise DataError(what, file=self._path, row=rows[row], key=self._column)
        return texts.list.join(SEPARATOR)

    def _from_columns(self, frame: pl.DataFrame) -> pl.Series:
        texts = pl.col(*self._labels).cast(pl.String).str.strip_chars(" ").str.to_lowercase()
        values = frame.select(texts.replace_strict(_IN_COLUMNS, default=None, return_dtype=pl.Int8))
        for column in values:
            if column.null_count():
                row = int(column.is_null().arg_max() or 0)
                what = f"a column of one label holds 0 or 1, not {frame[column.name][row]!r}"
                raise DataError(what, file=self._path, row=frame[ROW_NUMBER][row], key=column.name)
        chosen = [pl.when(pl.col(name) == 1).then(pl.lit(label)) for name, label in self._labels.items()]
        sets = pl.concat_list(chosen).list.drop_nulls().list.join(SEPARATOR)
        hidden = pl.any_horizontal(pl.all() < 0)
        return values.select(pl.when(~hidden).then(sets).alias(self._column)).to_series()


class Jsonl:
    """A file of JSON objects that hold texts, numbers, booleans, nulls and lists of texts; a missing key is a null.

    It is read once for the keys and their types. Columns that nobody asks for may hold anything. Polars turns values of
    mixed types and half surrogate pairs into other texts in silence, so that Python's ``json`` reads the lines.
    """

    def __init__(self, path: Path, bad: text.BadRows) -> None:
        self.path = path
        self.notes: list[str] = []
        self._wrong: dict[str, DataError] = {}
        seen: dict[str, dict[type, int]] = {}
        for rows, objects in self._objects(bad):
            for row, values in zip(rows, objects, strict=True):
                for key, value in values.items():
                    seen.setdefault(key, {}).setdefault(type(value), row)
        self.schema = pl.Schema({key: self._type(key, types) for key, types in seen.items()})

    def batches(self, columns: Sequence[str], bad: text.BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns, a block of lines at a time."""
        for name in columns:
            if name in self._wrong:
                raise self._wrong[name]
        for rows, objects in self._objects(bad):
            series = [self._series(name, rows, [values.get(name) for values in objects]) for name in columns]
            yield text.with_row_numbers(pl.DataFrame(series), rows)

    def _objects(self, bad: text.BadRows) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
        row = 1
        with text.open_bytes(self.path) as stream:
            if stream.peek(1).lstrip()[:1] == b"[":
                hint = f"write one object a line: jq -c '.[]' {self.path} > NEW.jsonl"
                raise DataError("the file is one JSON array, not one object a line", file=self.path, row=1, hint=hint)
            while lines := stream.readlines(tables.BLOCK):
                tables.check_utf8(b"".join(lines), self.path, row)
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
        if dtype.is_nested():  # other values in it become texts
            values = [value and [one if isinstance(one, str) else json.dumps(one) for one in value] for value in values]
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
