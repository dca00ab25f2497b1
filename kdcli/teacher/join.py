"""The join: each row of the transfer set with its logits and its label."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError, UsageError
from kdcli.files import sha256
from kdcli.tables.forms import shown
from kdcli.tables.read import write_table
from kdcli.tasks.text_set import open_texts
from kdcli.teacher.external import read_foreign
from kdcli.teacher.logits import Logits, read_logits
from kdcli.teacher.texts import Texts, read_texts

ORIGINAL = "original"


@dataclass(frozen=True)
class JoinResult:
    """What a join made.

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
        label: The label of original rows: the teacher's choice, or their own. Other rows take the teacher's choice;
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
    rows = open_texts(transfer, task, reporter)
    if label == "gold" and not {"source", "label"} <= set(rows.columns):
        hint = f"the columns are {', '.join(rows.columns)}"
        raise DataError("gold labels need the columns source and label", file=transfer, hint=hint)
    if "source" not in rows.columns:
        reporter.info(
            f"{transfer.name} has no column source: all its rows count as fabricated, and take the teacher's label"
        )
    found = _open(logits, transfer, task, reporter)
    floats = [pa.field(f"logits_{number}", pa.float32()) for number in range(task.outputs)]
    schema = pa.schema([*(pa.field(name, pa.string()) for name in (*task.columns, "source", "label")), *floats])
    counts = _Counts()
    with reporter.progress("join") as progress, write_table(output, schema) as writer:
        for texts in read_texts(rows):
            values = _logits_of(texts, found, counts.rows, transfer)
            source, gold = _source(texts), _gold(texts)
            chosen = _choices(values, task)
            labels = pc.if_else(gold.is_valid(), gold, chosen) if label == "gold" else chosen
            if label == "gold":
                _check_gold(gold, source, task, texts, transfer)
            counts.add_rows(source)
            if not task.is_score:
                counts.add_labels(labels, gold, chosen)
            columns = [*texts.columns, source, labels, *(pa.array(column) for column in values.T)]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            progress.advance(len(values))
    _warn_of_chance(counts, reporter)
    by_label = {name: counts.labels[name] for name in task.labels}
    return JoinResult(counts.rows, counts.original, by_label, counts.agreement)


@dataclass
class _Counts:
    rows: int = 0
    original: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    gold: Counter[str] = field(default_factory=Counter)
    agreed: int = 0

    def add_rows(self, source: pa.Array) -> None:
        self.rows += len(source)
        self.original += pc.sum(pc.equal(source, ORIGINAL)).as_py() or 0

    def add_labels(self, labels: pa.Array, gold: pa.Array, chosen: pa.Array) -> None:
        self.labels.update(_count(labels))
        self.gold.update(_count(gold.drop_null()))
        self.agreed += pc.sum(pc.equal(gold, chosen)).as_py() or 0

    @property
    def agreement(self) -> float | None:
        return self.agreed / self.gold.total() if self.gold else None


def _open(path: Path, transfer: Path, task: Task, reporter: Reporter) -> Logits:
    if path.suffix != ".safetensors":
        return read_foreign(path, transfer=transfer, task=task, reporter=reporter)
    found = read_logits(path, task)
    if found.metadata.get("transfer_sha256") != sha256(transfer):
        reporter.warn(f"{path.name} was made for another transfer set or another form of it: its texts are looked up")
    return found


def _logits_of(texts: Texts, found: Logits, start: int, transfer: Path) -> NDArray[np.float32]:
    """Return ``float32 [rows, outputs]`` for the rows of which ``start`` is the first."""
    place = found.rows(texts.hashes, start)
    if len(place) and place.min() < 0:
        row = int(np.argmin(place))
        what = f"this text has no logits: {shown(' | '.join(column[row].as_py() for column in texts.columns))}"
        hint = "the logits are those of another transfer set, or texts were changed since: export them again"
        raise DataError(what, file=transfer, row=int(texts.numbers[row]), hint=hint)
    values = found.logits[place]
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise DataError("the logits of this text are not finite", file=transfer, row=int(texts.numbers[row]))
    return values


def _choices(values: NDArray[np.float32], task: Task) -> pa.Array:
    """Name the label of the highest logit; a score is the shortest number that reads back as the same float32."""
    if task.is_score:
        return pa.array(np.ascontiguousarray(values[:, 0])).cast(pa.string())
    return pa.array(task.labels).take(pa.array(values.argmax(axis=1)))


def _source(texts: Texts) -> pa.Array:
    if "source" not in texts.batch.schema.names:
        return pa.array(["corpus"] * len(texts.hashes), pa.string())
    return texts.batch["source"].cast(pa.string())


def _gold(texts: Texts) -> pa.Array:
    """Return the original rows' own labels; null for all other rows and where there is none."""
    if "label" not in texts.batch.schema.names:
        return pa.nulls(len(texts.hashes), pa.string())
    own = texts.batch["label"].cast(pa.string())
    return pc.if_else(pc.and_(pc.equal(_source(texts), ORIGINAL), pc.not_equal(own, "")), own, None)


def _check_gold(gold: pa.Array, source: pa.Array, task: Task, texts: Texts, transfer: Path) -> None:
    absent = pc.and_(gold.is_null(), pc.equal(source, ORIGINAL))
    wrong = pc.and_(gold.is_valid(), pc.invert(pc.is_in(gold, pa.array(task.labels)))) if task.labels else absent
    row = pc.index(pc.or_(absent, wrong), True).as_py()
    if row >= 0:
        own = gold[row].as_py()
        what = "this original row has no gold label" if own is None else f"label {own!r} is not one of the task's"
        hint = None if task.is_score else f"the labels are {', '.join(task.labels)}"
        raise DataError(what, file=transfer, row=int(texts.numbers[row]), key="label", hint=hint)


def _warn_of_chance(counts: _Counts, reporter: Reporter) -> None:
    if counts.agreement is None:
        return
    commonest = max(counts.gold.values()) / counts.gold.total()
    if counts.agreement <= commonest:
        reporter.warn(
            f"the teacher's choice is the gold label of {counts.agreement:.1%} of the original rows, and the commonest "
            f"label is that of {commonest:.1%}: are these its logits, the labels in this order?"
        )


def _count(labels: pa.Array) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in labels.value_counts().to_pylist()}
