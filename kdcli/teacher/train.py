"""``kd teacher train``: fine-tune an encoder on the labelled rows."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers
from accelerate import PartialState
from filelock import FileLock, Timeout

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.data.files import atomic, full_disk, sha256
from kdcli.errors import KdError, MissingError, UsageError
from kdcli.profile.schema import TeacherSettings
from kdcli.tasks.layouts import encode_labels
from kdcli.teacher.build import Encoder, prepare_encoder
from kdcli.teacher.fine_tune import Outcome, Recipe, fine_tune
from kdcli.teacher.rows import CHUNK, Rows, encode_rows

NOT_IN_FINGERPRINT = {"model", "train", "lr", "save_steps", "export"}


@dataclass(frozen=True)
class TeacherResult:
    """A fine-tuned teacher.

    Attributes:
        metrics: Its dev scores.
        lr: The learning rate it was trained with.
        batch_size: Texts an update, over all processes.
        at_once: Texts that went through the model at once in one process.
        epochs: Epochs trained.
        best_epoch: The epoch whose model was best on dev, the one kept.
        updates: Updates trained.
        parameters: Its parameters, all of them trained.
        model: The encoder it started from.
        grid: The dev score of each learning rate; None for one that broke down.
    """

    metrics: dict[str, float]
    lr: float
    batch_size: int
    at_once: int
    epochs: float
    best_epoch: float
    updates: int
    parameters: int
    model: str
    grid: dict[str, float | None]


def train_teacher(
    *,
    train: pa.Table,
    dev: pa.Table,
    task: Task,
    settings: TeacherSettings,
    seed: int,
    device: str,
    precision: str,
    output: Path,
    resume: bool = True,
    reporter: Reporter | None = None,
) -> TeacherResult:
    """Fine-tune all parameters of an encoder and keep the best checkpoint on dev (paper A, section "Method").

    Each learning rate is trained in a folder of its own beside the output, ``OUTPUT.training/lr-VALUE``, from where
    a killed run goes on; the folder is removed at the end. Under ``torchrun`` all processes call this.

    Args:
        train: The labelled rows: the task's text columns and ``label``.
        dev: The rows that choose among checkpoints and learning rates.
        task: The task.
        settings: The encoder and the recipe.
        seed: Seed of new weights, of the order and of dropout.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``; weights and optimiser are float32 in any case.
        output: The Hugging Face folder to write.
        resume: Go on with what a killed run left; False starts again.
        reporter: Told of everything.

    Raises:
        DataError: A label or the model's folder is wrong.
        KdError: Every learning rate broke down; memory or disk space ran out; another process trains here.
        MissingError: The model or the device is not there.
        ProfileError: ``teacher.config`` is wrong.
        UsageError: The device cannot compute in this precision.
    """
    _check_device(device, precision)
    main = PartialState(cpu=torch.device(device).type == "cpu").is_main_process
    reporter = reporter if reporter and main else QuietReporter()
    train = train.slice(0, settings.max_rows or None)
    encoder = prepare_encoder(settings, task, _texts(train, task), reporter)
    train_rows = _encoded(train, "train", task, encoder, reporter)
    dev_rows = _encoded(dev, "dev", task, encoder, reporter)
    work = output.with_name(f"{output.name}.training")
    with _alone(work):
        if main:
            fingerprint = {
                "training texts": _digest(train_rows),
                "dev texts": _digest(dev_rows),
                **_fingerprint(settings, task, encoder, seed, device, precision),
            }
            _take_folder(work, fingerprint, resume, reporter)
        PartialState().wait_for_everyone()
        outcomes = {}
        for lr in settings.lr if isinstance(settings.lr, tuple) else (settings.lr,):
            folder = work / f"lr-{lr!r}"
            recipe = _recipe(settings, lr, seed, device, precision)
            outcomes[folder] = fine_tune(folder, encoder, train_rows, dev_rows, task, recipe, reporter)
            _tell(outcomes[folder], task, reporter)
        kept = max(outcomes, key=lambda folder: outcomes[folder].metrics.get(task.metric, -np.inf))
        if not outcomes[kept].metrics:
            hint = "try a lower teacher.lr, more teacher.warmup, or fp32"
            raise KdError(f"the training broke down: {outcomes[kept].stopped}", hint=hint, key="teacher.lr")
        result = _result(outcomes[kept], list(outcomes.values()), task, settings)
        if main:
            with full_disk(work):
                _publish(kept / "model", result, output)
            shutil.rmtree(work)
    PartialState().wait_for_everyone()
    return result


def _check_device(device: str, precision: str) -> None:
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise MissingError("this machine has no CUDA device", hint="use --device cpu", key="device")
    able = {"cpu": {"fp32", "bf16"}, "cuda": {"fp32", "bf16", "fp16"}}.get(kind, {"fp32"})
    if kind == "cuda" and not torch.cuda.is_bf16_supported():
        able.remove("bf16")
    if precision not in able:
        what = f"a teacher cannot be trained in {precision} on this {kind} device"
        raise UsageError(what, hint=f"use --precision {' or '.join(sorted(able))}", key="precision")


def _texts(table: pa.Table, task: Task) -> Iterator[list[str]]:
    for column in task.columns:
        for start in range(0, len(table), CHUNK):
            yield table[column].slice(start, CHUNK).to_pylist()


def _encoded(table: pa.Table, name: str, task: Task, encoder: Encoder, reporter: Reporter) -> Rows:
    return encode_rows(
        [table[column] for column in task.columns],
        encode_labels(table["label"], task, file=name),
        encoder.tokenizer,
        inputs=encoder.inputs(),
        max_length=encoder.max_length,
        reporter=reporter,
    )


def _recipe(settings: TeacherSettings, lr: float, seed: int, device: str, precision: str) -> Recipe:
    return Recipe(
        lr=lr,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        save_steps=settings.save_steps,
        seed=seed,
        device=device,
        precision=precision,
    )


def _digest(rows: Rows) -> str:
    digest = hashlib.sha256()
    for values in (*rows.fields.values(), rows.offsets, rows.labels):
        digest.update(values.tobytes())
    return digest.hexdigest()


def _fingerprint(
    settings: TeacherSettings, task: Task, encoder: Encoder, seed: int, device: str, precision: str
) -> dict[str, Any]:
    own = settings.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
    return {
        "teacher.model": settings.model if encoder.folder is None else sha256(encoder.folder),
        **{f"teacher.{key}": value for key, value in own.items()},
        "task": asdict(task),
        "seed": seed,
        "device": torch.device(device).type,
        "precision": precision,
        "processes": PartialState().num_processes,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    if not PartialState().is_main_process:
        yield
        return
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work.with_name(f".{work.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise KdError(
            "this teacher is being trained already", file=work, hint="wait for it, or stop it first"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _take_folder(work: Path, fingerprint: Mapping[str, Any], resume: bool, reporter: Reporter) -> None:
    fingerprint = json.loads(json.dumps(fingerprint))
    record = work / "fingerprint.json"
    found = json.loads(record.read_text("utf-8")) if record.exists() else None
    if found == fingerprint and resume:
        reporter.info("going on with the training that was interrupted")
        return
    if found is not None and resume:
        changed = [key for key in {**found, **fingerprint} if found.get(key) != fingerprint.get(key)]
        reporter.warn(f"the interrupted training is not gone on with: {', '.join(changed)} changed")
    if work.exists():
        shutil.rmtree(work)
    work.mkdir()
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(fingerprint), "utf-8")


def _tell(outcome: Outcome, task: Task, reporter: Reporter) -> None:
    score = f"{task.metric} {outcome.metrics[task.metric]:.4f} on dev" if outcome.metrics else "nothing to keep"
    if outcome.stopped:
        reporter.warn(f"training at {outcome.lr:g} stopped: {outcome.stopped}; best model before: {score}")
    else:
        reporter.info(
            f"fine-tuned at {outcome.lr:g}: {score}, after epoch {outcome.best_epoch:g} of {outcome.epochs:g}"
        )


def _result(best: Outcome, outcomes: list[Outcome], task: Task, settings: TeacherSettings) -> TeacherResult:
    grid = {repr(outcome.lr): outcome.metrics.get(task.metric) for outcome in outcomes}
    values = {key: value for key, value in asdict(best).items() if key != "stopped"}
    return TeacherResult(**values, model=settings.model, grid=grid)


def _publish(model: Path, result: TeacherResult, output: Path) -> None:
    with atomic(output) as temporary:
        shutil.copytree(model, temporary)
        (temporary / "metrics.json").write_text(json.dumps(asdict(result), indent=2) + "\n", "utf-8")
