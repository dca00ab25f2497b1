"""Transfer sets of several methods joined into one: ``transfer.method = "lite+corpus"``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError
from kdcli.tables.parquet import scan, slices
from kdcli.tables.text_hash import text_hash
from kdcli.tables.write import write_table
from kdcli.transfer.cleaning import Hashes, Mask, keys, new_texts, select

_ROWS = 65_536


@dataclass(frozen=True)
class MixResult:
    """The join of some transfer sets."""

    rows: int
    originals: int  # the training set's own, which come first
    kept: dict[str, int]  # new texts that were taken from each set, by its name
    dropped: dict[str, int]  # those left out, since a set before it (or the same one) says the same


def mix(*, sets: Mapping[str, Path], task: Task, output: Path, reporter: Reporter | None = None) -> MixResult:
    """Join transfer sets: the originals, then the new texts of each, without what came before.

    Texts are equal whatever their white space. New texts are not compared with the originals: a set that kept
    copies of them on purpose keeps them here. ``sets`` are Parquet tables by method, in order.

    Raises:
        DataError: A table cannot be read, lacks a column or has other originals.
    """
    tables = {name: scan(path, (*task.columns, "source", "label")) for name, path in sets.items()}
    surveys = {name: _survey(table, task) for name, table in tables.items()}
    _check_originals(surveys, sets)
    none = np.zeros(0, np.uint64)
    keep = new_texts(np.concatenate([none, *(survey.made for survey in surveys.values())]), none, none).keep
    ends = np.cumsum([len(survey.made) for survey in surveys.values()])
    new = dict(zip(surveys, np.split(keep, ends[:-1]), strict=True))
    chosen = []
    for number, (name, survey) in enumerate(surveys.items()):
        wanted = survey.original & (number == 0)
        wanted[~survey.original] = new[name]
        chosen.append(select(tables[name], wanted))
    kept = {name: int(of_set.sum()) for name, of_set in new.items()}
    originals = len(next(iter(surveys.values())).originals)
    rows = originals + sum(kept.values())
    with (reporter or QuietReporter()).progress("mix", rows) as progress:
        write_table(output, pl.concat(chosen))
        progress.advance(rows)
    dropped = {name: len(survey.made) - kept[name] for name, survey in surveys.items()}
    return MixResult(rows, originals, kept, dropped)


@dataclass(frozen=True)
class _SetHashes:
    """Which rows of a set are originals, and the hashes of the originals and of the new texts."""

    original: Mask
    originals: Hashes
    made: Hashes


def _survey(table: pl.LazyFrame, task: Task) -> _SetHashes:
    masks, originals, made = [np.zeros(0, np.bool_)], [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    original, texts = pl.col("source") == "original", pl.col(task.columns)
    for frame in slices(table, _ROWS):
        masks.append(frame.select(original).to_series().to_numpy())
        originals.append(text_hash(frame.filter(original).select(texts).get_columns()))
        made.append(keys(frame.filter(~original).select(texts)))
    return _SetHashes(np.concatenate(masks), np.concatenate(originals), np.concatenate(made))


def _check_originals(surveys: Mapping[str, _SetHashes], sets: Mapping[str, Path]) -> None:
    first, *others = surveys
    ours = surveys[first].originals
    for name in others:
        theirs = surveys[name].originals
        if np.array_equal(theirs, ours):
            continue
        what = f"{len(theirs)} originals where the set of {first} has {len(ours)}"
        if len(theirs) == len(ours):
            number = int(np.argmax(theirs != ours)) + 1
            what = f"original number {number} is another text than in the set of {first}"
        raise DataError(what, file=sets[name], key="source", hint="make both from the same training set")
