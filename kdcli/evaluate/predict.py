"""Predictions of a student or a teacher for a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import UsageError
from kdcli.evaluate.predictions import Model, predictions, schema_of
from kdcli.files import sha256
from kdcli.parts.parts import ALONE, Parts, Shard
from kdcli.tables.forms import form_of
from kdcli.tables.read import write_table
from kdcli.tasks.split import stream_table
from kdcli.tasks.task import settings_of

__all__ = ["Model", "PredictResult", "file_schema", "predict", "predict_file", "predict_table"]

ROWS = 4096
"""Rows a part: enough that batches of one length are padded little, few enough to lose little. A model that gains by
more, as one that computes shared beginnings of texts once, says so in its ``part_rows``."""


@dataclass(frozen=True)
class PredictResult:
    """What was written.

    Attributes:
        output: The file.
        rows: Its predictions.
    """

    output: Path
    rows: int


def predict(
    model: Model,
    table: Path,
    settings: TaskSettings | None = None,
    reporter: Reporter | None = None,
    *,
    probabilities: bool = False,
) -> pa.Table:
    """Predict a label, or a score, for each row of a table.

    Args:
        model: A student or a teacher.
        table: A table with the task's text columns, or plain lines of text; labels are not needed.
        settings: How to read it; by default by the model's task.
        reporter: Shows the progress.
        probabilities: Give that of each label too.

    Returns:
        The columns ``index`` (as in the table, or counted from 0), ``prediction`` (the label as the task writes it,
        or the score) and, if asked for, ``probability_LABEL``; a row each.

    Raises:
        DataError: The table is not one of the task.
    """
    reporter = reporter or QuietReporter()
    schema = schema_of(model.task, probabilities=probabilities)
    with reporter.progress("predict") as progress:
        batches = []
        for batch in predict_table(model, table, settings, reporter, probabilities=probabilities):
            batches.append(batch)
            progress.advance(batch.num_rows)
    return pa.Table.from_batches(batches, schema)


def predict_table(
    model: Model,
    table: Path,
    settings: TaskSettings | None,
    reporter: Reporter,
    *,
    probabilities: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Give the predictions of ``predict`` as they are made; memory does not grow with the rows.

    Raises:
        DataError: As ``predict``; the rows before a wrong one are predicted, but for those of its block.
    """
    for part in _in_parts(stream_table(table, settings or settings_of(model.task), model.task, reporter), ROWS):
        yield _predict_part(model, part, probabilities)


def predict_file(
    model: Model,
    table: Path,
    output: Path,
    settings: TaskSettings | None = None,
    *,
    origin: Mapping[str, Any],
    probabilities: bool = False,
    shard: Shard = ALONE,
    resume: bool = True,
    reporter: Reporter | None = None,
) -> PredictResult | None:
    """Write the predictions for a table to a file.

    The table is read through first, so that a row that cannot be read shows before the work. The work is cut into
    parts that a killed run, or another process (a shard), goes on with; the bytes of the file do not depend on it.

    Args:
        model: A student or a teacher.
        table: As for ``predict``.
        output: What to write; its suffix tells the form. A ``.txt`` holds the predictions alone, one a line.
        settings: How to read the table; by default by the model's task.
        origin: What the model is, as JSON values: parts of another one are not gone on with.
        probabilities: Write that of each label too.
        shard: This process's share of the parts.
        resume: Go on with what a killed run left; False starts again.
        reporter: Shows the progress.

    Returns:
        None while other shards are still at work.

    Raises:
        DataError: The table is not one of the task, or the output's suffix tells no form.
        UsageError: Probabilities are asked for where there are none, or in a ``.txt``.
    """
    reporter = reporter or QuietReporter()
    task, settings = model.task, settings or settings_of(model.task)
    schema = file_schema(output, task, probabilities=probabilities)
    rows = sum(batch.num_rows for batch in stream_table(table, settings, task, reporter))
    size = getattr(model, "part_rows", ROWS)
    sizes = [min(size, rows - begin) for begin in range(0, rows, size)]
    tables = enumerate(_in_parts(stream_table(table, settings, task, QuietReporter()), size))

    def make_part(part: int, path: Path) -> None:
        texts = next(texts for number, texts in tables if number == part)  # parts are made in ascending order
        made = _predict_part(model, texts, probabilities)
        with pa.ipc.new_file(str(path), made.schema) as writer:
            writer.write_batch(made)

    def assemble(paths: list[Path]) -> None:
        with write_table(output, schema) as writer:
            for path in paths:
                with pa.OSFile(str(path)) as stream:
                    writer.write(pa.ipc.open_file(stream).read_all())

    fingerprint = {
        "form": "kd.predictions/1",
        **origin,
        "input": sha256(table)[:16],
        "reading": settings.model_dump(mode="json", include={"layout", "text_columns", "bad_rows"}),
        "columns": [*schema_of(task, probabilities=probabilities).names, *task.labels],
        "part_rows": size,
    }
    folder = output.with_name(f".{output.name}.parts")
    with Parts(folder, fingerprint, suffix=".arrow", shard=shard, resume=resume, reporter=reporter) as parts:
        parts.make(sizes, make_part, title="predict")
        return PredictResult(output, rows) if parts.assemble(len(sizes), assemble) else None


def file_schema(output: Path, task: Task, *, probabilities: bool = False) -> pa.Schema:
    """Return the columns of a file of predictions.

    Raises:
        DataError: Its suffix tells no form.
        UsageError: Probabilities are asked for where there are none, or in a ``.txt``.
    """
    schema = schema_of(task, probabilities=probabilities)
    if form_of(output) != "txt":
        return schema
    if probabilities:
        raise UsageError("a .txt holds the predictions alone", file=output, hint="name it .tsv for the probabilities")
    return pa.schema([schema.field("prediction")])


def _in_parts(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Give rows in tables of ``size``, the last one of what is left."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        table = pa.Table.from_batches([*held, batch])
        whole = len(table) // size * size
        for begin in range(0, whole, size):
            yield table.slice(begin, size)
        held = table.slice(whole).to_batches()
    if held:
        yield pa.Table.from_batches(held)


def _predict_part(model: Model, part: pa.Table, probabilities: bool) -> pa.RecordBatch:
    columns = [part[column].to_pylist() for column in model.task.columns]
    return predictions(model, part["index"].combine_chunks(), columns, probabilities=probabilities)
