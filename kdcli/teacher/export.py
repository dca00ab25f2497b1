"""``kd teacher export``: the teacher's logits of a transfer set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import ExportSettings
from kdcli.errors import DataError, UsageError
from kdcli.files import sha256
from kdcli.models.device import halve_until_it_fits
from kdcli.parts import Parts
from kdcli.tables.parquet import slices
from kdcli.tables.text_hash import text_hash
from kdcli.tasks.text_set import STATES, open_texts
from kdcli.teacher.logits import logit_columns, read_logits, state_column, write_logits
from kdcli.teacher.model import BATCH, Teacher, TeacherSource, warn_of_cuts

PART_ROWS = 4096
"""Rows a part: enough that batches of one length are padded by a few percent, few enough to lose little."""
_LARGEST_BATCH = 512
"""Larger ones would pad the few thousand texts of a part too much."""
_HINT = "a smaller batch: --batch-size N, or --batch-size auto"


@dataclass(frozen=True)
class ExportResult:
    """The result of an export."""

    rows: int  # of the transfer set
    distinct: int  # rows of logits, one for each distinct text
    batch_size: int  # the smallest one, if memory ran out
    precision: str
    max_length: int  # of an input, in word pieces
    parameters: int
    cut: int = 0  # distinct texts that are longer
    unanswered: int = 0  # distinct texts that the teacher left without an answer: their logits are NaN


def export_logits(
    *,
    transfer: Path,
    teacher: TeacherSource,
    task: Task,
    settings: ExportSettings,
    device: str,
    precision: str,
    output: Path,
    represent: bool = False,
    resume: bool = True,
    reporter: Reporter | None = None,
) -> ExportResult:
    """Write the teacher's logits of all texts of a transfer set, each distinct text once.

    A killed run resumes at the first part that is missing. Under ``torchrun`` each process makes its share.
    ``transfer`` is a table or plain lines of texts; a precision in ``settings`` takes the place of ``precision``. With
    ``represent`` the file holds the teacher's representation of each text too.
    """
    reporter = reporter or QuietReporter()
    if output.suffix != ".safetensors":
        raise UsageError("a logits file is a .safetensors", file=output)
    texts = open_texts(transfer, task, reporter).frame.select(task.columns)
    rows = int(texts.select(pl.len()).collect().item())
    if not rows:
        raise DataError("the transfer set has no rows", file=transfer)
    precision, wanted = settings.precision or precision, settings.batch_size
    model = teacher.load(task, device=device, precision=precision, reporter=reporter)
    model.try_out()
    size = model.represent([["a"]] * len(task.columns))[1].shape[1] if represent else 0
    if size:
        reporter.info(f"the teacher's representations take up to {2 * size * rows / 1e6:,.0f} MB")
    batch = _largest_batch(model, device) if wanted == "auto" else wanted
    origin = {
        "labels": list(task.labels),
        "teacher": teacher.model,
        "teacher_sha256": model.loaded.fingerprint(),
        "transfer_sha256": sha256(transfer),
        "rows": rows,
        "max_length": model.loaded.max_length,
        "precision": precision,
        **({"multi_label": True} if task.multi_label else {}),
        **teacher.unusual,
        **({"representation": size} if size else {}),
    }
    tables = enumerate(slices(texts, PART_ROWS))

    def read(columns: list[list[str]], batch: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        return model.represent(columns, batch) if represent else (model.logits(columns, batch), None)

    def make_part(part: int, path: Path) -> None:
        table = next(table for number, table in tables if number == part)  # parts are made in ascending order
        table = table.unique(maintain_order=True)
        columns = [column.to_list() for column in table]
        model.read.clear()
        (logits, states), used = halve_until_it_fits(
            lambda size: read(columns, size), batch, reporter=reporter, auto=wanted == "auto", hint=_HINT
        )
        hashes = pl.Series("row_hash", text_hash(table.get_columns()))
        pl.DataFrame([hashes, *logit_columns(logits), *state_column(states)]).write_parquet(
            path, metadata={"batch_size": str(used), "cut": str(model.read["cut"])}
        )

    def assemble(paths: list[Path]) -> None:
        parts = pl.concat([pl.read_parquet(path, glob=False) for path in paths])
        parts = parts.unique("row_hash", keep="first", maintain_order=True)
        notes = [pl.read_parquet_metadata(path) for path in paths]
        used = min(int(note["batch_size"]) for note in notes)
        logits = parts.drop("row_hash", STATES, strict=False).to_numpy().astype(np.float32, copy=False)
        states = parts[STATES].to_numpy() if size else None
        unanswered = int(np.isnan(logits).all(axis=1).sum())
        if unanswered == len(logits):
            raise DataError("the teacher has answered none of the texts", file=transfer, hint="kd teacher audit")
        metadata = {**origin, "batch_size": used, "cut": sum(int(note["cut"]) for note in notes), "kd": __version__}
        metadata |= {"unanswered": unanswered} if unanswered else {}
        write_logits(output, logits, parts["row_hash"].to_numpy(), metadata, states)

    sizes = [min(PART_ROWS, rows - start) for start in range(0, rows, PART_ROWS)]
    fingerprint = {**origin, "batch_size": batch, "device": torch.device(device).type, "part_rows": PART_ROWS}
    folder = output.with_name(f".{output.name}.parts")
    with Parts(folder, fingerprint, resume=resume, reporter=reporter) as parts:
        parts.make(sizes, make_part, title="teacher logits")
        parts.assemble(len(sizes), assemble)
    found = read_logits(output, task)
    used, cut, unanswered = (found.metadata.get(name, 0) for name in ("batch_size", "cut", "unanswered"))
    longest = model.loaded.max_length
    warn_of_cuts(cut, len(found.logits), longest, teacher.long_texts, reporter)
    return ExportResult(rows, len(found.logits), used, precision, longest, model.parameters, cut, unanswered)


def _largest_batch(model: Teacher, device: str) -> int:
    """Return the largest power of two of the longest texts that fit into the device's memory."""
    if device == "cpu":
        return BATCH
    texts = [[" ".join(["a"] * model.loaded.max_length)] * _LARGEST_BATCH for _ in model.task.columns]
    return halve_until_it_fits(lambda size: model.logits(texts, size), _LARGEST_BATCH, reporter=QuietReporter())[1]
