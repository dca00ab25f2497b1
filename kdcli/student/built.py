"""What a student plugin has built, looked at before anything is trained or loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from kdcli import registry
from kdcli.api import Task
from kdcli.student.batches import collate
from kdcli.student.examples import Examples

ROWS = 3
"""Rows of the first batch: few, so that memory is no matter, and another number than most tasks have outputs."""


def check_module(plugin: str, module: Any) -> nn.Module:
    """Return what ``build`` has returned, if it is a model.

    Raises:
        PluginError: It is none, or has nothing to train.
    """
    if not isinstance(module, nn.Module):
        raise registry.breach("students", plugin, f"builds no torch.nn.Module, but {type(module).__name__}")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise registry.breach("students", plugin, "builds a module without parameters to train")
    return module


def try_out(plugin: str, module: nn.Module, examples: Examples, task: Task) -> None:
    """Give a module its first batch, so that a wrong answer comes to light before the training.

    Neither the module nor the random numbers that come after are other than without it.

    Args:
        plugin: The plugin's name, for errors.
        module: The model, on its device.
        examples: The rows that it will learn from.
        task: The task.

    Raises:
        PluginError: It fails, or gives no finite ``float32 [batch, task.outputs]``.
    """
    device, training = next(module.parameters()).device, module.training
    batch = collate(examples, np.arange(min(ROWS, len(examples))), device)
    expected = (len(batch.lengths[0]), task.outputs)
    module.eval()
    with registry.blaming("students", plugin, "forward"), torch.random.fork_rng(), torch.no_grad():
        logits = module(batch)
    module.train(training)
    found = ""
    if not isinstance(logits, torch.Tensor):
        found = f"a {type(logits).__name__}"
    elif logits.shape != expected or logits.dtype != torch.float32:
        found = f"{str(logits.dtype).removeprefix('torch.')} {list(logits.shape)}"
    elif not logits.isfinite().all():
        found = "numbers that are not finite, before any training"
    if found:
        what = f"gives {found} for logits float32 {list(expected)}, a row for each text and a column for each output"
        raise registry.breach("students", plugin, what)
