"""Fine-tuning at one learning rate: Hugging Face Trainer, the best dev checkpoint kept, resumable."""

from __future__ import annotations

import gc
import json
import math
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from torch.nn import functional
from transformers import PrinterCallback

from kdcli.api import Progress, Reporter, Task
from kdcli.data.files import atomic, full_disk
from kdcli.data.models import quiet
from kdcli.errors import KdError
from kdcli.tasks import metrics
from kdcli.teacher.build import Encoder
from kdcli.teacher.rows import ByLength, Rows
from kdcli.teacher.trainer import Arguments, ByLengthTrainer, Diverged, Watch

AUTO = 32
"""Texts an update with ``batch_size = "auto"``: paper A's recipe, which its learning rates are meant for."""
LOG_EVERY = 10


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune: the settings that matter here, resolved."""

    lr: float
    epochs: int
    max_steps: int
    batch_size: int | Literal["auto"]
    weight_decay: float
    warmup: float
    save_steps: int
    seed: int
    device: str
    precision: str


@dataclass(frozen=True)
class Outcome:
    """What came of one learning rate.

    Attributes:
        lr: The learning rate.
        metrics: Dev scores of the best checkpoint; empty if the training broke down before the first one.
        best_epoch: The epoch of that checkpoint.
        epochs: The epochs trained.
        updates: The updates trained.
        batch_size: Texts an update, over all processes.
        at_once: Texts that go through the model at once in one process.
        parameters: The model's parameters, all of them trained.
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


def fine_tune(
    folder: Path, encoder: Encoder, train: Rows, dev: Rows, task: Task, recipe: Recipe, reporter: Reporter
) -> Outcome:
    """Fine-tune an encoder; its best checkpoint on dev ends up in ``folder / "model"``.

    With ``batch_size = "auto"`` an update is 32 texts, in the largest power of two of them at once that fits into
    memory; their gradients add up, so that the recipe stays the same. A folder with an outcome is taken as it is,
    and one with checkpoints is gone on with.

    Raises:
        KdError: Memory or disk space ran out.
    """
    record = folder / "outcome.json"
    if record.exists():
        return Outcome(**json.loads(record.read_text("utf-8")))
    run = _Run(folder, encoder, train, dev, task, recipe, reporter)
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
            if best := run.best():
                _keep(best, folder / "model", encoder.tokenizer)
            with atomic(record) as temporary:
                temporary.write_text(json.dumps(asdict(outcome)), "utf-8")
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    return Outcome(**json.loads(record.read_text("utf-8")))


@dataclass
class _Run:
    folder: Path
    encoder: Encoder
    train: Rows
    dev: Rows
    task: Task
    recipe: Recipe
    reporter: Reporter
    at_once: int = field(init=False)
    parameters: int = 0

    def __post_init__(self) -> None:
        wanted = AUTO if self.recipe.batch_size == "auto" else self.recipe.batch_size
        self.share = self.at_once = math.ceil(wanted / PartialState().num_processes)
        self.update = self.share * PartialState().num_processes
        self.updates_an_epoch = math.ceil(len(self.train) / self.update)
        every = self.updates_an_epoch * self.recipe.epochs
        self.updates = min(self.recipe.max_steps or every, every)

    def __call__(self) -> None:
        """Train, from the last whole checkpoint on if there is one."""
        last = max(self.checkpoints(), default=0)
        if last >= self.updates:
            return
        order = ByLength(self.train.lengths, self.update, self.recipe.seed)
        title = f"fine-tune at {self.recipe.lr:g}"
        with quiet(), self.reporter.progress(title, self.updates, "updates") as progress:
            model = self.encoder.build(self.recipe.seed)
            self.parameters = sum(parameter.numel() for parameter in model.parameters())
            trainer = ByLengthTrainer(
                model=model,
                args=self.arguments(),
                train_dataset=self.train,
                eval_dataset=self.dev,
                data_collator=self.train.batch,
                compute_metrics=self.score,
                compute_loss_func=self.loss,
                callbacks=[self.watch(order, progress)],
            )
            trainer.order = order
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=str(self.folder / f"checkpoint-{last}") if last else None)

    def watch(self, order: ByLength, progress: Progress) -> Watch:
        """Return what looks after the training while the Trainer runs it."""
        return Watch(
            order,
            progress,
            self.reporter,
            updates_an_epoch=self.updates_an_epoch,
            save_steps=self.recipe.save_steps,
            metric=self.task.metric,
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
            seed=self.recipe.seed,
            use_cpu=device.type == "cpu",
            gpu=device.index if PartialState().num_processes == 1 else None,
            bf16=self.recipe.precision == "bf16",
            fp16=self.recipe.precision == "fp16",
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            metric_for_best_model=self.task.metric,
            greater_is_better=True,
            logging_steps=LOG_EVERY,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
            log_level="error",
        )

    def loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        """Return the mean loss of the rows of an update; squared error for scores.

        The Trainer takes it that a model divides its loss by the rows of the whole update. BERT's head divides by
        those it sees, so with its own loss gradients would grow with the pieces of an update and with the processes.
        """
        logits = outputs["logits"].float()
        if self.task.is_score:
            total = functional.mse_loss(logits.squeeze(-1), labels, reduction="sum")
        else:
            total = functional.cross_entropy(logits, labels, reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    def score(self, prediction: Any) -> dict[str, float]:
        """Return the dev scores of a checkpoint."""
        outputs = prediction.predictions
        outputs = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs, np.float32)
        if not np.isfinite(outputs).all():
            raise Diverged("the logits are no numbers any more")
        return metrics.score(self.task, outputs.reshape(len(outputs), -1), prediction.label_ids)

    def checkpoints(self) -> dict[int, dict[str, Any]]:
        """Return the Trainer's state of each whole checkpoint, by its update; it is what the Trainer writes last."""
        states = {}
        for path in self.folder.glob("checkpoint-*/trainer_state.json"):
            try:
                states[int(path.parent.name.removeprefix("checkpoint-"))] = json.loads(path.read_text("utf-8"))
            except ValueError:
                continue
        return states

    def best(self) -> Path | None:
        """Return the best checkpoint on dev."""
        states = self.checkpoints()
        step = states[max(states)]["best_global_step"] if states else None
        return self.folder / f"checkpoint-{step}" if step else None

    def outcome(self, stopped: str | None) -> Outcome:
        """Return the outcome that the checkpoints tell."""
        best, scores, epoch = self.best(), {}, 0.0
        if best is not None:
            step = int(best.name.removeprefix("checkpoint-"))
            history = self.checkpoints()[step]["log_history"]
            point = next(point for point in history if point["step"] == step and f"eval_{self.task.metric}" in point)
            epoch = point["epoch"]
            timing = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
            named = {name.removeprefix("eval_"): value for name, value in point.items() if name.startswith("eval_")}
            scores = {name: value for name, value in named.items() if name not in timing}
        done = max(self.checkpoints(), default=0) if stopped else self.updates
        parameters = self.parameters or sum(
            value.numel() for value in self.encoder.build(self.recipe.seed).parameters()
        )
        epochs = done / self.updates_an_epoch
        return Outcome(self.recipe.lr, scores, epoch, epochs, done, self.update, self.at_once, parameters, stopped)


def _fitting(run: _Run) -> None:
    single = PartialState().num_processes == 1
    while True:
        try:
            return run()
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            # Several processes run out of memory at different times, and would wait for each other for ever.
            if run.recipe.batch_size != "auto" or run.at_once == 1 or not single:
                hint = 'teacher.batch_size = "auto"' if single and run.at_once > 1 else "a shorter teacher.max_length"
                what = f"out of memory with {run.at_once} texts at once"
                raise KdError(what, key="teacher.batch_size", hint=f"try {hint}") from error
        run.at_once //= 2
        run.reporter.info(f"out of memory: {run.at_once} texts at once now, still {run.update} an update")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _keep(best: Path, model: Path, tokenizer: Any) -> None:
    with quiet(), atomic(model) as temporary:
        temporary.mkdir()
        for file in [best / "config.json", *best.glob("*.safetensors*")]:
            shutil.copy(file, temporary)
        tokenizer.save_pretrained(temporary)
