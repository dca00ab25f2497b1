"""Fine-tuning at one learning rate: the best dev checkpoint kept, resumable."""

from __future__ import annotations

import gc
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from transformers import PrinterCallback

from kdcli.api import Progress, Reporter
from kdcli.errors import KdError, ProfileError
from kdcli.files import atomic, full_disk
from kdcli.lm import checkpoints
from kdcli.lm.learner import Learner
from kdcli.lm.order import ByLength
from kdcli.lm.outcome import Outcome
from kdcli.lm.trainer import Arguments, ByLengthTrainer, Diverged, Watch
from kdcli.models.hf import quiet

LOG_EVERY = 10


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune: the settings that matter here, resolved.

    Attributes:
        lr: The highest learning rate of a linear schedule, which AdamW follows.
        epochs: Passes over the rows.
        max_steps: The most updates; 0 = no limit.
        batch_size: Rows an update, over all processes; ``auto`` finds out how many of them go at once.
        auto: Rows an update with ``auto``: what the learning rate is meant for.
        weight_decay: AdamW's weight decay, of all parameters but biases and norms.
        warmup: The share of the updates in which the learning rate rises.
        save_steps: Write a checkpoint every so many updates, beside one an epoch; 0 = none.
        seed: Seed of new weights, of the order and of dropout.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``; weights and optimiser are float32 in any case.
        at_once: The most rows that go through the model at once in one process; 0 = all of an update.
        gradient_checkpointing: Keep no activations but each layer's input, and compute the others twice.
    """

    lr: float
    epochs: int
    max_steps: int
    batch_size: int | Literal["auto"]
    auto: int
    weight_decay: float
    warmup: float
    save_steps: int
    seed: int
    device: str
    precision: str
    at_once: int = 0
    gradient_checkpointing: bool = False


def fine_tune(folder: Path, learner: Learner, recipe: Recipe, reporter: Reporter) -> Outcome:
    """Fine-tune a model; its best checkpoint on dev ends up in ``folder / "model"``.

    With ``batch_size = "auto"`` an update has ``recipe.auto`` rows, of which as many go at once as fit into memory,
    halved until they do; their gradients add up, so that the recipe stays the same. A folder with an outcome is
    taken as it is, and one with checkpoints is gone on with. Under ``torchrun`` all processes call this.

    Args:
        folder: The folder of this learning rate, inside that of ``one_training``.
        learner: The model and its rows.
        recipe: The settings.
        reporter: Told of everything.

    Raises:
        KdError: Memory or disk space ran out.
        ProfileError: The model knows no gradient checkpointing.
    """
    record = folder / "outcome.json"
    if not record.exists():
        _train(folder, learner, recipe, reporter)
    outcome = Outcome(**json.loads(record.read_text("utf-8")))
    outcome.tell(learner, reporter)
    return outcome


def _train(folder: Path, learner: Learner, recipe: Recipe, reporter: Reporter) -> None:
    run = _Run(folder, learner, recipe, reporter)
    stopped = None
    try:
        with full_disk(folder):
            _fitting(run)
    except Diverged as error:
        stopped = str(error)
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        with full_disk(folder):
            outcome = run.outcome(stopped)
            if best := checkpoints.best_update(folder):
                checkpoints.keep(folder, best, learner.tokenizer)
            with atomic(folder / "outcome.json") as temporary:
                temporary.write_text(json.dumps(asdict(outcome)), "utf-8")
        checkpoints.remove(folder)
    PartialState().wait_for_everyone()


@dataclass
class _Run:
    folder: Path
    learner: Learner
    recipe: Recipe
    reporter: Reporter
    at_once: int = field(init=False)
    parameters: int = 0

    def __post_init__(self) -> None:
        wanted = self.recipe.auto if self.recipe.batch_size == "auto" else self.recipe.batch_size
        self.share = math.ceil(wanted / PartialState().num_processes)
        self.limit(self.recipe.at_once or self.share)
        self.update = self.share * PartialState().num_processes
        self.updates_an_epoch = math.ceil(len(self.learner.train) / self.update)
        every = self.updates_an_epoch * self.recipe.epochs
        self.updates = min(self.recipe.max_steps or every, every)

    def limit(self, rows: int) -> None:
        """Let at most so many rows go at once, and so many that updates stay as they are."""
        self.at_once = next(size for size in range(min(rows, self.share), 0, -1) if self.share % size == 0)

    def __call__(self) -> None:
        """Train, from the last whole checkpoint on if there is one."""
        last = max(checkpoints.states(self.folder), default=0)
        if last >= self.updates:
            return
        order = ByLength(self.learner.train, self.update, self.recipe.seed)
        title = f"fine-tune at {self.recipe.lr:g}"
        with quiet(), self.reporter.progress(title, self.updates, "updates") as progress:
            trainer = ByLengthTrainer(
                order,
                model=self.model(),
                args=self.arguments(),
                train_dataset=self.learner.train,
                eval_dataset=self.learner.dev,
                data_collator=self.learner.train.batch,
                compute_metrics=self.score,
                compute_loss_func=self.loss,
                preprocess_logits_for_metrics=self.reduce,
                callbacks=[self.watch(order, progress)],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=str(self.folder / f"checkpoint-{last}") if last else None)

    def model(self) -> Any:
        """Return the model to start from."""
        model = self.learner.build(self.recipe.seed)
        if self.recipe.gradient_checkpointing and not model.supports_gradient_checkpointing:
            what = f"{type(model).__name__} has no gradient checkpointing"
            raise ProfileError(what, key=f"{self.learner.key}.gradient_checkpointing", hint="set it to false")
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        return model

    def watch(self, order: ByLength, progress: Progress) -> Watch:
        """Return what looks after the training while the Trainer runs it."""
        return Watch(
            self.learner,
            order,
            progress,
            self.reporter,
            updates_an_epoch=self.updates_an_epoch,
            save_steps=self.recipe.save_steps,
            lr=self.recipe.lr,
        )

    def arguments(self) -> Arguments:
        """Return the Trainer's own form of the recipe."""
        device = torch.device(self.recipe.device)
        return Arguments(
            output_dir=str(self.folder.resolve()),
            learning_rate=self.recipe.lr,
            max_steps=self.updates,
            warmup_steps=math.ceil(self.recipe.warmup * self.updates),
            weight_decay=self.recipe.weight_decay,
            per_device_train_batch_size=self.at_once,
            gradient_accumulation_steps=self.share // self.at_once,
            per_device_eval_batch_size=2 * self.at_once,
            gradient_checkpointing=self.recipe.gradient_checkpointing,
            seed=self.recipe.seed,
            use_cpu=device.type == "cpu",
            gpu=device.index if PartialState().num_processes == 1 else None,
            bf16=self.recipe.precision == "bf16",
            fp16=self.recipe.precision == "fp16",
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            metric_for_best_model=self.learner.metric,
            greater_is_better=self.learner.greater_is_better,
            label_names=["labels"],
            logging_steps=LOG_EVERY,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
            log_level="error",
        )

    def loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
        """Return a batch's share of the loss of an update.

        The Trainer takes it that a model divides its loss by the rows of the whole update. Models divide by those
        they see, so with their own loss gradients would grow with the pieces of an update and with the processes.
        """
        return self.learner.loss(outputs, labels, num_items_in_batch)

    def reduce(self, logits: Any, labels: Tensor) -> Tensor:
        """Return what the score needs of a dev batch; some models give more than logits."""
        return self.learner.reduce(logits[0] if isinstance(logits, tuple) else logits, labels)

    def score(self, prediction: Any) -> dict[str, float]:
        """Return the dev scores of a checkpoint."""
        return self.learner.score(np.asarray(prediction.predictions), prediction.label_ids)

    def outcome(self, stopped: str | None) -> Outcome:
        """Return the outcome that the checkpoints tell."""
        best = checkpoints.best_update(self.folder)
        epoch, scores = checkpoints.scores(self.folder, best, self.learner.metric) if best else (0.0, {})
        done = max(checkpoints.states(self.folder), default=0) if stopped else self.updates
        if not self.parameters:
            self.model()
        return Outcome(
            lr=self.recipe.lr,
            metrics=scores,
            best_epoch=epoch,
            epochs=done / self.updates_an_epoch,
            updates=done,
            batch_size=self.update,
            at_once=self.at_once,
            parameters=self.parameters,
            stopped=stopped,
        )


def _fitting(run: _Run) -> None:
    single, key = PartialState().num_processes == 1, run.learner.key
    while True:
        try:
            return run()
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            # Several processes run out of memory at different times, and would wait for each other for ever.
            if run.recipe.batch_size != "auto" or run.at_once == 1 or not single:
                hint = f'{key}.batch_size = "auto"' if single and run.at_once > 1 else f"a shorter {key}.max_length"
                what = f"out of memory with {run.at_once} texts at once"
                raise KdError(what, key=f"{key}.batch_size", hint=f"try {hint}") from error
        run.limit(run.at_once // 2)
        run.reporter.info(f"out of memory: {run.at_once} texts at once now, still {run.update} an update")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
