"""Fine-tuning with the Hugging Face Trainer at one learning rate: resumable, the best dev checkpoint kept."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import PrinterCallback

from kdcli.api import Reporter
from kdcli.errors import KdError, ProfileError
from kdcli.files import atomic, full_disk
from kdcli.lm.trainer import Arguments, ByLength, ByLengthTrainer, Diverged, FineTuneTask, Watch
from kdcli.lm.training_folder import best_checkpoint, keep_checkpoint, trainer_states
from kdcli.models.hf import quiet
from kdcli.models.memory import halve_until_it_fits

__all__ = ["Diverged", "FineTuneTask", "Recipe", "TrainingOutcome", "best_of", "fine_tune"]

LOG_EVERY = 10


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune.

    Attributes:
        lr: The highest learning rate of AdamW's linear schedule.
        max_steps: The largest number of updates; 0 = no limit.
        batch_size: Rows an update, over all processes.
        halve: Whether fewer rows go at once when memory runs out; their gradients add up to the same update.
        warmup: The share of the updates in which the learning rate rises.
        save_steps: Updates between checkpoints, beside the one after each epoch; 0 = none.
        precision: Of the arithmetic; weights and optimiser are always float32.
        at_once: The largest number of rows at once in one process; 0 = all of an update.
    """

    lr: float
    epochs: int
    max_steps: int
    batch_size: int
    halve: bool
    weight_decay: float
    warmup: float
    save_steps: int
    seed: int
    device: str
    precision: str
    at_once: int = 0
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class TrainingOutcome:
    """The outcome of one learning rate.

    Attributes:
        metrics: Dev scores of the best checkpoint; empty if the training diverged before the first one.
        batch_size: Texts an update, over all processes.
        at_once: Texts that go through the model at once in one process.
        stopped: Why the training ended early, if it did.
    """

    lr: float
    metrics: dict[str, float]
    best_epoch: float
    epochs: float
    updates: int
    batch_size: int
    at_once: int
    parameters: int
    stopped: str | None = None


def fine_tune(folder: Path, task: FineTuneTask, recipe: Recipe, reporter: Reporter) -> TrainingOutcome:
    """Fine-tune a model; its best checkpoint on dev ends up in ``folder / "model"``.

    The folder lies inside that of ``one_training``. An outcome in it is used as it is, and a training continues from
    its checkpoints. Under ``torchrun`` all processes call this.

    Raises:
        KdError: Memory or disk space ran out.
        ProfileError: The model has no gradient checkpointing.
    """
    record = folder / "outcome.json"
    if not record.exists():
        _train(folder, task, recipe, reporter)
    outcome = TrainingOutcome(**json.loads(record.read_text("utf-8")))
    score = f"{task.metric} {outcome.metrics[task.metric]:.4f} on dev" if outcome.metrics else "no checkpoint"
    if outcome.stopped:
        reporter.warn(f"training at {outcome.lr:g} stopped: {outcome.stopped}; best model before: {score}")
    else:
        after = f"after epoch {round(outcome.best_epoch, 2):g} of {round(outcome.epochs, 2):g}"
        reporter.info(f"fine-tuned at {outcome.lr:g}: {score}, {after}")
    return outcome


def best_of(outcomes: Mapping[Path, TrainingOutcome], task: FineTuneTask) -> Path:
    """Return the folder of the best outcome on dev, the first of equals.

    Raises:
        KdError: Every training diverged.
    """
    scores = {folder: outcome.metrics[task.metric] for folder, outcome in outcomes.items() if outcome.metrics}
    if not scores:
        hint = f"try a lower {task.key}.lr, more {task.key}.warmup, or fp32"
        stopped = next(iter(outcomes.values())).stopped
        raise KdError(f"the training broke down: {stopped}", hint=hint, key=f"{task.key}.lr")
    better = max if task.greater_is_better else min
    return better(scores, key=lambda folder: scores[folder])


def _train(folder: Path, task: FineTuneTask, recipe: Recipe, reporter: Reporter) -> None:
    training = _Training(folder, task, recipe, reporter)
    state = PartialState()
    # Several processes run out of memory at different times, and would wait for each other for ever.
    auto = recipe.halve and state.num_processes == 1
    hint = f"a shorter {task.key}.max_length" if recipe.halve else f'{task.key}.batch_size = "auto"'
    stopped = None
    try:
        with full_disk(folder):
            rows, key = recipe.at_once or training.share, f"{task.key}.batch_size"
            halve_until_it_fits(training.run, rows, reporter=reporter, auto=auto, hint=f"try {hint}", key=key)
    except Diverged as error:
        stopped = str(error)
    state.wait_for_everyone()
    if state.is_main_process:
        with full_disk(folder):
            best, outcome = training.outcome(stopped)
            if best:
                keep_checkpoint(folder, best, task.tokenizer)
            with atomic(folder / "outcome.json") as temporary:
                temporary.write_text(json.dumps(asdict(outcome)), "utf-8")
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    state.wait_for_everyone()


class _Training:
    """One learning rate: the numbers of its updates, and the Trainer."""

    def __init__(self, folder: Path, task: FineTuneTask, recipe: Recipe, reporter: Reporter) -> None:
        self.folder, self.task, self.recipe, self.reporter = folder, task, recipe, reporter
        processes = PartialState().num_processes
        self.share = math.ceil(recipe.batch_size / processes)  # rows of an update in this process
        self.update = self.share * processes
        self.epoch_updates = math.ceil(len(task.train) / self.update)
        every = self.epoch_updates * recipe.epochs
        self.updates = min(recipe.max_steps or every, every)
        self.at_once = self.share
        self.parameters = 0

    def run(self, rows: int) -> None:
        """Train with at most ``rows`` at once, from the last whole checkpoint on if there is one."""
        # A divisor, so that an update stays the same.
        self.at_once = next(size for size in range(min(rows, self.share), 0, -1) if self.share % size == 0)
        last = max(trainer_states(self.folder), default=0)
        if last >= self.updates:
            return
        task, recipe = self.task, self.recipe
        order = ByLength(task.train, self.update, recipe.seed)
        title = f"fine-tune at {recipe.lr:g}"
        with quiet(), self.reporter.progress(title, self.updates, "updates") as progress:
            watch = Watch(task, order, progress, self.reporter, self.epoch_updates, recipe.save_steps, recipe.lr)
            trainer = ByLengthTrainer(
                order,
                model=self._model(),
                args=self._arguments(),
                train_dataset=task.train,
                eval_dataset=task.dev,
                data_collator=task.train.batch,
                compute_metrics=lambda found: task.score(np.asarray(found.predictions), found.label_ids),
                # The Trainer expects a loss divided by the rows of the whole update. A model's own loss is divided by
                # the rows that it sees, so that gradients would grow with the pieces of an update and the processes.
                compute_loss_func=lambda outputs, labels, num_items_in_batch: task.loss(
                    outputs, labels, num_items_in_batch
                ),
                # Some models return more than logits.
                preprocess_logits_for_metrics=lambda logits, labels: task.reduce(
                    logits[0] if isinstance(logits, tuple) else logits, labels
                ),
                callbacks=[watch],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=str(self.folder / f"checkpoint-{last}") if last else None)

    def outcome(self, stopped: str | None) -> tuple[int | None, TrainingOutcome]:
        """Return the update of the best checkpoint, and the outcome."""
        best, epoch, scores = best_checkpoint(self.folder, self.task.metric)
        done = max(trainer_states(self.folder), default=0) if stopped else self.updates
        if not self.parameters:
            self._model()
        return best, TrainingOutcome(
            lr=self.recipe.lr,
            metrics=scores,
            best_epoch=epoch,
            epochs=done / self.epoch_updates,
            updates=done,
            batch_size=self.update,
            at_once=self.at_once,
            parameters=self.parameters,
            stopped=stopped,
        )

    def _model(self) -> Any:
        model = self.task.build(self.recipe.seed)
        if self.recipe.gradient_checkpointing and not model.supports_gradient_checkpointing:
            what = f"{type(model).__name__} has no gradient checkpointing"
            raise ProfileError(what, key=f"{self.task.key}.gradient_checkpointing", hint="set it to false")
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        return model

    def _arguments(self) -> Arguments:
        recipe, device = self.recipe, torch.device(self.recipe.device)
        return Arguments(
            output_dir=str(self.folder.resolve()),
            learning_rate=recipe.lr,
            max_steps=self.updates,
            warmup_steps=math.ceil(recipe.warmup * self.updates),
            weight_decay=recipe.weight_decay,
            per_device_train_batch_size=self.at_once,
            gradient_accumulation_steps=self.share // self.at_once,
            per_device_eval_batch_size=2 * self.at_once,
            gradient_checkpointing=recipe.gradient_checkpointing,
            seed=recipe.seed,
            use_cpu=device.type == "cpu",
            gpu=device.index if PartialState().num_processes == 1 else None,
            bf16=recipe.precision == "bf16",
            fp16=recipe.precision == "fp16",
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            metric_for_best_model=self.task.metric,
            greater_is_better=self.task.greater_is_better,
            label_names=["labels"],
            logging_steps=LOG_EVERY,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
            log_level="error",
        )
