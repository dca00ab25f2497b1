"""The student's folder: its weights, how to build it, its tokenizer, labels and metrics, and a card.

``kdcli.student.loaded`` reads it without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor, nn

from kdcli import registry
from kdcli.api import Task
from kdcli.errors import ProfileError
from kdcli.export.card import card
from kdcli.files import atomic
from kdcli.student.answers import Prediction, Score, columns_of, predictions
from kdcli.student.built import check_module
from kdcli.student.encoding import encode_table
from kdcli.student.evaluate import predict_logits
from kdcli.student.loaded import (
    FORMAT,
    WEIGHTS,
    read_folder,
    unreadable,
)
from kdcli.student.vocabulary import save_tokenizer


@dataclass(frozen=True)
class LoadedStudent:
    """A student, ready to predict.

    Attributes:
        task: Its task.
        module: The model, in evaluation mode.
        tokenizer: Its vocabulary.
        config: ``config.json``: how it was built and trained.
        metrics: ``metrics.json``: the result of its training.
        parameters: All its parameters.
        parameters_without_embeddings: Those that are not word vectors.
    """

    task: Task
    module: nn.Module
    tokenizer: Tokenizer
    config: dict[str, Any]
    metrics: dict[str, Any]
    parameters: int
    parameters_without_embeddings: int

    def logits(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return ``float32 [rows, task.outputs]`` for the text columns."""
        table = pa.table(
            {name: pa.array(texts, pa.string()) for name, texts in zip(self.task.columns, columns, strict=True)}
        )
        examples = encode_table(table, self.tokenizer, self.task, self.config["max_length"])
        with registry.blaming("students", self.config["plugin"], "forward", but=(torch.cuda.OutOfMemoryError,)):
            return predict_logits(self.module, examples, self.task.outputs)

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Prediction] | list[Score]:
        """Return a prediction for each text, or for each pair of texts.

        Raises:
            DataError: They are not texts, or not pairs of texts.
        """
        return predictions(self.logits(columns_of(texts, self.task)), self.task)


def build_student(
    plugin: str,
    options: Mapping[str, Any],
    task: Task,
    vocabulary_size: int,
    vectors: NDArray[np.float32] | None,
    dimension: int,
) -> nn.Module:
    """Build the model of a student plugin.

    Raises:
        PluginError: The plugin is missing or broken, or builds no model.
        ProfileError: Its options are wrong, or it cannot do such a task.
    """
    student = registry.load("students", plugin)
    if (task.kind == "pair" and not student.pairs) or (task.is_score and not student.scores):
        what = "pairs of texts" if task.kind == "pair" and not student.pairs else "scores"
        raise ProfileError(f"the student {plugin} cannot do {what}", key="student.model", hint="choose another student")
    valid = registry.options("students", plugin, options)
    with registry.blaming("students", plugin, "build"):
        module = student.build(valid, task, vocabulary_size, vectors, dimension)
    return check_module(plugin, module)


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Count all parameters, and those outside of embeddings."""
    tables = {
        parameter
        for part in module.modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag)
        for parameter in part.parameters()
    }
    every = sum(parameter.numel() for parameter in module.parameters())
    return every, every - sum(parameter.numel() for parameter in tables)


def save_student(
    folder: Path,
    *,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    task: Task,
    tokenizer: Tokenizer,
    metrics: Mapping[str, Any],
) -> None:
    """Write a student's folder, whole or not at all.

    Args:
        folder: The folder.
        weights: Its parameters and buffers by name.
        config: The keys plugin, options, vocabulary_size, dimension and max_length, and whatever else is to be known.
        task: Its task.
        tokenizer: Its vocabulary.
        metrics: The result of its training.
    """
    config = {"format": FORMAT, **config, "task": asdict(task)}
    with atomic(folder) as temporary:
        temporary.mkdir()
        binary = save({name: value.detach().cpu().clone() for name, value in weights.items()})
        (temporary / WEIGHTS).write_bytes(binary)
        save_tokenizer(tokenizer, temporary)
        for name, content in (
            ("config.json", config),
            ("labels.json", {"labels": task.labels, "names": task.names}),
            ("metrics.json", metrics),
        ):
            (temporary / name).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        (temporary / "README.md").write_text(card(config, metrics, task, len(binary)), "utf-8")


def load_student(folder: str | Path, device: str = "cpu") -> LoadedStudent:
    """Load a student as its PyTorch module.

    Raises:
        DataError: The folder is not a student's, or is not whole.
        PluginError: Its plugin is missing or broken.
    """
    folder = Path(folder)
    contents = read_folder(folder)
    config = contents.config
    module = build_student(
        config["plugin"], config["options"], contents.task, config["vocabulary_size"], None, config["dimension"]
    )
    weights = folder / WEIGHTS
    try:
        module.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise unreadable(weights, error) from error
    return LoadedStudent(
        contents.task,
        module.to(torch.device(device)).eval(),
        contents.tokenizer,
        config,
        contents.metrics,
        *count_parameters(module),
    )
