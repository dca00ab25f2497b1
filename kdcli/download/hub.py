"""Tasks from the Hugging Face Hub: its Parquet files, as the files and columns that the task's authors publish."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from kdcli.api import Reporter
from kdcli.errors import DataError, MissingError, first_line
from kdcli.tables.parquet import stored_class_names
from kdcli.tables.read import read_table
from kdcli.tables.write import write_table
from kdcli.tasks.glue import HIDDEN, TASKS, UNKNOWN, Columns, GlueTask

IMDB_FILES = {name: f"plain_text/{name}-*.parquet" for name in ("train", "test", "unsupervised")}
"""The Parquet files of each split of IMDB (Maas et al. 2011) on the Hub."""
IMDB_SEED = 1
_IMDB_DEV = 10
"""One training review in so many goes to the dev set: 2,500 of the 25,000."""


@dataclass(frozen=True)
class HubSplit:
    """The rows of a split, and the names of the classes in the order of their numbers, where the dataset has them."""

    rows: pl.DataFrame
    names: tuple[str, ...]


def read_splits(
    where: str, files: Mapping[str, str], reporter: Reporter, *, offline: bool = False
) -> dict[str, HubSplit]:
    """Read the splits of a dataset, downloaded unless they are in the Hub's cache or in a folder.

    ``where`` is its name on the Hub (``nyu-mll/glue``), or a folder that holds the same files; ``files`` are the
    Parquet files of each split, as a pattern: ``{"train": "sst2/train-*.parquet"}``.

    Raises:
        MissingError: The dataset cannot be downloaded.
        DataError: The folder lacks a file, or a file is damaged.
    """
    folder = Path(where).expanduser()
    if not folder.is_dir():
        folder = _download(where, files, reporter, offline)
    elif missing := _missing(folder, files):
        hint = f"it must be a copy of the dataset's folder on the Hub, with {', '.join(files.values())}"
        raise DataError(f"the folder has no {missing}", file=folder, hint=hint)
    return {name: _read(sorted(folder.glob(pattern))) for name, pattern in files.items()}


def _read(paths: list[Path]) -> HubSplit:
    frames = [read_table(path) for path in paths]
    rows = pl.concat(frame.frame().select(frame.columns) for frame in frames)
    return HubSplit(rows, stored_class_names(paths[0], "label"))


def _missing(folder: Path, files: Mapping[str, str]) -> str | None:
    """Return a pattern whose files are not all there; ``-of-00003`` in a name says how many there must be."""
    for pattern in files.values():
        found = list(folder.glob(pattern))
        counts = [re.search(r"-of-(\d+)\.", path.name) for path in found]
        if not found or any(count and int(count[1]) != len(found) for count in counts):
            return pattern
    return None


def _download(where: str, files: Mapping[str, str], reporter: Reporter, offline: bool) -> Path:
    """Return the folder of a dataset in the Hub's cache, which is asked first."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # the terminal is the reporter's
    why = "it is not in the cache, and --offline is set"
    for local in (True,) if offline else (True, False):
        if not local:
            reporter.info(f"downloading the dataset {where} from the Hugging Face Hub")
        try:
            patterns = list(files.values())
            found = snapshot_download(where, repo_type="dataset", allow_patterns=patterns, local_files_only=local)
            missing = _missing(Path(found), files)
            if not missing:
                return Path(found)
            why = why if local else f"it has no {missing}"
        except Exception as error:
            why = why if local else first_line(error)
    hint = "check the network and HTTPS_PROXY, or name a folder that holds a copy of the dataset: --url FOLDER"
    raise MissingError(f"the dataset {where!r} cannot be downloaded: {why}", hint=hint)


def glue_tables(name: str, splits: Mapping[str, HubSplit]) -> dict[str, pl.DataFrame]:
    """Turn the Hub's splits of a task into GLUE's tables of texts, by the names of their files without suffix.

    Raises:
        DataError: A column is missing, or a label is not one of the task's.
    """
    task = TASKS[name]
    return {file: _table(task, splits[split], task.columns(file), split) for file, split in task.splits.items()}


def imdb_tables(splits: Mapping[str, HubSplit]) -> dict[str, pl.DataFrame]:
    """Draw a dev set from the training reviews, which are shuffled: the Hub has all negative ones first.

    They have the columns ``sentence`` and ``label`` (0 is negative), unsupervised has ``sentence`` alone.
    """
    tables = {}
    for name, split in splits.items():
        columns = ("text",) if name == "unsupervised" else ("text", "label")
        _check_columns(split.rows, columns, name)
        tables[name] = split.rows.select(pl.col(columns).cast(pl.String)).rename({"text": "sentence"})
    train = tables["train"]
    order = np.random.default_rng(IMDB_SEED).permutation(len(train))
    held_out = len(train) // _IMDB_DEV
    return {**tables, "train": train[order[held_out:]], "dev": train[order[:held_out]]}


def write_splits(
    folder: Path, tables: Mapping[str, pl.DataFrame], *, no_header: Collection[str] = ()
) -> dict[Path, int]:
    """Write tables of text columns: as TSV, or all as Parquet if a text does not fit into TSV.

    A table of one column becomes plain lines (``.txt``), or Parquet by itself. The TSV of ``no_header`` has none.

    Returns:
        The rows of each file.
    """
    form = "tsv" if all(_fits(table, r"[\t\n]|\r$") for table in tables.values() if table.width > 1) else "parquet"
    written = {}
    for name, table in tables.items():
        suffix = form if table.width > 1 else "txt" if _fits(table, r"\n|\r$") else "parquet"
        path = folder / f"{name}.{suffix}"
        if suffix == "tsv" and name in no_header:
            # Plain lines in which a tab is text are a TSV without a header.
            lines = table.select(pl.concat_str(pl.all(), separator="\t").alias("line"))
            written[path] = write_table(path.with_suffix(".txt"), lines)
            path.with_suffix(".txt").rename(path)
        else:
            written[path] = write_table(path, table)
    return written


def _fits(table: pl.DataFrame, pattern: str) -> bool:
    return not any(column.str.contains(pattern).any() for column in table)


def _table(task: GlueTask, split: HubSplit, columns: Columns, where: str) -> pl.DataFrame:
    rows = split.rows
    if "idx" not in rows.columns:
        rows = rows.with_row_index("idx")
    _check_columns(rows, filter(None, columns.values()), where)
    return rows.select(
        pl.lit(UNKNOWN).alias(name)
        if column is None
        else (_labels(task, split, where) if column == "label" else rows[column].cast(pl.String)).alias(name)
        for name, column in columns.items()
    )


def _check_columns(rows: pl.DataFrame, columns: Iterable[str], where: str) -> None:
    for column in (column for column in columns if column not in rows.columns):
        what = f"the split {where} of the dataset has no column {column!r}"
        raise DataError(what, key=column, hint=f"it has {', '.join(rows.columns)}")


def _labels(task: GlueTask, split: HubSplit, where: str) -> pl.Series:
    """Write the labels as GLUE does: the name or number of a class, a score with three decimals."""
    column = split.rows["label"]
    if task.score:
        return pl.Series([_score(score) for score in column.to_list()], dtype=pl.String)
    if column.dtype == pl.String or task.numbers:
        return column.cast(pl.String)
    names = split.names or task.labels
    if set(names) != set(task.labels):
        what = f"the classes of the dataset are {', '.join(names)}, and GLUE's are {', '.join(task.labels)}"
        raise DataError(what, key="label")
    numbers = column.cast(pl.Int64)
    if not numbers.is_between(-1, len(names) - 1).all():
        raise DataError(f"the split {where} of the dataset has labels without a class", key="label")
    return pl.Series([HIDDEN, *names])[(numbers + 1).to_numpy()]


def _score(score: float) -> str:
    """Write a score as GLUE does; the Hub keeps it in 32 bits, so that 3.8 is 3.799999952..."""
    text = f"{score:.3f}"
    return text if np.float32(text) == np.float32(score) else str(np.float32(score))
