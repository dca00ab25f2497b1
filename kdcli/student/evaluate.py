"""The student's logits and scores on examples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdcli.api import Task
from kdcli.student.batches import collate
from kdcli.student.examples import Examples
from kdcli.tasks.metrics import score

BATCH = 256


def predict_logits(module: nn.Module, examples: Examples, outputs: int, batch: int = BATCH) -> NDArray[np.float32]:
    """Return the logits of all examples, ``float32 [rows, outputs]``; texts of similar lengths go together.

    The module is left as it was, in training mode or not.
    """
    device = next(module.parameters()).device
    logits = np.empty((len(examples), outputs), np.float32)
    order = np.argsort(examples.lengths, kind="stable")
    training = module.training
    module.eval()
    with torch.inference_mode():
        for begin in range(0, len(order), batch):
            rows = order[begin : begin + batch]
            logits[rows] = module(collate(examples, rows, device)).float().cpu().numpy()
    module.train(training)
    return logits


def evaluate(module: nn.Module, examples: Examples, task: Task, batch: int = BATCH) -> dict[str, float]:
    """Score the student on labelled examples by all metrics that fit the task."""
    assert examples.labels is not None
    return score(task, predict_logits(module, examples, task.outputs, batch), examples.labels)
