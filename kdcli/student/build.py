"""A student plugin's PyTorch module: built, checked, tried out, and scored."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdcli import registry
from kdcli.api import Batch, Task
from kdcli.errors import ProfileError
from kdcli.student.dataset import Examples
from kdcli.student.vocabulary import ROWS, Columns, Compute, compute_batches
from kdcli.tasks.answers import best_thresholds
from kdcli.tasks.metrics import score

FIRST_ROWS = 3  # rows of the first batch: few, so that memory suffices, and another number than most tasks have outputs


def build_student(
    plugin: str,
    options: Mapping[str, Any],
    task: Task,
    vocabulary_size: int,
    vectors: NDArray[np.float32] | None,
    dimension: int,
) -> nn.Module:
    """Build the model of a student plugin.

    A plugin that builds none is a ``PluginError``; wrong options, or a task that it cannot do, are a ``ProfileError``.
    """
    student = registry.load("students", plugin)
    no_pairs, no_scores = task.kind == "pair" and not student.pairs, task.is_score and not student.scores
    if no_pairs or no_scores:
        what = f"the student {plugin} cannot do {'pairs of texts' if no_pairs else 'scores'}"
        raise ProfileError(what, key="student.model", hint="choose another student")
    valid = registry.options("students", plugin, options)
    with registry.blaming("students", plugin, "build"):
        module: Any = student.build(valid, task, vocabulary_size, vectors, dimension)
    if not isinstance(module, nn.Module):
        raise registry.breach("students", plugin, f"builds no torch.nn.Module, but {type(module).__name__}")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise registry.breach("students", plugin, "builds a module without parameters to train")
    return module


def load_module(config: Mapping[str, Any], task: Task, weights: Mapping[str, NDArray[Any]], device: str) -> nn.Module:
    """Build a trained student's model, in evaluation mode; weights of another model are a ``ValueError``."""
    sizes = config["vocabulary_size"], None, config["dimension"]
    module = build_student(config["plugin"], config["options"], task, *sizes)
    try:
        module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return module.to(torch.device(device)).eval()


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Count all parameters, and those outside of embeddings."""
    every = sum(parameter.numel() for parameter in module.parameters())
    inside = {module.get_parameter(name) for name in _tables(module)}
    return every, every - sum(parameter.numel() for parameter in inside)


def round_tables(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round the embeddings among a module's weights to float16, half the bytes on disk; one beyond its range stays."""
    rounded = {name: weights[name].half().float() for name in _tables(module) & weights.keys()}
    return {**weights, **{name: table for name, table in rounded.items() if table.isfinite().all()}}


def _tables(module: nn.Module) -> set[str]:
    tables = [name for name, part in module.named_modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)]
    return {f"{name}.weight".removeprefix(".") for name in tables}


def collate(examples: Examples, rows: NDArray[np.int64], device: torch.device) -> Batch:
    """Gather rows into a padded batch on the device; the lengths stay on the CPU."""
    words, lengths = zip(*(texts.padded(rows) for texts in examples.texts), strict=True)
    return _batch(words, lengths, device)


def try_out(plugin: str, module: nn.Module, examples: Examples, task: Task) -> None:
    """Give a module its first batch, so that a wrong result shows before the training; it stays as it is.

    A failure, or a result that is no finite ``float32 [batch, task.outputs]``, is a ``PluginError``.
    """
    device, training = next(module.parameters()).device, module.training
    batch = collate(examples, np.arange(min(FIRST_ROWS, len(examples))), device)
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


def module_function(module: nn.Module, plugin: str) -> Compute:
    """Return a module as a function of arrays, in evaluation mode; its errors blame the plugin."""
    device = next(module.parameters()).device

    def compute(words: Columns, lengths: Columns) -> NDArray[np.float32]:
        batch = _batch(words, lengths, device)
        training = module.training
        module.eval()
        # Memory may be too small for the batch: that is not the plugin's fault.
        blaming = registry.blaming("students", plugin, "forward", but=(torch.cuda.OutOfMemoryError,))
        with torch.inference_mode(), blaming:
            logits: NDArray[np.float32] = module(batch).float().cpu().numpy()
        module.train(training)
        return logits

    return compute


def evaluate(module: nn.Module, plugin: str, examples: Examples, task: Task) -> dict[str, float]:
    """Score a student on labelled examples by all metrics that fit the task; none if a logit is not finite."""
    assert examples.labels is not None
    logits = _logits(module, plugin, examples, task)
    return score(task, logits, examples.labels) if np.isfinite(logits).all() else {}


def choose_thresholds(module: nn.Module, plugin: str, examples: Examples, task: Task) -> tuple[Task, dict[str, float]]:
    """Return a multi-label task with the thresholds that suit a student on gold labels, and its scores with them."""
    assert examples.labels is not None
    logits = _logits(module, plugin, examples, task)
    task = replace(task, thresholds=best_thresholds(logits, examples.labels))
    return task, score(task, logits, examples.labels)


def _logits(module: nn.Module, plugin: str, examples: Examples, task: Task) -> NDArray[np.float32]:
    return compute_batches(module_function(module, plugin), examples.texts, task.outputs, ROWS)


def _batch(words: Columns, lengths: Columns, device: torch.device) -> Batch:
    ids = tuple(torch.from_numpy(column.astype(np.int64)).to(device) for column in words)
    return Batch(ids, tuple(map(torch.from_numpy, lengths)))
