"""A fine-tuned teacher: texts in, logits in the task's order of labels out."""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

from kdcli.api import MASK, QuietReporter, Reporter, Task
from kdcli.errors import DataError, first_line
from kdcli.models.hf import WEIGHTS, find_model, fit_max_length, load_config, load_model, load_tokenizer, readable
from kdcli.teacher.logits import label_positions

_TRIED = 4096
"""The longest input that is tried out, in word pieces."""
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
    read: Counter[str] = field(default_factory=Counter)  # how many ``texts`` it has read, and how many of them ``cut``

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
    def try_out(self) -> None:
        """Send one text of the longest input through the model, so that what does not fit shows before long work."""
        if self.max_length <= _TRIED:
            self._forward(self._pieces([["a " * self.max_length]] * len(self.task.columns)), np.array([0]))
            self.read.clear()

    def warn_of_cuts(self, reporter: Reporter) -> None:
        """Warn if texts were cut."""
        warn_of_cuts(self.read["cut"], self.read["texts"], self.max_length, reporter)

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
        order = np.argsort([-len(ids) for ids in pieces["input_ids"]], kind="stable")  # too little memory shows at once
        found = []
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            found.append(self._forward(pieces, rows))
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
        self.read.update(texts=len(encoded["input_ids"]), cut=count_cut(encoded, self.max_length))
        return {name: encoded[name] for name in self.inputs if name in encoded}

    def _forward(self, pieces: Mapping[str, Sequence[Sequence[int]]], rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the model's outputs for some of the texts, ``[rows, outputs]``."""
        pad = DataCollatorWithPadding(self.tokenizer)
        inputs = pad([{name: values[row] for name, values in pieces.items()} for row in rows])
        try:
            logits: torch.Tensor = self.model(**inputs.to(self.device)).logits
            return logits
        except (IndexError, RuntimeError, ValueError) as error:
            # Configuration, weights and tokenizer may not belong together; a batch that is too large is another matter.
            if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
                raise
            what = f"the teacher cannot read texts of {self.max_length} word pieces: {first_line(error)}"
            hint = "set teacher.max_length to what it can read; or its tokenizer is another model's"
            raise DataError(what, file=self.folder, key="teacher.max_length", hint=hint) from error


def count_cut(encoded: Any, max_length: int) -> int:
    """Return how many of some encoded texts were cut; of a slow tokenizer's, those that may have been."""
    if encoded.encodings:
        return sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    return sum(len(ids) >= max_length for ids in encoded["input_ids"])


def warn_of_cuts(cut: int, texts: int, max_length: int, reporter: Reporter) -> None:
    """Warn if texts were cut."""
    if cut:
        what = f"{cut:,} of {texts:,} texts are longer than the {max_length} word pieces that the teacher reads"
        reporter.warn(f"{what} (teacher.max_length; 0 = its own limit): they were cut")


def input_names(config: Any, tokenizer: Any, accepted: Collection[str]) -> list[str]:
    """Return the tokenizer's outputs that a model takes; one kind of text needs no token types."""
    left_out = {"token_type_ids"} if getattr(config, "type_vocab_size", 2) < 2 else set()
    return [name for name in tokenizer.model_input_names if name in accepted and name not in left_out]


def load_teacher(
    name: str | Path, task: Task, *, max_length: int, device: str, precision: str, reporter: Reporter | None = None
) -> Teacher:
    """Load a fine-tuned model, from a folder or by its hub name, and match its labels to the task's.

    ``max_length`` is in word pieces, at most what the model takes, or 0 for that; ``precision`` is that of weights and
    arithmetic.
    """
    reporter = reporter or QuietReporter()
    folder = find_model(name, reporter)
    load_config(folder)  # or the tokenizer would be blamed for what is wrong in it
    tokenizer = load_tokenizer(folder, needs=("pad",))
    hint = "fine-tune it first: kd teacher train, or teacher.train = true"
    model = load_model(folder, AutoModelForSequenceClassification, precision=precision, hint=hint)
    if tokenizer.mask_token is None:
        reporter.warn(f"the teacher's tokenizer has no mask token: {MASK} is read as {tokenizer.unk_token or 'a word'}")
    with readable("teacher's configuration or tokenizer", folder):
        outputs = _output_positions(model.config, task, folder, reporter)
        longest = fit_max_length(max_length, model.config, tokenizer, key="teacher.max_length", reporter=reporter)
        inputs = input_names(model.config, tokenizer, inspect.signature(model.forward).parameters)
        if model.config.pad_token_id is None:  # a decoder's head reads the last token that is no padding
            model.config.pad_token_id = tokenizer.pad_token_id
            tokenizer.padding_side = "right"
        teacher = Teacher(str(name), task, folder, model.to(device), tokenizer, longest, inputs, outputs)
        teacher._forward(teacher._pieces([["a"]] * len(task.columns)), np.array([0]))
        teacher.read.clear()
    return teacher


def _label_names(config: Any, folder: Path) -> list[str]:
    """Return the name of each output, from ``id2label`` or ``label2id``; two that contradict are a ``DataError``."""
    numbers = range(config.num_labels)
    by_id = [str(config.id2label[number]) for number in numbers]
    # transformers forgets label2id where there is no id2label.
    own = json.loads((folder / "config.json").read_text("utf-8")).get("label2id") or config.label2id or {}
    found = {number: str(name) for name, number in own.items()}
    by_label = [found.get(number, f"LABEL_{number}") for number in numbers]
    generic = [all(map(_is_generic, numbers, names)) for names in (by_id, by_label)]
    if not any(generic) and by_id != by_label:
        what = f"id2label says {', '.join(by_id)}, and label2id says {', '.join(by_label)}"
        raise DataError(what, file=folder / "config.json", key="label2id", hint="correct the one that is wrong")
    return by_label if generic[0] and not generic[1] else by_id


def _is_generic(number: int, name: str) -> bool:
    return re.fullmatch(rf"(LABEL_)?{number}", name) is not None


def _output_positions(config: Any, task: Task, folder: Path, reporter: Reporter) -> list[int]:
    """Return for each label of the task the position of its output, by the label names of the model."""
    if config.problem_type == "multi_label_classification":
        what = "the teacher is multi-label: each of its outputs is a yes or no of its own"
        hint = "kd distils one label a text, or a score; use a teacher that was fine-tuned for that"
        raise DataError(what, file=folder / "config.json", key="problem_type", hint=hint)
    if config.num_labels != task.outputs:
        what = f"the teacher has {config.num_labels} outputs, and the task needs {task.outputs}"
        kind = "a score" if task.is_score else f"labels {', '.join(task.labels)}"
        raise DataError(what, file=folder, hint=f"this task has {kind}; use a teacher fine-tuned for it")
    if task.is_score:
        return [0]
    names = _label_names(config, folder)
    own = [f"{label} = {name}" for label, name in zip(task.labels, task.names or task.labels, strict=True)]
    own = own if task.names else list(task.labels)
    positions = label_positions(names, task)
    if positions is None and all(map(_is_generic, range(len(names)), names)):
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
