"""The teacher's logits of a transfer set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from numpy.typing import NDArray

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import TeacherSettings
from kdcli.errors import DataError, KdError, UsageError
from kdcli.files import files_sha256, sha256
from kdcli.parts.parts import ALONE, Parts, Shard
from kdcli.tasks.text_set import TextSet, open_texts
from kdcli.teacher.logits import open_tensors, read_logits, save_tensors, write_logits
from kdcli.teacher.model import BATCH, Teacher, load_teacher
from kdcli.teacher.texts import read_texts

PART_ROWS = 4096
"""Rows a part: enough that batches of one length are padded by a few percent, few enough to lose little."""

_LARGEST_BATCH = 512
"""Larger ones would pad the few thousand texts of a part too much."""


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        rows: Rows of the transfer set.
        distinct: Rows of logits, one for each distinct text.
        batch_size: Texts a batch; the smallest, where memory did not suffice.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        max_length: The longest input in word pieces.
        parameters: The teacher's parameters.
    """

    rows: int
    distinct: int
    batch_size: int
    precision: str
    max_length: int
    parameters: int


def export_logits(
    *,
    transfer: Path,
    teacher: str | Path,
    task: Task,
    settings: TeacherSettings,
    device: str,
    precision: str,
    output: Path,
    shard: Shard = ALONE,
    resume: bool = True,
    reporter: Reporter | None = None,
) -> ExportResult | None:
    """Write the teacher's logits of all texts of a transfer set, each distinct text once.

    The work is cut into parts that a killed run, or another process (a shard), goes on with; the file does not
    depend on who made which.

    Args:
        transfer: A table with the task's text columns, or plain lines of texts.
        teacher: A fine-tuned model: a folder or a hub name.
        task: The task.
        settings: The teacher's settings; those of ``export``, and ``max_length``.
        device: Where the teacher runs.
        precision: The arithmetic, where ``settings.export`` names none.
        output: The logits file.
        shard: This process's share of the parts.
        resume: Go on with what a killed run left; False starts again.
        reporter: Shows the progress.

    Returns:
        None while other shards are still at work.

    Raises:
        DataError: The transfer set or the teacher cannot be read, or they do not fit the task.
        MissingError: There is no such teacher.
        KdError: Memory does not suffice for the batch size.
        UsageError: The output's name does not end in ``.safetensors``.
    """
    reporter = reporter or QuietReporter()
    if output.suffix != ".safetensors":
        raise UsageError("a logits file is a .safetensors", file=output)
    texts = open_texts(transfer, task, reporter, texts_alone=True)
    rows = sum(len(numbers) for numbers, _, _ in texts.rows())
    if not rows:
        raise DataError("the transfer set has no rows", file=transfer)
    precision = settings.export.precision or precision
    model = load_teacher(
        teacher, task, max_length=settings.max_length, device=device, precision=precision, reporter=reporter
    )
    asked = settings.export.batch_size
    batch = _largest_batch(model) if asked == "auto" else asked
    origin = {
        "labels": list(task.labels),
        "teacher": model.id,
        "teacher_sha256": files_sha256(model.folder),
        "transfer_sha256": sha256(transfer),
        "rows": rows,
        "max_length": model.max_length,
        "precision": precision,
    }
    sizes = [min(PART_ROWS, rows - start) for start in range(0, rows, PART_ROWS)]
    tables = enumerate(_in_parts(texts))

    def make_part(part: int, path: Path) -> None:
        table = next(table for number, table in tables if number == part)  # parts are made in ascending order
        _, first = np.unique(table["row_hash"].to_numpy(), return_index=True)
        table = table.take(np.sort(first))
        columns = [table[name].to_pylist() for name in task.columns]
        logits, used = _logits_that_fit(model, columns, batch, auto=asked == "auto", reporter=reporter)
        save_tensors(path, {"logits": logits, "row_hash": table["row_hash"].to_numpy()}, {"batch_size": used})

    def assemble(paths: list[Path]) -> None:
        logits, hashes, used = _distinct(paths)
        write_logits(output, logits, hashes, {**origin, "batch_size": used, "kd": __version__})

    fingerprint = {**origin, "batch_size": batch, "device": model.device.type, "part_rows": PART_ROWS}
    folder = output.with_name(f".{output.name}.parts")
    with Parts(folder, fingerprint, suffix=".safetensors", shard=shard, resume=resume, reporter=reporter) as parts:
        parts.make(sizes, make_part, title="teacher logits")
        if not parts.assemble(len(sizes), assemble):
            return None
    made = read_logits(output, task)
    used = made.metadata["batch_size"]
    return ExportResult(rows, len(made.logits), used, precision, model.max_length, model.parameters)


def _in_parts(transfer: TextSet) -> Iterator[pa.Table]:
    """Give the texts and their ``row_hash`` in tables of ``PART_ROWS`` rows, the last one of what is left."""
    held = pa.table(
        {name: pa.array([], pa.string()) for name in transfer.task.columns} | {"row_hash": pa.array([], pa.uint64())}
    )
    for texts in read_texts(transfer):
        held = pa.concat_tables([held, pa.table([*texts.columns, pa.array(texts.hashes)], held.column_names)])
        while len(held) >= PART_ROWS:
            yield held.slice(0, PART_ROWS)
            held = held.slice(PART_ROWS)
    if len(held):
        yield held


def _largest_batch(model: Teacher) -> int:
    """Return the largest power of two of the longest texts that fit into the device's memory."""
    if model.device.type == "cpu":
        return BATCH
    longest = " ".join(["a"] * model.max_length)
    texts = [[longest] * _LARGEST_BATCH for _ in model.task.columns]
    return _logits_that_fit(model, texts, _LARGEST_BATCH, auto=True, reporter=QuietReporter())[1]


def _logits_that_fit(
    model: Teacher, texts: Sequence[Sequence[str]], batch: int, *, auto: bool, reporter: Reporter
) -> tuple[NDArray[np.float32], int]:
    """Return the logits, and the batch size that memory sufficed for, halved from ``batch`` as often as needed."""
    while True:
        try:
            return model.logits(texts, batch), batch
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if batch == 1 or not auto:
                hint = "take a smaller one: --batch-size N, or --batch-size auto"
                raise KdError(f"memory does not suffice for batches of {batch} texts", hint=hint) from error
        # Beyond the handler, whose traceback keeps the tensors of the failed batch alive.
        clear_device_cache(garbage_collection=True)
        batch //= 2
        reporter.warn(f"memory did not suffice: these texts go on in batches of {batch}")


def _distinct(paths: list[Path]) -> tuple[NDArray[np.float32], NDArray[np.uint64], int]:
    """Put parts together: the first logits of each text in order, their hashes, and the smallest batch size."""
    parts = [open_tensors(path) for path in paths]
    hashes = np.concatenate([tensors["row_hash"] for tensors, _ in parts])
    _, first = np.unique(hashes, return_index=True)
    first.sort()
    logits = np.concatenate([tensors["logits"] for tensors, _ in parts])[first]
    return logits, hashes[first], min(metadata["batch_size"] for _, metadata in parts)
