"""Parquet: tables inside a run, and those of any other writer."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from kdcli.errors import DataError, first_line
from kdcli.tables.text import ROW_NUMBER, BadRows, check_columns, open_bytes

ROWS = 65_536  # rows that are read at once

_DAMAGED = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


class ParquetFile:
    """A Parquet file of any writer; categories and JSON are read as texts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        found = _schema(path)
        self._texts: dict[str, pl.Expr] = {}
        for name, dtype in found.items():
            if dtype in (pl.Categorical, pl.Enum):
                self._texts[name] = pl.col(name).cast(pl.String)
            elif isinstance(dtype, pl.BaseExtension) and dtype.ext_storage() == pl.String:
                self._texts[name] = pl.col(name).ext.storage()
        self.schema = pl.Schema(found | dict.fromkeys(self._texts, pl.String()))

    def batches(self, columns: Sequence[str], bad: BadRows) -> Iterator[pl.DataFrame]:
        """Yield the columns; there are no bad rows."""
        with readable(self.path):
            lazy = pl.scan_parquet(self.path, glob=False).select(columns)
            lazy = lazy.with_columns(text for name, text in self._texts.items() if name in columns)
            for begin in range(0, row_count(self.path), ROWS):
                frame = lazy.slice(begin, ROWS).collect()
                rows = pl.int_range(begin + 1, begin + 1 + len(frame), dtype=pl.Int64)
                yield frame.with_columns(rows.alias(ROW_NUMBER))


def scan(path: Path, columns: Sequence[str] | None = None) -> pl.LazyFrame:
    """Open a table of a run; ``columns`` are those to read, in this order, and one that it lacks is a ``DataError``."""
    check_columns(columns or (), _schema(path), path)
    lazy = pl.scan_parquet(path, glob=False)
    return lazy if columns is None else lazy.select(columns)


def row_count(path: Path) -> int:
    """Return the number of rows, which the footer holds."""
    with readable(path):
        return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())


def stored_class_names(path: Path, column: str) -> tuple[str, ...]:
    """Return the names of a column's classes, in order, that the library ``datasets`` has stored; empty without any."""
    try:
        features = json.loads(pl.read_parquet_metadata(path)["huggingface"])["info"]["features"]
        return tuple(features[column]["names"])
    except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError):
        return ()


def slices(table: pl.LazyFrame, size: int) -> Iterator[pl.DataFrame]:
    """Yield the rows in frames of ``size`` rows (the last may be smaller), in bounded memory."""
    yield from in_frames_of(size, table.collect_batches(chunk_size=size, maintain_order=True))


def in_frames_of(size: int, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Put the rows of frames of any size into frames of ``size`` rows; the last may be smaller."""
    waiting: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        waiting.append(frame)
        rows += len(frame)
        if rows >= size:
            whole = pl.concat(waiting)
            cut = rows - rows % size
            yield from whole[:cut].iter_slices(size)
            waiting, rows = [whole[cut:]], rows - cut
    if rows:
        yield pl.concat(waiting)


def stream(
    frames: Iterable[pl.DataFrame] | Callable[[list[str] | None], Iterable[pl.DataFrame]], schema: Any
) -> pl.LazyFrame:
    """Make a lazy table of frames that come one after the other.

    Frames can be collected once. A function is called each time, with the names of the columns to read (None: all).
    """

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        for frame in frames(columns) if callable(frames) else frames:
            chosen = frame if rows is None else frame.head(rows)
            rows = None if rows is None else rows - len(chosen)
            chosen = chosen if predicate is None else chosen.filter(predicate)
            yield chosen if columns is None else chosen.select(columns)
            if rows == 0:
                return

    return register_io_source(source, schema=schema)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what Polars raises on a missing or damaged file into a ``DataError`` that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError("the file does not exist", file=path) from error
    except _DAMAGED as error:
        hint = "it is damaged, or a column has a type that Polars does not know: write it without that column"
        raise DataError(f"the Parquet file cannot be read: {first_line(error)}", file=path, hint=hint) from error


def _schema(path: Path) -> dict[str, Any]:
    with open_bytes(path), readable(path):
        return dict(pl.read_parquet_schema(path))
