"""Transfer sets of several methods joined into one: ``transfer.method = "lite+corpus"``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError, UsageError
from kdcli.tables.read import TableReader, read_table, write_table
from kdcli.transfer.gathering import distinct, select, set_schema, write_report
from kdcli.transfer.keys import Keys, keys, normal_keys

_NONE = np.zeros(0, np.uint64)


@dataclass(frozen=True)
class MixResult:
    """What joining transfer sets made.

    Attributes:
        rows: Rows of the table.
        originals: The training set's own, which come first.
        kept: Texts made that were taken from each set, by its name.
        dropped: Those left out, since a set before it (or the same one) says the same.
    """

    rows: int
    originals: int
    kept: dict[str, int]
    dropped: dict[str, int]


def mix(*, sets: Mapping[str, Path], task: Task, output: Path, reporter: Reporter | None = None) -> MixResult:
    """Join transfer sets: the originals, then the texts that each has made, without what came before.

    Texts are equal whatever their white space. Made texts are not compared with the originals: a set that kept
    copies of them on purpose keeps them here.

    Args:
        sets: The tables, by method, in the order in which they are joined; all with the same originals.
        task: The task.
        output: The table to write; the result goes beside it, in ``NAME.report.json``.
        reporter: Told of the progress.

    Raises:
        DataError: A table cannot be read, lacks a column or has other originals; or a text does not fit into a
            table of the output's form.
        UsageError: The output is one of the sets.
    """
    reporter = reporter or QuietReporter()
    readers = {}
    for name, path in sets.items():
        if output.exists() and path.exists() and output.samefile(path):
            raise UsageError("the output is one of the transfer sets", file=output, hint="give it another name")
        readers[name] = read_table(path, columns=set_schema(task.columns).names)
    surveys = {name: _survey(reader, task) for name, reader in readers.items()}
    _check_originals(surveys, sets)
    keep, _, _ = distinct(np.concatenate([_NONE, *(survey.made for survey in surveys.values())]), _NONE, _NONE)
    ends = np.cumsum([len(survey.made) for survey in surveys.values()])
    new = dict(zip(surveys, np.split(keep, ends[:-1]), strict=True))
    kept = {name: int(of_set.sum()) for name, of_set in new.items()}
    originals = len(next(iter(surveys.values())).originals)
    rows = originals + sum(kept.values())
    with reporter.progress("mix", rows) as progress, write_table(output, set_schema(task.columns)) as writer:
        for number, (name, survey) in enumerate(surveys.items()):
            wanted = np.full(len(survey.original), number == 0)
            wanted[~survey.original] = new[name]
            for batch in select(_rows(readers[name]), wanted):
                writer.write(batch)
                progress.advance(batch.num_rows)
    dropped = {name: len(survey.made) - kept[name] for name, survey in surveys.items()}
    result = MixResult(rows, originals, kept, dropped)
    write_report(output, result)
    return result


@dataclass(frozen=True)
class _Survey:
    """What there is in a set: ``original`` tells it of each row, the keys are those of each kind's texts."""

    original: NDArray[np.bool_]
    originals: Keys
    made: Keys


def _survey(reader: TableReader, task: Task) -> _Survey:
    kinds, originals, made = [np.zeros(0, np.bool_)], [_NONE], [_NONE]
    for batch in _rows(reader):
        original = pc.equal(batch["source"], "original")
        kinds.append(original.to_numpy(zero_copy_only=False))
        texts = batch.select(list(task.columns))
        originals.append(keys(texts.filter(original).columns))
        made.append(normal_keys(texts.filter(pc.invert(original)).columns))
    return _Survey(np.concatenate(kinds), np.concatenate(originals), np.concatenate(made))


def _check_originals(surveys: Mapping[str, _Survey], sets: Mapping[str, Path]) -> None:
    first, *others = surveys
    ours = surveys[first].originals
    hint = "make both from the same training set"
    for name in others:
        theirs = surveys[name].originals
        if len(theirs) != len(ours):
            what = f"{len(theirs)} originals where the set of {first} has {len(ours)}"
            raise DataError(what, file=sets[name], key="source", hint=hint)
        if (theirs != ours).any():
            number = int(np.argmax(theirs != ours)) + 1
            what = f"original number {number} is another text than in the set of {first}"
            raise DataError(what, file=sets[name], key=first, hint=hint)


def _rows(reader: TableReader) -> Iterator[pa.RecordBatch]:
    """Give the rows as text; a null is an empty text, and an empty label null."""
    for batch in reader:
        *texts, label = (pc.fill_null(column.cast(pa.string()), "") for column in batch.columns)
        label = pc.if_else(pc.equal(label, ""), None, label)
        yield pa.record_batch([*texts, label], set_schema(reader.columns[:-2]))
