"""``kd join``: each row of the transfer set with its logits and its label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.io.plugins import register_io_source

from kdcli.api import Progress, QuietReporter, Reporter, Task
from kdcli.errors import DataError, UsageError
from kdcli.files import sha256
from kdcli.tables.parquet import slices
from kdcli.tables.read import ROW_NUMBER, shown
from kdcli.tables.write import write_table
from kdcli.tasks.labels import label_texts
from kdcli.tasks.text_set import TextSet, open_texts
from kdcli.teacher.external import read_external
from kdcli.teacher.logits import Logits, read_logits

ORIGINAL = "original"
ROWS = 65_536
"""Rows in memory at a time, about."""


@dataclass(frozen=True)
class JoinResult:
    """The result of a join.

    Attributes:
        rows: Rows of the joined set.
        original: How many of them are the task's own.
        labels: Rows of each label; empty for scores.
        agreement: Share of the original rows whose gold label is the teacher's choice; None where there are none.
    """

    rows: int
    original: int
    labels: dict[str, int] = field(default_factory=dict)
    agreement: float | None = None


def join(
    *,
    transfer: Path,
    logits: Path,
    task: Task,
    label: Literal["teacher", "gold"] = "teacher",
    output: Path,
    reporter: Reporter | None = None,
) -> JoinResult:
    """Write the transfer set with the columns ``label`` and ``logits_0..``, every row of it in its order.

    Args:
        transfer: A table with the task's text columns, ``source`` and, for gold labels, ``label``; or plain lines of
            texts. Without ``source`` no row is original.
        logits: A logits file, or logits or probabilities from elsewhere.
        task: The task.
        label: The label of original rows: the teacher's choice, or their own. Other rows get the teacher's choice;
            for scores that is the logit.
        output: The table to write.
        reporter: Shows the progress.

    Raises:
        DataError: The files cannot be read, do not fit the task, or a text has no logits.
        UsageError: The output is one of the inputs.
    """
    reporter = reporter or QuietReporter()
    for path in (transfer, logits):
        if output.exists() and path.exists() and output.samefile(path):
            raise UsageError("the output is one of the inputs", file=output, hint="give it another name")
    texts = open_texts(transfer, task, reporter)
    if label == "gold" and not {"source", "label"} <= set(texts.columns):
        hint = f"the columns are {', '.join(texts.columns)}"
        raise DataError("gold labels need the columns source and label", file=transfer, hint=hint)
    if "source" not in texts.columns:
        effect = "all its rows count as fabricated, and get the teacher's label"
        reporter.info(f"{transfer.name} has no column source: {effect}")
    found = _open(logits, transfer, task, reporter)
    counts = _Counts()
    with reporter.progress("join") as progress:
        joined = _Joining(texts, found, label == "gold", counts, progress)
        write_table(output, joined.frame())
    if counts.agreement is not None and counts.agreement <= counts.commonest:
        reporter.warn(
            f"the teacher's choice is the gold label of {counts.agreement:.1%} of the original rows, and the commonest "
            f"label is that of {counts.commonest:.1%}: are these its logits, the labels in this order?"
        )
    return JoinResult(counts.rows, counts.original, {name: counts.labels[name] for name in task.labels}, counts.agreement)


@dataclass
class _Counts:
    rows: int = 0
    original: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    gold: Counter[str] = field(default_factory=Counter)
    agreed: int = 0

    @property
    def agreement(self) -> float | None:
        return self.agreed / self.gold.total() if self.gold else None

    @property
    def commonest(self) -> float:
        return max(self.gold.values()) / self.gold.total()


@dataclass(frozen=True)
class _Joining:
    """One pass over a transfer set, which counts as it goes."""

    texts: TextSet
    logits: Logits
    gold: bool
    counts: _Counts
    progress: Progress

    def frame(self) -> pl.LazyFrame:
        """Return the joined rows, which are made as they are written."""
        task = self.texts.task
        schema = {name: pl.String() for name in (*task.columns, "source", "label")}
        schema |= {f"logits_{number}": pl.Float32() for number in range(task.outputs)}

        def batches(
            columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None
        ) -> Iterator[pl.DataFrame]:
            wanted = [*task.columns, *(name for name in ("source", "label") if name in self.texts.columns), ROW_NUMBER]
            for batch in slices(self.texts.frame.select(wanted), ROWS):
                yield self._join(batch)
                self.progress.advance(len(batch))

        return register_io_source(batches, schema=schema)

    def _join(self, batch: pl.DataFrame) -> pl.DataFrame:
        task, counts = self.texts.task, self.counts
        columns = [batch[name] for name in task.columns]
        values = self._values(columns, batch[ROW_NUMBER])
        source = batch["source"].cast(pl.String) if "source" in batch.columns else pl.Series(["corpus"] * len(batch))
        original = (source == ORIGINAL).fill_null(False)
        gold = pl.Series([None] * len(batch), dtype=pl.String)
        if "label" in batch.columns:
            own = label_texts(batch["label"], self.texts.path)
            gold = own.set(~original | (own == ""), None)
        chosen = _choices(values, task)
        labels = chosen
        if self.gold:
            self._check_gold(gold, original, batch[ROW_NUMBER])
            labels = gold.zip_with(gold.is_not_null(), chosen)
        counts.rows += len(batch)
        counts.original += int(original.sum())
        if not task.is_score:
            counts.labels.update(dict(labels.value_counts().iter_rows()))
            counts.gold.update(dict(gold.drop_nulls().value_counts().iter_rows()))
            counts.agreed += int((gold == chosen).sum())
        named = [source.alias("source"), labels.alias("label")]
        return pl.DataFrame([*columns, *named, *_series(values)])

    def _values(self, columns: Sequence[pl.Series], numbers: pl.Series) -> NDArray[np.float32]:
        """Return the logits of some texts, ``float32 [rows, outputs]``."""
        place = self.logits.rows(columns, self.counts.rows)
        if len(place) and place.min() < 0:
            row = int(np.argmin(place))
            what = f"this text has no logits: {shown(' | '.join(column[row] for column in columns))}"
            hint = "the logits are those of another transfer set, or texts were changed since: export them again"
            raise DataError(what, file=self.texts.path, row=numbers[row], hint=hint)
        values = self.logits.logits[place]
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise DataError("the logits of this text are not finite", file=self.texts.path, row=numbers[row])
        return values

    def _check_gold(self, gold: pl.Series, original: pl.Series, numbers: pl.Series) -> None:
        task = self.texts.task
        wrong = original & gold.is_null()
        if task.labels:
            wrong |= gold.is_not_null() & ~gold.is_in(task.labels).fill_null(False)
        if wrong.any():
            row = int(wrong.arg_true()[0])
            what = f"label {gold[row]!r} is not one of the task's" if gold[row] else "this original row has no gold label"
            hint = None if task.is_score else f"the labels are {', '.join(task.labels)}"
            raise DataError(what, file=self.texts.path, row=numbers[row], key="label", hint=hint)


def _open(path: Path, transfer: Path, task: Task, reporter: Reporter) -> Logits:
    if path.suffix != ".safetensors":
        return read_external(path, transfer=transfer, task=task, reporter=reporter)
    found = read_logits(path, task)
    if found.metadata.get("transfer_sha256") != sha256(transfer):
        reporter.warn(f"{path.name} was made for another transfer set or another form of it: its texts are looked up")
    return found


def _choices(values: NDArray[np.float32], task: Task) -> pl.Series:
    """Return the label of the highest logit; a score is the shortest number that reads back as the same float32."""
    if task.is_score:
        return pl.Series(np.ascontiguousarray(values[:, 0])).cast(pl.String).str.replace(r"\.0$", "")
    return pl.Series(task.labels)[values.argmax(axis=1)]


def _series(values: NDArray[np.float32]) -> list[pl.Series]:
    return [pl.Series(f"logits_{number}", np.ascontiguousarray(column)) for number, column in enumerate(values.T)]
