"""``kd transfer corpus``: texts of the user's own, cleaned and without those that the task has.

The files are read twice: first each text's hash is noted, then the texts that are new are taken. Memory holds some
numbers for each text, and never the texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import CorpusSettings
from kdcli.errors import DataError, ProfileError, UsageError
from kdcli.tables.forms import BadRowsMode, form_of
from kdcli.tables.read import TableReader, read_table
from kdcli.tasks.text_set import form_of_set, text_columns, with_tabs, without_marks
from kdcli.transfer.cleaning import clean_column, clean_keys, split_pair
from kdcli.transfer.gathering import new_texts, plain, select, write_report, write_set
from kdcli.transfer.keys import Keys, keys
from kdcli.transfer.nearness import Bits, Nearness, joined, lm_nearness, nearest, tfidf_nearness

EXAMPLES = 6
ROWS = 4096
"""Texts in memory at a time, about."""

_DROPS = {
    "unpaired": "without exactly one tab",
    "blank": "blank",
    "too_long": "too long",
    "duplicates": "duplicates",
    "train_copies": "copies of training texts",
    "held_out_copies": "copies of dev or test texts",
}


@dataclass(frozen=True)
class CorpusResult:
    """What ``transfer corpus`` made.

    Attributes:
        rows: Rows of the table.
        originals: The training set's own, which come first and are all kept.
        read: Texts in the files: those dropped, and the usable ones.
        unpaired: Dropped lines that are no pair, for want of a tab or for too many.
        blank: Dropped since they are white space, or one side of a pair is.
        too_long: Dropped since they, or one side of a pair, have more than ``max_words`` words.
        duplicates: Dropped because an earlier one says the same.
        train_copies: Dropped because a training text says the same.
        held_out_copies: Dropped because a dev or test text says the same.
        usable: The others.
        kept: How many of them are in the table.
        examples: The first of these (the nearest, if they are ordered); the texts of a pair stand around a ``|``.
    """

    rows: int
    originals: int
    read: int
    unpaired: int
    blank: int
    too_long: int
    duplicates: int
    train_copies: int
    held_out_copies: int
    usable: int
    kept: int
    examples: list[str]


def from_corpus(
    *,
    settings: CorpusSettings,
    train: pa.Table,
    held_out: Sequence[pa.Table],
    task: Task,
    seed: int,
    output: Path,
    bits: Bits | None = None,
    bad_rows: BadRowsMode = "error",
    reporter: Reporter | None = None,
) -> CorpusResult:
    """Make a transfer set: the originals, then texts of the user's files, cleaned.

    The table depends on the texts, the settings and the seed alone.

    Args:
        settings: The files, and which of their texts are taken: some at random (in the order of the files), or the
            nearest to the task (the nearest first).
        train: The training set: the task's text columns, and ``label``.
        held_out: The dev and test sets, with the same text columns: none of their texts is taken.
        task: The task.
        seed: Of the random choice.
        output: The table to write: the text columns, ``source`` (``original`` or ``corpus``), ``label`` (the
            originals' own, null for the others); what was done goes beside it, in ``NAME.report.json``.
        bits: Gives the bits of texts by the fine-tuned generator, for ``order_by = "lm"``.
        bad_rows: What ragged rows of the files do: raise an error, or be left out.
        reporter: Told of the progress.

    Raises:
        ProfileError: No files are named, too few or too many columns, or an order that needs ``bits``.
        DataError: A file is missing or cannot be read, it has no such columns, or nothing is left of the texts; or an
            original does not fit into a table of this form.
        UsageError: The output is one of the files.
        KdError: The disk is full, or the folder cannot be written.
    """
    reporter = reporter or QuietReporter()
    if settings.order_by == "lm" and bits is None:
        what = "order_by is lm, and the generator cannot tell the bits of a text"
        raise ProfileError(what, key="transfer.corpus.order_by", hint="take tfidf, or another generator")
    files = _Files(_open(settings, task, output, bad_rows, reporter), task.columns, settings.max_words)
    train = plain(train, task)
    # The originals go first: one that has no place in this form is known before the work.
    with write_set(output, train) as writer, TemporaryFile(dir=output.parent) as waiting:
        found, counts = _survey(files, reporter)
        new = new_texts(found, clean_keys([train], task), clean_keys([plain(table, task) for table in held_out], task))
        for reason in ("duplicates", "train_copies", "held_out_copies"):
            counts[reason] = getattr(new, reason)
        usable = counts["usable"] = int(new.keep.sum())
        if not usable:
            raise _nothing_left(settings, counts)
        if settings.num_samples > usable:
            reporter.warn(f"there are {usable} texts to take, and num_samples is {settings.num_samples}: all are taken")
        kept = counts["kept"] = min(settings.num_samples or usable, usable)
        if settings.order_by == "none":
            chosen = select(files.texts(), _at_random(new.keep, kept, seed))
        else:
            nearness = _nearness(settings, train, task, bits)
            chosen = nearest(select(files.texts(), new.keep), nearness, kept, waiting, reporter, total=usable)
        examples: list[str] = []
        with reporter.progress("assemble", train.num_rows + kept) as progress:
            progress.advance(train.num_rows)
            for texts in chosen:
                writer.write(texts, "corpus")
                progress.advance(texts.num_rows)
                first = texts.slice(0, EXAMPLES - len(examples))
                examples += [text.replace("\t", " | ") for text in joined(first.columns)]
    result = CorpusResult(rows=train.num_rows + kept, originals=train.num_rows, examples=examples, **counts)
    write_report(output, result)
    return result


@dataclass(frozen=True)
class _Files:
    """The user's files, which can be read again and again."""

    readers: Sequence[TableReader]
    columns: tuple[str, ...]
    max_words: int

    def read(self) -> Iterator[tuple[pa.RecordBatch, dict[str, int]]]:
        """Give the texts that are neither blank nor too long, with the counts of what was read and dropped."""
        for reader in self.readers:
            for batch in reader:
                columns, unpaired = _cleaned(batch, len(self.columns))
                there = np.all([_flags(pc.not_equal(column, "")) for column in columns], axis=0)
                # White space is one space now.
                spaces = np.max([pc.count_substring(column, " ").to_numpy() for column in columns], axis=0)
                short = spaces < self.max_words
                counts = {
                    "read": batch.num_rows,
                    "unpaired": unpaired,
                    "blank": batch.num_rows - unpaired - int(there.sum()),
                    "too_long": int((there & ~short).sum()),
                }
                texts = pa.record_batch(columns, names=list(self.columns))
                yield texts.filter(pa.array(there & short)), counts

    def texts(self) -> Iterator[pa.RecordBatch]:
        """Give the same texts alone."""
        return (texts for texts, _ in self.read())


def _open(
    settings: CorpusSettings, task: Task, output: Path, bad_rows: BadRowsMode, reporter: Reporter
) -> list[TableReader]:
    """Open the files, each with its text columns only."""
    if not settings.files:
        hint = """name some: --set transfer.corpus.files='["texts.txt"]'"""
        raise ProfileError("no files to take texts from", key="transfer.corpus.files", hint=hint)
    wanted = len(task.columns)
    if settings.columns and len(settings.columns) != wanted:
        what = f"a {task.kind} takes {wanted} text column{'s' * (wanted > 1)}, and {len(settings.columns)} are named"
        raise ProfileError(what, key="transfer.corpus.columns")
    readers = []
    for path in (Path(name).expanduser() for name in settings.files):
        if output.exists() and path.exists() and output.samefile(path):
            raise UsageError("the output is one of the files of texts", file=output, hint="give it another name")
        form = form_of(path) if settings.columns else form_of_set(path, task)
        reader = read_table(path, bad_rows=bad_rows, batch_rows=ROWS, form=form)
        columns = reader.columns if form == "txt" else _columns(reader, settings, task, reporter)
        if columns != reader.columns:
            reader = read_table(path, columns=columns, bad_rows=bad_rows, batch_rows=ROWS, form=form)
        for field in reader.schema:
            if not pa.types.is_string(field.type):
                raise DataError(f"this column holds {field.type}, not texts", file=path, key=field.name)
        readers.append(reader)
    return readers


def _columns(reader: TableReader, settings: CorpusSettings, task: Task, reporter: Reporter) -> tuple[str, ...]:
    """Choose the text columns of a file: two for a pair, or one whose texts have a tab."""
    if settings.columns:
        return settings.columns
    if known := text_columns(reader.columns, task):
        return known
    if len(reader.columns) == 1:
        reporter.info(f"{reader.path.name}: texts are in the column {reader.columns[0]!r}")
        return reader.columns
    lacking = " and ".join(name for name in task.columns if name not in reader.columns)
    hint = f"name the text columns in transfer.corpus.columns; there are {', '.join(reader.columns)}"
    raise DataError(f"there is no column {lacking}", file=reader.path, key="transfer.corpus.columns", hint=hint)


def _survey(files: _Files, reporter: Reporter) -> tuple[Keys, Counter[str]]:
    """Read the hashes of all texts that are neither blank nor too long, and count the others."""
    found = [np.zeros(0, np.uint64)]
    counts = Counter(dict.fromkeys(("read", *_DROPS), 0))
    with reporter.progress("read", unit="texts") as progress:
        for texts, of_batch in files.read():
            found.append(keys(texts.columns))
            counts.update(of_batch)
            progress.advance(of_batch["read"])
    for reader in files.readers:
        if reader.skipped:
            reporter.warn(f"{reader.path.name}: {reader.skipped} bad rows skipped, the first is {reader.first_skipped}")
    return np.concatenate(found), counts


def _cleaned(batch: pa.RecordBatch, wanted: int) -> tuple[list[pa.StringArray], int]:
    """Clean the texts of a batch; a single column of pairs is cut at the tabs.

    Returns:
        The text columns, without rows that are no pair, and the number of lines that have something, and not one tab.
    """
    columns = [without_marks(pc.fill_null(column, "")) for column in batch.columns]
    if len(columns) == wanted:
        return [clean_column(column) for column in columns], 0
    lines = with_tabs(columns[0]).to_pylist()
    pairs = [pair for line in lines if (pair := split_pair(line))]
    unpaired = sum(1 for line in lines if line.count("\t") != 1 and line.strip())
    return [pa.array([pair[side] for pair in pairs], pa.string()) for side in range(wanted)], unpaired


def _at_random(keep: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.bool_]:
    """Choose ``count`` of the texts to keep: those with the smallest random numbers.

    Each text's number depends on the seed and its place among all, and not on which others are kept.
    """
    numbers = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))).random(len(keep))
    there = np.flatnonzero(keep)
    chosen = np.zeros(len(keep), np.bool_)
    chosen[there[np.argsort(numbers[there], kind="stable")[:count]]] = True
    return chosen


def _nearness(settings: CorpusSettings, train: pa.Table, task: Task, bits: Bits | None) -> Nearness:
    if settings.order_by == "lm" and bits is not None:
        return lm_nearness(bits)
    return tfidf_nearness(joined([train[name] for name in task.columns]))


def _nothing_left(settings: CorpusSettings, counts: Counter[str]) -> DataError:
    reasons = ", ".join(f"{counts[name]} {reason}" for name, reason in _DROPS.items() if counts[name])
    what = f"nothing is left of the {counts['read']} texts" + (f": {reasons}" if reasons else "")
    hint = "name files of other texts in transfer.corpus.files"
    return DataError(what, file=", ".join(settings.files), key="transfer.corpus.files", hint=hint)


def _flags(values: pa.BooleanArray) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = values.to_numpy(zero_copy_only=False)
    return flags
