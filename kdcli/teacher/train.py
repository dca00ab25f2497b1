"""``kd teacher train``: fine-tune an encoder on the labelled rows (Tang et al. 2019, section "Method")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional

from kdcli.api import Reporter, Task
from kdcli.config.schema import TeacherSettings
from kdcli.files import sha256
from kdcli.lm.fine_tune import Diverged, FineTuneTask, Recipe, best_of, fine_tune
from kdcli.lm.training_folder import join_processes, one_training, publish
from kdcli.models.device import check_device
from kdcli.tasks import metrics
from kdcli.tasks.labels import encode_labels
from kdcli.teacher.encoder import CHUNK, prepare_encoder

AUTO = 32
"""Texts an update with ``batch_size = "auto"``: paper A's recipe, which its learning rates are meant for."""
_NO_EFFECT = {"model", "train", "lr", "save_steps", "export"}
"""Settings that do not change one learning rate's training, or stand in its fingerprint otherwise."""


@dataclass(frozen=True)
class TeacherResult:
    """A fine-tuned teacher.

    Attributes:
        metrics: Its dev scores.
        lr: The learning rate it was trained with.
        batch_size: Texts an update, over all processes.
        at_once: Texts that went through the model at once in one process.
        epochs: Epochs trained.
        best_epoch: The epoch of the best model on dev, which is kept.
        updates: Updates trained.
        parameters: Its parameters, all of them trained.
        model: The encoder it started from.
        grid: The dev score of each learning rate; None for one that diverged.
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
    train: pl.DataFrame,
    dev: pl.DataFrame,
    task: Task,
    settings: TeacherSettings,
    seed: int,
    device: str,
    precision: str,
    output: Path,
    resume: bool = True,
    reporter: Reporter | None = None,
) -> TeacherResult:
    """Fine-tune all parameters of an encoder and keep the best checkpoint on dev.

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
        reporter: Shows the progress, and gets the learning curve.

    Raises:
        DataError: A label or the model's folder is wrong.
        KdError: Every learning rate diverged; memory or disk space ran out; another process trains here.
        MissingError: The model or the device does not exist.
        ProfileError: ``teacher.config`` is wrong.
        UsageError: The device cannot compute in this precision.
    """
    check_device(device, precision, "teacher")
    reporter = join_processes(device, reporter)
    if 0 < settings.max_rows < len(train):
        chosen = np.random.default_rng(seed).permutation(len(train))[: settings.max_rows]
        train = train[np.sort(chosen)]  # GLUE's tables may be sorted by genre or label
    encoder = prepare_encoder(settings, task, _batches(train, task), reporter)
    rows = [
        encoder.encode([table[name] for name in task.columns], encode_labels(table["label"], task, file=split), reporter)
        for split, table in (("train", train), ("dev", dev))
    ]
    fine_tuning = FineTuneTask(
        stage="teacher",
        key="teacher",
        tokenizer=encoder.tokenizer,
        train=rows[0],
        dev=rows[1],
        build=encoder.build,
        loss=partial(_loss, task),
        score=partial(_score, task),
        metric=task.metric,
        greater_is_better=True,
    )
    folder = output.with_name(f"{output.name}.training")
    # All that one learning rate's training depends on, by names that the user knows.
    fingerprint = {
        "training texts": rows[0].digest,
        "dev texts": rows[1].digest,
        "teacher.model": settings.model if encoder.folder is None else sha256(encoder.folder),
        **{f"teacher.{key}": value for key, value in settings.model_dump(mode="json", exclude=_NO_EFFECT).items()},
        "task": {name: getattr(task, name) for name in ("kind", "labels", "names", "metric")},
        "seed": seed,
        "device": torch.device(device).type,
        "precision": precision,
    }
    with one_training(folder, fingerprint, resume, reporter, "teacher"):
        outcomes = {}
        for lr in settings.lr if isinstance(settings.lr, tuple) else (settings.lr,):
            recipe = _recipe(settings, lr, seed, device, precision)
            own = folder / f"lr-{lr!r}"
            outcomes[own] = fine_tune(own, fine_tuning, recipe, reporter)
        best = best_of(outcomes, fine_tuning)
        grid = {repr(outcome.lr): outcome.metrics.get(task.metric) for outcome in outcomes.values()}
        values = {name: value for name, value in asdict(outcomes[best]).items() if name != "stopped"}
        result = TeacherResult(**values, model=settings.model, grid=grid)
        publish(best / "model", output, asdict(result))
    return result


def _loss(task: Task, outputs: Any, labels: Tensor, items: Tensor | int) -> Tensor:
    """Return the cross entropy of classes, or the squared error of scores, over the rows of the update."""
    logits = outputs["logits"].float()
    if task.is_score:
        return functional.mse_loss(logits.squeeze(-1), labels, reduction="sum") / items
    return functional.cross_entropy(logits, labels, reduction="sum") / items


def _score(task: Task, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    logits = predictions.astype(np.float32).reshape(len(predictions), -1)
    if not np.isfinite(logits).all():
        raise Diverged("the logits are not finite any more")
    return metrics.score(task, logits, labels)


def _batches(table: pl.DataFrame, task: Task) -> Iterator[list[str]]:
    for name in task.columns:
        for start in range(0, len(table), CHUNK):
            yield table[name].slice(start, CHUNK).to_list()


def _recipe(settings: TeacherSettings, lr: float, seed: int, device: str, precision: str) -> Recipe:
    return Recipe(
        lr=lr,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        batch_size=AUTO if settings.batch_size == "auto" else settings.batch_size,
        halve=settings.batch_size == "auto",
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        save_steps=settings.save_steps,
        seed=seed,
        device=device,
        precision=precision,
    )
