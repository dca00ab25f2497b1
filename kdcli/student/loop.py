"""The training loop: updates, evaluations, and where it stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from math import ceil, inf, isfinite, nan

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.cuda import OutOfMemoryError

from kdcli import registry
from kdcli.api import Progress, Reporter, Task
from kdcli.config.schema import StudentSettings
from kdcli.errors import KdError
from kdcli.student.batches import collate, epoch_batches, targets
from kdcli.student.checkpoint import Checkpoint
from kdcli.student.evaluate import evaluate
from kdcli.student.examples import Examples
from kdcli.student.losses import loss_of
from kdcli.student.optimizers import clip_gradients, make_optimizer

_SHOWN = 20
"""Updates between two moves of the progress bar."""


@dataclass
class Position:
    """Where a training stands, as JSON values.

    Attributes:
        epoch: Epochs behind it.
        batch: Batches of this epoch behind it.
        updates: All updates so far.
        rows: All rows so far.
        loss: The sum of the losses since the last evaluation.
        losses: Their number.
        stale: Evaluations since the best.
        best: The dev metrics of the best model, empty before the first evaluation.
        best_update: After how many updates it stood.
        history: The learning curve.
    """

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    rows: int = 0
    loss: float = 0.0
    losses: int = 0
    stale: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_update: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Training:
    """One training, which ``run`` takes to its end.

    Args:
        module: The model, on its device.
        examples: The rows to learn from.
        dev: Labelled rows that choose the model.
        task: The task.
        settings: The student's settings.
        seed: Seed of the order of the rows.
        limit: The most updates.
        checkpoint: Where it can go on.
        name: What the progress and the learning curve call it.
        reporter: Shows the progress, and gets the learning curve.

    Attributes:
        position: Where it stands.
        weights: Those of the best model.
        stopped: Why it ended.
        updates: The most updates there can be.
        rows: The rows of this launch.
        seconds: The time that they took, evaluations and checkpoints left out.
    """

    def __init__(
        self,
        module: nn.Module,
        examples: Examples,
        dev: Examples,
        *,
        task: Task,
        settings: StudentSettings,
        seed: int,
        limit: float,
        checkpoint: Checkpoint,
        name: str,
        reporter: Reporter,
    ) -> None:
        self.module = module
        self.examples = examples
        self.dev = dev
        self.task = task
        self.settings = settings
        self.seed = seed
        self.limit = limit
        self.checkpoint = checkpoint
        self.name = name
        self.reporter = reporter
        self.device = next(module.parameters()).device
        self.optimizer = make_optimizer(module, settings, self.device)
        self.updates = min(settings.epochs * ceil(len(examples) / settings.batch_size), limit)
        self.loss = loss_of(settings)
        self.position = Position()
        self.weights: Mapping[str, Tensor] = {}
        self.stopped = ""
        self.rows = 0
        self.seconds = 0.0

    def run(self, resume: bool) -> None:
        """Train until an end is reached.

        Args:
            resume: Go on from the checkpoint, if there is one of this training.

        Raises:
            KdError: The loss became infinite or NaN before any evaluation.
            PluginError: The module fails.
        """
        restored = self.checkpoint.restore(self.module, self.optimizer, self.device, self.reporter) if resume else None
        if restored:
            self.weights, position = restored
            self.position = Position(**position)
            self.reporter.info(f"training goes on after update {self.position.updates:,}")
        total = min(self.settings.epochs * len(self.examples), self.limit * self.settings.batch_size)
        with self.reporter.progress(self.name, int(total)) as progress:
            progress.advance(self.position.rows)
            while not self._ended():
                begin = time.perf_counter()
                self._epoch(progress)
                self.seconds += time.perf_counter() - begin

    def _ended(self) -> bool:
        if self.settings.patience and self.position.stale >= self.settings.patience:
            self.stopped = "patience"
        elif self.position.updates >= self.limit:
            self.stopped = "max_steps"
        elif self.position.epoch >= self.settings.epochs:
            self.stopped = "epochs"
        return bool(self.stopped)

    def _epoch(self, progress: Progress) -> None:
        """Do the batches of an epoch that are still to be done, or as many of them as there is reason to."""
        position, settings = self.position, self.settings
        batches = epoch_batches(self.examples.lengths, settings.batch_size, self.seed, position.epoch)
        rows = 0
        self.module.train()
        for number in range(position.batch, len(batches)):
            loss = self._update(batches[number])
            if not isfinite(loss):
                self._diverged(loss)
                return
            position.batch = number + 1
            position.updates += 1
            position.rows += len(batches[number])
            position.loss += loss
            position.losses += 1
            self.rows += len(batches[number])
            rows += len(batches[number])
            last = position.batch == len(batches)
            due = position.updates % settings.eval_steps == 0 if settings.eval_steps else last
            end = position.updates >= self.limit or (last and position.epoch + 1 == settings.epochs)
            if due or end:
                self._evaluate()
            if due or last or end or position.updates % _SHOWN == 0:
                progress.advance(rows, **self._shown(loss))
                rows = 0
            if end or self._ended():
                return
        position.epoch, position.batch = position.epoch + 1, 0

    def _update(self, rows: NDArray[np.int64]) -> float:
        """Take a step from one batch and return its loss; none from a loss that is not finite."""
        examples, device = self.examples, self.device
        self.optimizer.zero_grad()
        batch = collate(examples, rows, device)
        with self._blaming("forward"):
            logits = self.module(batch)
        loss = self.loss(logits, targets(examples.logits, rows, device), targets(examples.labels, rows, device))
        value = loss.item()
        if isfinite(value):
            with self._blaming("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            if self.settings.decay == "linear":
                for group in self.optimizer.param_groups:
                    group["lr"] = self.settings.lr * (1 - self.position.updates / self.updates)
            if self.settings.clip:
                clip_gradients(self.module.parameters(), self.settings.clip)
            self.optimizer.step()
        return value

    def _evaluate(self) -> None:
        """Score the model on dev, keep it if it is the best, and write the checkpoint."""
        position, begin = self.position, time.perf_counter()
        with self._blaming("forward"):
            metrics = evaluate(self.module, self.dev, self.task)
        if not all(value.isfinite().all() for value in self.module.state_dict().values()):
            self._diverged(nan)
            return
        loss = position.loss / position.losses
        position.loss, position.losses = 0.0, 0
        position.history.append({"update": position.updates, "epoch": self.epochs, "loss": loss, **metrics})
        if metrics[self.task.metric] > position.best.get(self.task.metric, -inf):
            position.best, position.best_update, position.stale = metrics, position.updates, 0
            self.weights = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        else:
            position.stale += 1
        self.checkpoint.save(self.module, self.optimizer, self.weights, asdict(position))
        self.seconds -= time.perf_counter() - begin
        self.reporter.metrics(self.name, position.updates, loss=loss, **metrics)

    @property
    def epochs(self) -> float:
        """How often the rows have been seen."""
        return self.position.rows / len(self.examples)

    def _blaming(self, inside: str) -> AbstractContextManager[None]:
        """Blame the plugin for what goes wrong in its module, but for memory: that may be the batch's fault."""
        return registry.blaming("students", self.settings.model, inside, but=(OutOfMemoryError,))

    def _diverged(self, loss: float) -> None:
        what = f"the loss became {loss} at update {self.position.updates + 1:,}"
        hint = "lower student.lr, or set student.clip"
        if not self.position.best:
            raise KdError(what, hint=hint)
        self.reporter.warn(
            f"{what}: stopped; the best model, of update {self.position.best_update:,}, is kept ({hint})"
        )
        self.stopped = "nan"

    def _shown(self, loss: float) -> dict[str, float | str]:
        best = self.position.best.get(self.task.metric)
        return {"loss": loss} if best is None else {"loss": loss, "best": f"{best:.4f}"}
