"""One pass over a table of a task: its texts and labels counted in several threads, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from os import cpu_count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tables.forms import Numbers
from kdcli.tables.read import TableReader, read_table
from kdcli.tables.spans import Hashes, Spans
from kdcli.tasks.counting import LabelCounter, ScoreCounter, TextCounts, as_numpy, count_texts
from kdcli.tasks.labels import without_hidden
from kdcli.tasks.detect import Shape
from kdcli.tasks.repeats import Keys

_TOGETHER = 8
"""Blocks of a file that a thread counts in one go."""
_THREADS = min(cpu_count() or 1, 4)

_Block = tuple[Numbers, Spans, pa.StringArray]
_Job = tuple[Numbers, NDArray[np.float64], Future[tuple[TextCounts, Hashes, Hashes]]]


@dataclass
class Contents:
    """What is in a table.

    Attributes:
        texts: What its texts are like.
        labels: Its labels, or its scores.
        keys: What is kept of each row, 32 bytes.
        dropped: How many rows were dropped for their labels, by label.
        bad_rows: Rows that cannot be read.
        first_bad_row: Where the first of these is, and what is wrong with it.
        error: What broke the reading off; what was read before is counted.
    """

    texts: TextCounts
    labels: LabelCounter | ScoreCounter
    keys: Keys
    dropped: dict[str, int] = field(default_factory=dict)
    bad_rows: int = 0
    first_bad_row: str = ""
    error: DataError | None = None


def read_contents(
    path: Path, shape: Shape, settings: TaskSettings, task: Task, reporter: Reporter, *, labelled: bool
) -> Contents:
    """Read a table once, and count what is in it.

    Args:
        path: The table.
        shape: How it is to be read.
        settings: Which labels are dropped.
        task: The task.
        reporter: Told how it goes.
        labelled: Whether each row should have a label; otherwise none is dropped, and GLUE's -1 is none.

    Raises:
        DataError: The file cannot be opened as such a table.
    """
    columns = [*shape.texts, *filter(None, [shape.label])]
    reader = read_table(path, header=shape.header, columns=columns, bad_rows="skip", form=shape.form)
    found = Contents(TextCounts(), ScoreCounter(task) if task.is_score else LabelCounter(), Keys.joined([]))
    blocks = _blocks(reader, shape, settings, task, labelled, found)
    keys = []
    with ThreadPoolExecutor(_THREADS) as pool, reporter.progress(path.name) as progress:
        for rows, labels, job in _ahead(_jobs(blocks, found.labels, pool)):
            texts, exact, folded = job.result()
            found.texts += texts
            keys.append(Keys(rows, exact, folded, labels))
            progress.advance(len(rows))
    found.keys = Keys.joined(keys)
    found.bad_rows, found.first_bad_row = reader.skipped, reader.first_skipped
    return found


def _blocks(
    reader: TableReader, shape: Shape, settings: TaskSettings, task: Task, labelled: bool, found: Contents
) -> Iterator[_Block]:
    """Give the rows that are not dropped, until what they are in cannot be read any further."""
    marks = pa.array(settings.drop_labels, pa.string())
    try:
        for rows, spans, others in reader.spans(shape.texts):
            label = pa.nulls(len(rows), pa.string()) if shape.label is None else others[shape.label].cast(pa.string())
            dropped = pc.is_in(label, value_set=marks)
            if labelled and dropped.true_count:
                for mark in label.filter(dropped).to_pylist():
                    found.dropped[mark] = found.dropped.get(mark, 0) + 1
                kept = as_numpy(pc.invert(dropped))
                rows, label = rows[kept], label.filter(pc.invert(dropped))
                spans = Spans(spans.data, spans.begins[:, kept], spans.ends[:, kept])
            label = pc.if_else(dropped, None, label) if not labelled else label
            yield rows, spans.copy(), without_hidden(label, task, labelled=labelled)
    except DataError as error:
        found.error = error


def _jobs(blocks: Iterator[_Block], labels: LabelCounter | ScoreCounter, pool: ThreadPoolExecutor) -> Iterator[_Job]:
    """Have texts counted, some blocks at a time; their labels are counted here, in order."""
    while some := list(islice(blocks, _TOGETHER)):
        rows, spans, of_rows = zip(*some, strict=True)
        numbers = np.concatenate(rows)
        yield numbers, labels.add(numbers, pa.concat_arrays(of_rows)), pool.submit(count_texts, rows, spans)


def _ahead(jobs: Iterator[_Job]) -> Iterator[_Job]:
    """Start a few jobs before the result of the first is asked for."""
    waiting: deque[_Job] = deque()
    for job in jobs:
        waiting.append(job)
        if len(waiting) > _THREADS:
            yield waiting.popleft()
    yield from waiting
