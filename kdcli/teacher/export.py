"""``kd teacher export``: the teacher's logits of a transfer set."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import ExportSettings
from kdcli.errors import DataError, UsageError
from kdcli.files import sha256
from kdcli.models.device import at_hand, halve_until_it_fits
from kdcli.parts import Engine, Loaded, LocalEngine, Parts, in_turn
from kdcli.tables.parquet import slices
from kdcli.tables.text_hash import first_of_equals, text_hash
from kdcli.tasks.text_set import STATES, open_texts
from kdcli.teacher.logits import FORMAT, Piece, header_of, logit_columns, read_logits, state_column, write_logits
from kdcli.teacher.model import BATCH, Teacher, TeacherSource, load_teacher, warn_of_cuts

PART_ROWS = 4096
"""Rows a part: enough that batches of one length are padded by a few percent, few enough to lose little."""
_LARGEST_BATCH = 512  # larger ones would pad the few thousand texts of a part too much
_OF_A_FILE = {"transfer_sha256", "rows", "batch_size", "cut", "kd", "unanswered"}
"""What the metadata of two logits files of one teacher may differ in."""
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
    teacher: TeacherSource | Teacher,
    task: Task,
    settings: ExportSettings,
    device: str,
    precision: str,
    output: Path,
    represent: bool = False,
    known: Path | None = None,
    resume: bool = True,
    engine: "Engine | None" = None,
    reporter: Reporter = QuietReporter(),
) -> ExportResult:
    """Write the teacher's logits of all texts of a transfer set, each distinct text once.

    A killed run resumes at the first part that is missing. ``transfer`` is a table or plain lines of texts; a precision
    in ``settings`` takes the place of ``precision``; a ``teacher`` may be loaded already. With ``represent`` the file
    holds the teacher's representation of each text too.
    What ``known`` has, a logits file of the same teacher for some of these texts, is not asked for again.
    """
    if output.suffix != ".safetensors":
        raise UsageError("a logits file is a .safetensors", file=output)
    texts = open_texts(transfer, task, reporter).select(task.columns)
    rows = int(texts.select(pl.len()).collect().item())
    if not rows:
        raise DataError("the transfer set has no rows", file=transfer)
    precision, wanted = settings.precision or precision, settings.batch_size
    here = at_hand(device)  # a cluster may have another one
    how: dict[str, Any] = {"device": here, "precision": precision, "reporter": reporter}
    model = teacher if isinstance(teacher, Teacher) else teacher.load(task, **how)
    engine = LocalEngine() if engine is None or model.source.is_remote else engine
    model.try_out()
    size = model.represent([["a"]] * len(task.columns))[1].shape[1] if represent else 0
    if (megabytes := 2 * size * rows / 1e6) >= 1:
        reporter.info(f"the teacher's representations take up to {megabytes:,.0f} MB")
    batch = wanted if wanted != "auto" else _largest_batch(model, here) if here == device else _LARGEST_BATCH
    origin = {
        "labels": list(task.labels),
        "teacher": model.source.model,
        "teacher_sha256": model.loaded.fingerprint(),
        "transfer_sha256": sha256(transfer),
        "rows": rows,
        "max_length": model.loaded.max_length,
        "precision": precision,
        **({"multi_label": True} if task.multi_label else {}),
        **model.source.unusual,
        **({"representation": size} if size else {}),
    }
    nothing = np.empty((0, task.outputs), np.float32), np.empty((0, size), np.float32)
    before, cut_before = _known(known, origin, task) or (part_of(np.empty(0, np.uint64), *nothing), 0)
    table_of = in_turn(slices(texts, PART_ROWS))

    def read(part: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the distinct texts of a part that are to be asked, and the answers that are there already."""
        table = table_of(part).unique(maintain_order=True)
        hashes = text_hash(table.get_columns())
        old = before.filter(np.isin(before["row_hash"], hashes))
        return table.filter(~np.isin(hashes, before["row_hash"])), old

    def assemble(paths: list[Path]) -> None:
        if not assemble_logits(paths, output, origin, cut_before):
            raise DataError("the teacher has answered none of the texts", file=transfer, hint="kd teacher audit")

    sizes = [min(PART_ROWS, rows - start) for start in range(0, rows, PART_ROWS)]
    fingerprint = {**origin, "batch_size": batch, "device": torch.device(device).type, "part_rows": PART_ROWS}
    folder = output.with_name(f".{output.name}.parts")
    again = Loaded(model, load_teacher, (model.source, task, device, precision), model.source.files)
    make = LogitsPart(again, batch, size, wanted == "auto")
    with engine, Parts(folder, fingerprint, resume=resume, engine=engine, reporter=reporter) as parts:
        how = {"read": read, "device": device, "files": again.files, "reporter": reporter}
        parts.make(sizes, make, title="teacher logits", **how)
        parts.assemble(len(sizes), assemble)
    distinct, metadata = header_of(output)
    used, cut, unanswered = (metadata.get(name, 0) for name in ("batch_size", "cut", "unanswered"))
    longest = model.loaded.max_length
    warn_of_cuts(cut, distinct, longest, model.source.long_texts, reporter)
    return ExportResult(rows, distinct, used, precision, longest, model.parameters, cut, unanswered)


def assemble_logits(paths: Sequence[Path], output: Path, origin: Mapping[str, Any], cut: int = 0) -> bool:
    """Write the logits file of some parts, each text once; of all rows at once, memory holds the hashes alone.

    ``cut`` are texts that were cut and are in no part. Returns whether there is an answer; else there is no file.
    """
    rows = pl.scan_parquet(list(paths), glob=False).select("row_hash", silent=pl.col("logits_0").is_nan()).collect()
    hashes, silent = rows["row_hash"].to_numpy(), rows["silent"]
    del rows  # their memory is needed now
    first = first_of_equals(hashes)
    distinct, unanswered = int(first.sum()), int((silent & pl.Series(first)).sum())
    if unanswered == distinct:
        return False
    notes = [pl.read_parquet_metadata(path) for path in paths]
    used, cut = min(int(note["batch_size"]) for note in notes), cut + sum(int(note["cut"]) for note in notes)
    metadata = {**origin, "batch_size": used, "cut": cut, "kd": __version__}
    metadata |= {"unanswered": unanswered} if unanswered else {}

    def pieces() -> Iterator[Piece]:
        begin = 0
        for path in paths:
            whole = pl.read_parquet(path, glob=False)
            part = whole.filter(first[begin : begin + len(whole)])
            begin += len(whole)
            logits = part.drop("row_hash", STATES, strict=False).to_numpy().astype(np.float32, copy=False)
            yield part["row_hash"].to_numpy(), logits, part[STATES].to_numpy() if STATES in part.columns else None

    write_logits(output, pieces(), distinct, metadata)
    return True


@dataclass
class LogitsPart:
    """Makes a part of a logits file: the answers that are there, and the teacher's of the other texts."""

    teacher: Loaded[Teacher]
    batch: int
    size: int  # of a representation; 0 for none
    auto: bool  # whether a batch that does not fit may be halved

    def __call__(self, part: int, path: Path, data: tuple[pl.DataFrame, pl.DataFrame], *, reporter: Reporter) -> None:
        """Write a part of texts and known answers to ``path``."""
        table, old = data
        model, columns = self.teacher.value, [column.to_list() for column in table]
        model.read.clear()
        nothing = np.empty((0, model.task.outputs), np.float32), np.empty((0, self.size), np.float32)
        (logits, states), used = halve_until_it_fits(
            lambda most: model.represent(columns, most, states=bool(self.size)) if columns[0] else nothing,
            self.batch,
            reporter=reporter,
            auto=self.auto,
            hint=_HINT,
        )
        made = pl.concat([old, part_of(text_hash(table.get_columns()), logits, states)])
        made.write_parquet(path, metadata={"batch_size": str(used), "cut": str(model.read["cut"])})


def _known(path: Path | None, origin: Mapping[str, Any], task: Task) -> tuple[pl.DataFrame, int] | None:
    """Return the answers in a logits file, if they are of the same teacher, and how many of the texts it has cut."""
    if path is None or not path.exists():
        return None
    found, wanted = read_logits(path, task), json.loads(json.dumps({"format": FORMAT, **origin}))
    theirs, ours = ({key: each[key] for key in each.keys() - _OF_A_FILE} for each in (found.metadata, wanted))
    if theirs != ours:
        return None
    there = np.isfinite(found.logits[:, 0])
    return part_of(found.hashes, found.logits, found.states).filter(there), found.metadata["cut"]


def part_of(
    hashes: NDArray[np.uint64] | None, logits: NDArray[np.float32], states: NDArray[np.floating[Any]] | None
) -> pl.DataFrame:
    """Return logits as a table: a part of a logits file."""
    return pl.DataFrame([pl.Series("row_hash", hashes), *logit_columns(logits), *state_column(states)])


def _largest_batch(model: Teacher, device: str) -> int:
    """Return the largest power of two of the longest texts that fit into the device's memory."""
    if device == "cpu":
        return BATCH
    texts = [[" ".join(["a"] * model.loaded.max_length)] * _LARGEST_BATCH for _ in model.task.columns]
    return halve_until_it_fits(lambda size: model.logits(texts, size), _LARGEST_BATCH, reporter=QuietReporter())[1]
