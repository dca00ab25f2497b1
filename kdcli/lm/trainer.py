"""The Hugging Face Trainer as kd uses it: one device a process, rows by length, no silent breakdown."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from kdcli.api import Progress, Reporter
from kdcli.lm.texts import TrainingSet

POOL = 50  # updates whose texts are sorted by length together: enough to pad little, few enough to stay random


class Diverged(Exception):
    """The loss or the model's outputs are no longer finite."""


@dataclass(frozen=True)
class FineTuneTask:
    """A model to fine-tune, with its rows, its loss and its dev score.

    ``loss`` takes outputs, labels and ``num_items_in_batch``, the number of labels of the whole update that are not
    -100; it is the sum of the batch's losses divided by that. ``score`` takes the logits of all dev rows, from short to
    long, each batch after ``reduce`` (``[batch]`` or ``[batch, outputs]``), and their labels, padded with -100.
    """

    stage: str  # the name in learning curves: ``teacher`` or ``generator``
    key: str  # the table of the settings, for errors: ``teacher`` or ``generators.gpt2``
    tokenizer: Any  # saved beside the model
    train: TrainingSet
    dev: TrainingSet
    build: Callable[[int], Any]  # the ``PreTrainedModel`` to start from, in float32, new weights drawn with a seed
    loss: Callable[[Any, Tensor, Tensor | int], Tensor]
    score: Callable[[np.ndarray, np.ndarray], dict[str, float]]  # ``Diverged`` where they are not finite
    metric: str  # the dev score that chooses among checkpoints
    greater_is_better: bool
    reduce: Callable[[Tensor, Tensor], Tensor] = lambda logits, labels: logits


class ByLength(Sampler[int]):
    """Rows in random order, in which the ``update`` rows of an update are about equally long.

    The order depends on the seed, the epoch and the lengths alone, so that a resumed training and all processes of
    one see the same. The longest rows come first in the first epoch: if memory runs out, it does so at once.
    """

    def __init__(self, examples: TrainingSet, update: int, seed: int) -> None:
        self.examples, self.update, self.seed = examples, update, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.examples.rows)

    def __iter__(self) -> Iterator[int]:
        rows, lengths = len(self), self.examples.rows.lengths
        random = np.random.default_rng((self.seed, self.epoch))
        pool = self.update * min(max(rows // (4 * self.update), 1), POOL)
        order = random.permutation(rows)
        order = order[np.lexsort((-lengths[order], np.arange(rows) // pool))]
        whole = rows // self.update * self.update
        updates = random.permutation(order[:whole].reshape(-1, self.update))
        if self.epoch == 0 and len(updates):
            longest = lengths[updates].max(axis=1).argmax()
            updates[[0, longest]] = updates[[longest, 0]]
        yield from (*updates.ravel().tolist(), *order[whole:].tolist())


@dataclass
class Arguments(TrainingArguments):  # type: ignore[misc]
    """The Trainer's arguments for one device a process, where the Trainer itself would use all GPUs."""

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
        return min(int(super().n_gpu), 1)


class ByLengthTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that takes rows in the order of ``ByLength`` and pads them to the longest of a batch."""

    def __init__(self, order: ByLength, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.order = order
        # For some causal models the Trainer leaves each row's first label out of an update's count. Our rows mark
        # with -100 what does not count.
        self._loss_shifts_labels = False

    def get_train_dataloader(self) -> Any:
        """Return batches of rows that are about equally long."""
        return self._batches(self.train_dataset, self.args.train_batch_size, self.order)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return batches of rows from short to long."""
        order = np.argsort(self.eval_dataset.rows.lengths, kind="stable").tolist()
        return self._batches(self.eval_dataset, self.args.eval_batch_size, order)

    def _batches(self, examples: TrainingSet, batch_size: int, order: Any) -> Any:
        numbers: Any = range(len(examples.rows))
        # A new epoch may bring new rows.
        loader = DataLoader(numbers, batch_size, sampler=order, collate_fn=lambda rows: examples.rows.batch(rows))
        return self.accelerator.prepare(loader)


@dataclass(eq=False)
class Watch(TrainerCallback):  # type: ignore[misc]
    """Show the progress, keep rows and order in step with the epoch, and end a training that has diverged."""

    task: FineTuneTask
    order: ByLength
    progress: Progress
    reporter: Reporter
    epoch_updates: int
    save_steps: int
    peak_lr: float
    lr: float = math.nan
    loss: float = math.nan
    shown: dict[str, float | str] = field(default_factory=dict)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the bar where a resumed training starts."""
        if state.best_metric is not None:
            self.shown["best"] = f"{state.best_metric:.4f}"
        self.progress.advance(state.global_step, **self.shown)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Prepare the rows of the epoch, and set their order."""
        self.order.epoch = state.global_step // self.epoch_updates
        self.task.train.start(self.order.epoch)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any, **_: Any) -> None:
        """Keep the learning rate of this update, before the schedule moves on."""
        self.lr = float(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count an update, and save if it is time."""
        self.progress.advance(1, **self.shown)
        if self.save_steps and state.global_step % self.save_steps == 0:
            control.should_save = True
        # The loss is checked before evaluation and saving, so that neither sees a model that has diverged.
        control.should_log |= control.should_save

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the loss, so that it is checked before the epoch is evaluated."""
        control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Check the loss; raise Diverged if it is not finite."""
        if "loss" in logs:
            self.loss = logs["loss"]
            if not math.isfinite(self.loss):
                raise Diverged(f"the loss is {self.loss} at update {state.global_step}")
            self.shown["loss"] = self.loss

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Report the dev score."""
        score = metrics[f"eval_{self.task.metric}"]
        better = max if self.task.greater_is_better else min
        best = better(score, score if state.best_metric is None else state.best_metric)
        self.shown["best"] = f"{best:.4f}"
        self.progress.advance(0, **self.shown)
        # The Trainer's mean over batches depends on how tokens fall into them; a score that is a loss does not.
        loss = metrics["eval_loss"] if self.task.greater_is_better else score
        values = {self.task.metric: score, "loss": self.loss, "dev_loss": loss, "lr": self.lr, "peak_lr": self.peak_lr}
        self.reporter.metrics(self.task.stage, state.global_step, **values)
