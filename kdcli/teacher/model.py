"""A fine-tuned teacher: texts in, logits in the task's order of labels out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

from kdcli.api import MASK, QuietReporter, Reporter, Task
from kdcli.errors import DataError
from kdcli.models.hf import WEIGHTS, find_model, fit_max_length, load_model, load_tokenizer
from kdcli.teacher.logits import label_positions

BATCH = 64
"""Texts a batch by default; on a CPU larger batches are padded more and gain nothing."""


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned model with its tokenizer."""

    id: str  # the folder or hub name that it was loaded by
    task: Task
    folder: Path  # of its files
    model: Any  # the Hugging Face model, on its device
    tokenizer: Any
    max_length: int  # the longest input in word pieces, special tokens included
    inputs: list[str]  # the tokenizer's outputs that the model takes
    outputs: list[int]  # for each label of the task, the position of its output

    @property
    def device(self) -> torch.device:
        """The device it runs on."""
        return torch.device(self.model.device)

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def parameters_without_embeddings(self) -> int:
        """The number of parameters outside of embedding tables."""
        tables = [module for module in self.model.modules() if isinstance(module, torch.nn.Embedding)]
        return self.parameters - sum(table.weight.numel() for table in tables)

    @property
    def megabytes(self) -> float:
        """The size of its weights on disk, in 10^6 bytes."""
        files = next(files for pattern in WEIGHTS if (files := list(self.folder.glob(pattern))))
        return sum(file.stat().st_size for file in files) / 1e6

    @torch.inference_mode()
    def logits(self, columns: Sequence[Sequence[str]], batch: int = BATCH) -> NDArray[np.float32]:
        """Return the logits ``float32 [texts, task.outputs]`` of texts, or of pairs in two columns.

        The texts go through the model in batches of about one length, each padded to its longest text; the batch of a
        text changes its logits by rounding only. ``[MASK]`` becomes the tokenizer's own mask token.

        Raises:
            DataError: The model gives logits that are not finite.
        """
        logits = np.empty((len(columns[0]), self.task.outputs), np.float32)
        if not len(logits):
            return logits
        pieces = self._pieces(columns)
        pad = DataCollatorWithPadding(self.tokenizer)
        order = np.argsort([-len(ids) for ids in pieces["input_ids"]], kind="stable")  # too little memory shows at once
        found = []
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            inputs = pad([{name: values[row] for name, values in pieces.items()} for row in rows])
            found.append(self.model(**inputs.to(self.device)).logits)  # [batch, outputs]
        logits[order] = torch.cat(found).float().cpu().numpy()[:, self.outputs]
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            text = columns[0][int(np.argmin(finite))]
            hint = "use --precision fp32 or bf16; fp16 overflows in some models"
            raise DataError(f"the teacher's logits of {text[:80]!r} are not finite", file=self.folder, hint=hint)
        return logits

    def _pieces(self, columns: Sequence[Sequence[str]]) -> dict[str, list[list[int]]]:
        mask = self.tokenizer.mask_token or self.tokenizer.unk_token or MASK
        encoded = self.tokenizer(
            *([text.replace(MASK, mask) for text in column] for column in columns),
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids="token_type_ids" in self.inputs,
        )
        return {name: encoded[name] for name in self.inputs if name in encoded}


def load_teacher(
    name: str | Path, task: Task, *, max_length: int, device: str, precision: str, reporter: Reporter | None = None
) -> Teacher:
    """Load a fine-tuned model, from a folder or by its hub name, and match its labels to the task's.

    ``max_length`` is in word pieces, at most what the model takes; ``precision`` is that of weights and arithmetic.
    """
    reporter = reporter or QuietReporter()
    folder = find_model(name, reporter)
    tokenizer = load_tokenizer(folder, needs=("pad",))
    hint = "fine-tune it first: kd teacher train, or teacher.train = true"
    model = load_model(folder, AutoModelForSequenceClassification, precision=precision, hint=hint)
    outputs = _output_positions(model.config, task, folder, reporter)
    if tokenizer.mask_token is None:
        reporter.warn(f"the teacher's tokenizer has no mask token: {MASK} is read as {tokenizer.unk_token or 'a word'}")
    longest = fit_max_length(max_length, model.config, tokenizer, key="teacher.max_length", reporter=reporter)
    accepted = inspect.signature(model.forward).parameters
    inputs = [name for name in tokenizer.model_input_names if name in accepted]
    return Teacher(str(name), task, folder, model.to(device), tokenizer, longest, inputs, outputs)


def _output_positions(config: Any, task: Task, folder: Path, reporter: Reporter) -> list[int]:
    """Return for each label of the task the position of its output, by the label names of the model."""
    if config.num_labels != task.outputs:
        what = f"the teacher has {config.num_labels} outputs, and the task needs {task.outputs}"
        kind = "a score" if task.is_score else f"labels {', '.join(task.labels)}"
        raise DataError(what, file=folder, hint=f"this task has {kind}; use a teacher fine-tuned for it")
    if task.is_score:
        return [0]
    names = [str(config.id2label[number]) for number in range(config.num_labels)]
    own = [f"{label} = {name}" for label, name in zip(task.labels, task.names or task.labels, strict=True)]
    own = own if task.names else list(task.labels)
    positions = label_positions(names, task)
    if positions is None and all(re.fullmatch(rf"(LABEL_)?{number}", name) for number, name in enumerate(names)):
        pairs = ", ".join(f"{name} as {label}" for name, label in zip(names, own, strict=True))
        reporter.warn(f"the teacher does not name its labels; they are read in the order of the task: {pairs}")
        return list(range(task.outputs))
    if positions is None:
        hint = f"its config.json has {', '.join(names)}; set task.labels or task.names to these, or correct id2label"
        raise DataError(f"the teacher's labels are not the task's ({', '.join(own)})", file=folder, hint=hint)
    if positions != sorted(positions):
        order = f"({', '.join(names)}): its outputs are put in the order of the task ({', '.join(own)})"
        reporter.warn(f"the teacher has its labels in another order {order}")
    return positions
