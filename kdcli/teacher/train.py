"""``kd teacher train``: fine-tune an encoder on the labelled rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from kdcli.api import Reporter, Task
from kdcli.config.schema import TeacherSettings
from kdcli.files import sha256
from kdcli.lm.fine_tune import Recipe, fine_tune
from kdcli.lm.outcome import Outcome, best_of
from kdcli.lm.rows import Rows
from kdcli.lm.work import check_device, join_processes, one_training, publish
from kdcli.tasks.labels import encode_labels
from kdcli.teacher.build import Encoder, prepare_encoder
from kdcli.teacher.learner import Classifier
from kdcli.teacher.rows import CHUNK, encode_rows

AUTO = 32
"""Texts an update with ``batch_size = "auto"``: paper A's recipe, which its learning rates are meant for."""
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
    check_device(device, precision, "teacher")
    reporter = join_processes(device, reporter)
    if 0 < settings.max_rows < len(train):
        chosen = np.random.default_rng(seed).permutation(len(train))[: settings.max_rows]
        train = train.take(np.sort(chosen))  # of a table that is sorted by genre or label, the first would be one kind
    encoder = prepare_encoder(settings, task, _texts(train, task), reporter)
    train_rows = _encoded(train, "train", task, encoder, reporter)
    dev_rows = _encoded(dev, "dev", task, encoder, reporter)
    learner = Classifier(encoder, task, train_rows, dev_rows)
    work = output.with_name(f"{output.name}.training")
    fingerprint = _fingerprint(learner, settings, seed, device, precision)
    with one_training(work, fingerprint, resume, reporter, "teacher"):
        outcomes = {}
        for lr in settings.lr if isinstance(settings.lr, tuple) else (settings.lr,):
            folder = work / f"lr-{lr!r}"
            outcomes[folder] = fine_tune(folder, learner, _recipe(settings, lr, seed, device, precision), reporter)
        best = best_of(outcomes, learner)
        result = _result(outcomes[best], list(outcomes.values()), task, settings)
        publish(best / "model", output, asdict(result))
    return result


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
        auto=AUTO,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        save_steps=settings.save_steps,
        seed=seed,
        device=device,
        precision=precision,
    )


def _fingerprint(
    learner: Classifier, settings: TeacherSettings, seed: int, device: str, precision: str
) -> dict[str, Any]:
    own = settings.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
    folder = learner.encoder.folder
    return {
        "training texts": learner.train.digest,
        "dev texts": learner.dev.digest,
        "teacher.model": settings.model if folder is None else sha256(folder),
        **{f"teacher.{key}": value for key, value in own.items()},
        "task": asdict(learner.task),
        "seed": seed,
        "device": torch.device(device).type,
        "precision": precision,
    }


def _result(best: Outcome, outcomes: list[Outcome], task: Task, settings: TeacherSettings) -> TeacherResult:
    grid = {repr(outcome.lr): outcome.metrics.get(task.metric) for outcome in outcomes}
    values = {key: value for key, value in asdict(best).items() if key != "stopped"}
    return TeacherResult(**values, model=settings.model, grid=grid)
