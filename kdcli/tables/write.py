"""The one writer of tables: whole files or none, in the form of the suffix."""

import gzip
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import polars as pl

from kdcli.errors import DataError
from kdcli.files import atomic
from kdcli.tables.parquet import ROWS, row_count, slices
from kdcli.tables.text import Form, form_of, is_gzip, shown

_GROUP = 16_384  # rows in a row group of Parquet: Polars holds several groups of every column while it writes

_BOM = "\ufeff"


def write_table(path: str | Path, frame: pl.DataFrame | pl.LazyFrame) -> int:
    """Write a table, gzipped if its name ends in ``.gz``, and return the number of its rows.

    A lazy frame is written as it is computed. The suffix decides the form; a ``.txt`` takes one column. In TSV and CSV
    a null is an empty field. A float is the shortest number that reads back as the same one. Equal rows give equal
    bytes. A form that cannot hold a column or a text is a ``DataError``, and a full disk a ``KdError``.
    """
    path = Path(path)
    form = form_of(path)
    if form == "parquet":
        with atomic(path) as temporary:
            if isinstance(frame, pl.LazyFrame):
                frame.sink_parquet(temporary, row_group_size=_GROUP)
            else:
                frame.rechunk().write_parquet(temporary, row_group_size=_GROUP)
            return row_count(temporary)
    schema = frame.collect_schema()
    for name, dtype in schema.items():
        if dtype in (pl.Binary, pl.Object) or (form != "jsonl" and dtype.is_nested()):
            hint = "write .parquet or .jsonl instead"
            raise DataError(f"a column of {dtype} does not fit into .{form}", file=path, key=name, hint=hint)
    if form == "txt" and len(schema) != 1:
        raise DataError(f"a .txt holds one column, not {len(schema)}", file=path, hint="name the file .tsv")
    if form in ("tsv", "txt"):
        _check_texts(pl.DataFrame({name: [name] for name in schema}), form, path, 1)
    rows = 0
    with atomic(path) as temporary, temporary.open("wb") as file:
        # Neither the time nor the temporary name goes into a gzipped file.
        zipped = gzip.GzipFile("", "wb", fileobj=file, mtime=0, compresslevel=6) if is_gzip(path) else None
        with zipped or nullcontext(file) as stream:
            _write_lines(stream, form, pl.DataFrame(schema=schema), header=form in ("tsv", "csv"))
            for batch in slices(frame, ROWS) if isinstance(frame, pl.LazyFrame) else frame.iter_slices(ROWS):
                if form in ("tsv", "txt"):
                    _check_texts(batch, form, path, rows + 1 + (form == "tsv"))
                if form == "txt" and rows == 0 and str(batch.item(0, 0)).startswith(_BOM):
                    stream.write(_BOM.encode())  # readers skip the first one
                _write_lines(stream, form, batch, header=False)
                rows += len(batch)
    return rows


def _write_lines(stream: IO[bytes] | gzip.GzipFile, form: Form, rows: pl.DataFrame, *, header: bool) -> None:
    if form == "jsonl":
        text = rows.write_ndjson()
    elif form == "csv":
        text = rows.write_csv(include_header=header)
    else:
        text = rows.write_csv(include_header=header, separator="\t", quote_style="never")
    stream.write(text.encode())


def _check_texts(frame: pl.DataFrame, form: Form, path: Path, row: int) -> None:
    """Check that the lines of a file can hold the texts; ``row`` is the number of the first."""
    found = []
    for name, dtype in frame.schema.items():
        if dtype != pl.String:
            continue
        wrong = frame[name].str.contains("\n" if form == "txt" else r"[\t\n]").fill_null(False)
        if name == frame.columns[-1]:  # the line end would swallow the CR
            wrong |= frame[name].str.ends_with("\r").fill_null(False)
        if wrong.any():
            found.append((int(wrong.arg_true()[0]), name))
    if found:
        first, name = min(found)
        what = f"a text with a tab or a line end does not fit into .{form}: {shown(frame[name][first])}"
        raise DataError(what, file=path, row=row + first, key=name, hint="write .parquet (or .jsonl) instead")
