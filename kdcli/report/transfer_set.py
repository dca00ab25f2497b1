"""A transfer set by source: lengths, the teacher's answers, and some rows to page through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.tables.parquet import scan
from kdcli.transfer.cleaning import WORD, take

SAMPLES = 300
"""Rows to page through, as many of each source."""
LONGEST = 4096
"""Words from which on texts are counted together."""


@dataclass(frozen=True)
class SampledRow:
    """A row drawn at random."""

    texts: tuple[str, ...]  # its text, or both of a pair
    source: str
    logits: tuple[float, ...] | None  # the teacher's, or None


@dataclass(frozen=True)
class SourceCounts:
    """The rows of one source: original, lite, heavy or corpus."""

    name: str
    lengths: NDArray[np.int64]  # [LONGEST + 1], rows of each length in words (of both texts of a pair)
    answers: NDArray[np.int64] | None  # [classes], rows to which the teacher gives each label
    scores: NDArray[np.float32] | None  # [rows], the teacher's scores

    @property
    def rows(self) -> int:
        """The number of its rows."""
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
    """A transfer set."""

    path: Path
    labelled: bool  # whether the teacher's logits are in it
    sources: list[SourceCounts]  # in the order in which they come
    samples: list[SampledRow]  # rows drawn at random, in random order

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return sum(source.rows for source in self.sources)


def survey(path: Path, task: Task, *, seed: int, reporter: Reporter) -> TransferSet:
    """Read a transfer set, or a joined one; of each row some numbers are in memory, but not the texts.

    Raises:
        DataError: The table cannot be read, or lacks a column.
    """
    outputs = [f"logits_{number}" for number in range(task.outputs)]
    labelled = set(outputs) <= set(scan(path).collect_schema().names())
    table = scan(path, [*task.columns, "source", *(outputs if labelled else [])])
    words = pl.sum_horizontal(pl.col(task.columns).str.count_matches(WORD)).clip(upper_bound=LONGEST)
    numbers = {"source": pl.col("source"), "words": words}
    if labelled and task.is_score:
        numbers["score"] = pl.col(outputs[0]).cast(pl.Float32)
    elif labelled:
        numbers["answer"] = pl.concat_list(outputs).list.arg_max()
    with reporter.progress("report", None, "rows") as progress:
        counted = table.select(**numbers).collect().with_row_index("row")
        progress.advance(len(counted))
    by_source = counted.partition_by("source", maintain_order=True)
    random = np.random.default_rng(seed)
    drawn = [random.permutation(rows["row"].to_numpy())[: SAMPLES // len(by_source)] for rows in by_source]
    chosen = random.permutation(np.concatenate([np.zeros(0, np.int64), *drawn]))
    samples = [
        SampledRow(
            tuple(row[name] for name in task.columns),
            row["source"],
            tuple(row[name] for name in outputs) if labelled else None,
        )
        for row in take(table, chosen, len(counted)).iter_rows(named=True)
    ]
    return TransferSet(path, labelled, [_count(rows, task) for rows in by_source], samples)


def _count(rows: pl.DataFrame, task: Task) -> SourceCounts:
    answers = np.bincount(rows["answer"].to_numpy(), minlength=task.outputs) if "answer" in rows.columns else None
    scores = rows["score"].to_numpy() if "score" in rows.columns else None
    lengths = np.bincount(rows["words"].to_numpy(), minlength=LONGEST + 1)
    return SourceCounts(rows["source"][0], lengths, answers, scores)
