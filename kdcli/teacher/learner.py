"""The teacher as something to fine-tune: an encoder with a head, its loss and its dev score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from kdcli.api import Task
from kdcli.lm.rows import Rows
from kdcli.lm.trainer import Diverged
from kdcli.tasks import metrics
from kdcli.teacher.build import Encoder


@dataclass(frozen=True)
class Classifier:
    """An encoder, its rows and its task: a ``kdcli.lm.learner.Learner``."""

    encoder: Encoder
    task: Task
    train: Rows
    dev: Rows
    stage = key = "teacher"
    greater_is_better = True

    @property
    def tokenizer(self) -> Any:
        """The encoder's tokenizer."""
        return self.encoder.tokenizer

    @property
    def metric(self) -> str:
        """The task's metric."""
        return self.task.metric

    def build(self, seed: int) -> Any:
        """Return the model to start from."""
        return self.encoder.build(seed)

    def loss(self, outputs: Any, labels: Tensor, items: Tensor | int) -> Tensor:
        """Return the cross entropy of classes, or the squared error of scores, over the rows of the update."""
        logits = outputs["logits"].float()
        if self.task.is_score:
            return functional.mse_loss(logits.squeeze(-1), labels, reduction="sum") / items
        return functional.cross_entropy(logits, labels, reduction="sum") / items

    def reduce(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the logits: a row has no more of them than the task has classes."""
        return logits

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return the task's metrics."""
        logits = predictions.astype(np.float32).reshape(len(predictions), -1)
        if not np.isfinite(logits).all():
            raise Diverged("the logits are no numbers any more")
        return metrics.score(self.task, logits, labels)
