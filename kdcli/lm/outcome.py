"""What came of trainings, and the best of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdcli.api import Reporter
from kdcli.errors import KdError
from kdcli.lm.learner import Learner


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

    def tell(self, learner: Learner, reporter: Reporter) -> None:
        """Tell the user."""
        score = f"{learner.metric} {self.metrics[learner.metric]:.4f} on dev" if self.metrics else "nothing to keep"
        if self.stopped:
            reporter.warn(f"training at {self.lr:g} stopped: {self.stopped}; best model before: {score}")
        else:
            reporter.info(f"fine-tuned at {self.lr:g}: {score}, after epoch {self.best_epoch:g} of {self.epochs:g}")


def best_of(outcomes: Mapping[Path, Outcome], learner: Learner) -> Path:
    """Return the folder of the best outcome on dev, the first of equals.

    Raises:
        KdError: Every training broke down.
    """
    scores = {folder: outcome.metrics[learner.metric] for folder, outcome in outcomes.items() if outcome.metrics}
    if not scores:
        hint = f"try a lower {learner.key}.lr, more {learner.key}.warmup, or fp32"
        stopped = next(iter(outcomes.values())).stopped
        raise KdError(f"the training broke down: {stopped}", hint=hint, key=f"{learner.key}.lr")
    better = max if learner.greater_is_better else min
    return better(scores, key=lambda folder: scores[folder])
