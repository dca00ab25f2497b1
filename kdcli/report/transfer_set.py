"""What a transfer set is like, source by source, in one pass over its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.tables.read import read_table

SAMPLES = 300
"""Rows to page through, as many of each source."""
LONGEST = 4096
"""Words from which on texts are counted together."""


@dataclass(frozen=True)
class Sample:
    """A row drawn at random.

    Attributes:
        texts: Its text, or both of a pair.
        source: Who made it.
        logits: The teacher's, or None.
    """

    texts: tuple[str, ...]
    source: str
    logits: tuple[float, ...] | None


@dataclass(frozen=True)
class Source:
    """The rows of one source: original, lite, heavy or corpus.

    Attributes:
        name: The source.
        lengths: ``int64 [LONGEST + 1]``: rows of each length, in words between white space (both texts of a pair).
        answers: ``int64 [classes]``: rows to which the teacher gives each label; None for scores or without a teacher.
        scores: ``float32 [rows]``: the teacher's scores; None for classes or without a teacher.
    """

    name: str
    lengths: NDArray[np.int64]
    answers: NDArray[np.int64] | None
    scores: NDArray[np.float32] | None

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.lengths.sum())

    @property
    def mean_length(self) -> float:
        """Words of a row, on average."""
        return float(self.lengths @ np.arange(len(self.lengths)) / self.rows)

    @property
    def median_length(self) -> int:
        """Words of the row in the middle."""
        return int(np.searchsorted(self.lengths.cumsum(), (self.rows + 1) // 2))


@dataclass(frozen=True)
class TransferSet:
    """A transfer set.

    Attributes:
        path: Its table.
        labelled: Whether the teacher's logits are in it.
        sources: In the order in which they come.
        samples: Rows drawn at random, in random order.
    """

    path: Path
    labelled: bool
    sources: list[Source]
    samples: list[Sample]

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(source.rows for source in self.sources)


def survey(path: Path, task: Task, *, seed: int, reporter: Reporter) -> TransferSet:
    """Read a transfer set, or a joined one, once; memory does not grow with its texts.

    Args:
        path: The table.
        task: The task.
        seed: Of the rows drawn.
        reporter: Shows the progress.

    Raises:
        DataError: The table cannot be read, or lacks a column.
    """
    outputs = [f"logits_{number}" for number in range(task.outputs)]
    labelled = set(outputs) <= set(read_table(path).columns)
    reader = read_table(path, columns=[*task.columns, "source", *(outputs if labelled else [])])
    random = np.random.default_rng(seed)
    tallies: dict[str, _Tally] = {}
    with reporter.progress("report", None, "rows") as progress:
        for batch in reader:
            lengths, logits = _words(batch, task), _logits(batch, outputs) if labelled else None
            order = random.random(batch.num_rows)
            names = np.asarray(batch["source"].to_pylist())
            for name in dict.fromkeys(names.tolist()):
                rows = np.flatnonzero(names == name)
                tally = tallies.setdefault(name, _Tally(task))
                tally.count(lengths[rows], None if logits is None else logits[rows])
                tally.draw(batch, rows, order[rows])
            progress.advance(batch.num_rows)
    drawn = [
        sample
        for name, tally in tallies.items()
        for sample in tally.samples(name, SAMPLES // len(tallies), outputs if labelled else [])
    ]
    drawn.sort(key=lambda pair: pair[0])
    sources = [tally.source(name) for name, tally in tallies.items()]
    return TransferSet(path, labelled, sources, [sample for _, sample in drawn])


@dataclass
class _Tally:
    """What is counted of a source, and the rows drawn of it so far: those with the lowest numbers in a random order."""

    task: Task
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(LONGEST + 1, np.int64))
    answers: NDArray[np.int64] | None = None
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    drawn: list[tuple[float, dict[str, object]]] = field(default_factory=list)

    def count(self, lengths: NDArray[np.int64], logits: NDArray[np.float32] | None) -> None:
        self.lengths += np.bincount(np.minimum(lengths, LONGEST), minlength=LONGEST + 1)
        if logits is None:
            return
        if self.task.is_score:
            self.scores.append(logits[:, 0])
        else:
            found = np.bincount(logits.argmax(1), minlength=self.task.outputs)
            self.answers = found if self.answers is None else self.answers + found

    def draw(self, batch: pa.RecordBatch, rows: NDArray[np.int64], order: NDArray[np.float64]) -> None:
        limit = self.drawn[-1][0] if len(self.drawn) == SAMPLES else np.inf
        best = order.argsort()[:SAMPLES]
        best = best[order[best] < limit]
        told = batch.take(pa.array(rows[best])).to_pylist()
        merged = [*self.drawn, *zip(order[best].tolist(), told, strict=True)]
        self.drawn = sorted(merged, key=lambda pair: pair[0])[:SAMPLES]

    def samples(self, name: str, number: int, outputs: Sequence[str]) -> list[tuple[float, Sample]]:
        return [
            (
                place,
                Sample(
                    tuple(str(row[column]) for column in self.task.columns),
                    name,
                    tuple(float(str(row[column])) for column in outputs) if outputs else None,
                ),
            )
            for place, row in self.drawn[:number]
        ]

    def source(self, name: str) -> Source:
        return Source(name, self.lengths, self.answers, np.concatenate(self.scores) if self.scores else None)


def _words(batch: pa.RecordBatch, task: Task) -> NDArray[np.int64]:
    counts = [pc.count_substring_regex(batch[column], r"\S+").to_numpy() for column in task.columns]
    lengths: NDArray[np.int64] = np.sum(counts, axis=0, dtype=np.int64)
    return lengths


def _logits(batch: pa.RecordBatch, outputs: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([batch[name].cast(pa.float32()).to_numpy(zero_copy_only=False) for name in outputs], axis=1)
