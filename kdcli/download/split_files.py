"""The splits of a dataset on their way to disk: as TSV, if TSV can hold them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kdcli.tables.read import write_table


def write_splits(folder: Path, tables: Mapping[str, pa.Table], *, no_header: Collection[str] = ()) -> dict[Path, int]:
    """Write tables of text columns: as TSV, or if a text of one has no place in it, all as Parquet.

    A table of one column becomes plain lines (``.txt``), or Parquet by itself.

    Args:
        folder: Where to.
        tables: The tables, by the names of their files without suffix.
        no_header: Those whose TSV has no header.

    Returns:
        The rows of each file.
    """
    several = {name: table for name, table in tables.items() if table.num_columns > 1}
    form = "tsv" if all(_fits(column, r"[\t\n]|\r\z") for table in several.values() for column in table) else "parquet"
    written = {}
    for name, table in tables.items():
        lines = name not in several
        suffix = form if not lines else "txt" if _fits(table.column(0), r"\n|\r\z") else "parquet"
        path = folder / f"{name}.{suffix}"
        if suffix == "tsv" and name in no_header:
            # Lines of one column, in which a tab is text, are a TSV without a header.
            line = pc.binary_join_element_wise(*table.columns, "\t")
            _write(path.with_suffix(".txt"), pa.table({"line": line}))
            path.with_suffix(".txt").rename(path)
        else:
            _write(path, table)
        written[path] = table.num_rows
    return written


def _fits(texts: pa.ChunkedArray, pattern: str) -> bool:
    return not pc.any(pc.match_substring_regex(texts, pattern)).as_py()


def _write(path: Path, table: pa.Table) -> None:
    with write_table(path, table.schema) as writer:
        writer.write(table)
