"""Hugging Face Trainer, fitted to this house: one device, rows by length, our reporter, no silent breakdown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from kdcli.api import Progress, Reporter
from kdcli.lm.learner import Examples, Learner
from kdcli.lm.order import ByLength


class Diverged(Exception):
    """The loss or the model's outputs are no numbers any more."""


@dataclass
class Arguments(TrainingArguments):  # type: ignore[misc]
    """The Trainer's arguments for one device a process: it would spread over all GPUs that it sees."""

    gpu: int | None = field(default=None)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        device: torch.device = super().device
        if self.gpu is None or device.type != "cuda":
            return device
        torch.cuda.set_device(self.gpu)
        return torch.device("cuda", self.gpu)

    @property
    def n_gpu(self) -> int:
        """The number of GPUs of this process."""
        count: int = super().n_gpu
        return min(count, 1)


class ByLengthTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that takes rows in our order and pads them to the longest of a batch."""

    def __init__(self, order: ByLength, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.order = order
        # For some causal models, and not for others, it leaves each row's first label out of an update's count;
        # our rows say with -100 what does not count.
        self._loss_shifts_labels = False

    def get_train_dataloader(self) -> Any:
        """Return batches of rows that are about equally long."""
        return self._batches(self.train_dataset, self.args.train_batch_size, self.order)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return batches of rows from short to long."""
        order = np.argsort(self.eval_dataset.lengths, kind="stable").tolist()
        return self._batches(self.eval_dataset, self.args.eval_batch_size, order)

    def _batches(self, examples: Examples, batch_size: int, order: Any) -> Any:
        numbers: Any = range(len(examples))
        loader = DataLoader(numbers, batch_size, sampler=order, collate_fn=examples.batch)
        return self.accelerator.prepare(loader)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Show the progress, keep rows and order in step with the epoch, and end a training that has broken down."""

    def __init__(
        self,
        learner: Learner,
        order: ByLength,
        progress: Progress,
        reporter: Reporter,
        *,
        updates_an_epoch: int,
        save_steps: int,
        lr: float,
    ) -> None:
        self.learner = learner
        self.order = order
        self.progress = progress
        self.reporter = reporter
        self.updates_an_epoch = updates_an_epoch
        self.save_steps = save_steps
        self.lr = lr
        self.loss = math.nan
        self.shown: dict[str, float | str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the bar where a resumed training starts."""
        if state.best_metric is not None:
            self.shown["best"] = f"{state.best_metric:.4f}"
        self.progress.advance(state.global_step, **self.shown)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make the rows of the epoch, and set their order."""
        self.order.epoch = state.global_step // self.updates_an_epoch
        self.learner.train.start(self.order.epoch)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count an update, and save if it is time."""
        self.progress.advance(1, **self.shown)
        if self.save_steps and state.global_step % self.save_steps == 0:
            control.should_save = True
        # The loss comes before evaluation and saving, so that neither ever sees a model that has broken down.
        control.should_log |= control.should_save

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the loss before the epoch is evaluated."""
        control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Take the loss; raise Diverged if it is no number."""
        if "loss" in logs:
            self.loss = logs["loss"]
            if not math.isfinite(self.loss):
                raise Diverged(f"the loss is {self.loss} at update {state.global_step}")
            self.shown["loss"] = self.loss

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Tell the dev score."""
        score = metrics[f"eval_{self.learner.metric}"]
        better = max if self.learner.greater_is_better else min
        best = better(score, score if state.best_metric is None else state.best_metric)
        self.shown["best"] = f"{best:.4f}"
        self.progress.advance(0, **self.shown)
        values = {self.learner.metric: score, "loss": self.loss, "dev_loss": metrics["eval_loss"], "lr": self.lr}
        self.reporter.metrics(self.learner.stage, state.global_step, **values)
