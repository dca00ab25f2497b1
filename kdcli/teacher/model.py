"""A fine-tuned teacher: texts in, logits in the task's order of labels out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

from kdcli.api import MASK, QuietReporter, Reporter, Task
from kdcli.errors import DataError, first_line
from kdcli.models.hf import DTYPES, WEIGHTS, find_model, quiet
from kdcli.teacher.labels import output_positions

BATCH = 64
"""Texts a batch where nothing else is asked for; on a CPU larger ones are padded more and gain nothing."""


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned model with its tokenizer.

    Attributes:
        id: The folder or hub name that it was asked for by.
        task: The task that it was fine-tuned for.
        folder: Where its files are.
        model: The Hugging Face model, in the precision asked for, on its device.
        tokenizer: The Hugging Face tokenizer.
        max_length: The longest input in word pieces, special tokens included.
        inputs: What the model takes of what the tokenizer gives.
        outputs: For each label of the task, the model's output that stands for it.
    """

    id: str
    task: Task
    folder: Path
    model: Any
    tokenizer: Any
    max_length: int
    inputs: list[str]
    outputs: list[int]

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
        """The number of parameters that are in no embedding table."""
        tables = [module for module in self.model.modules() if isinstance(module, torch.nn.Embedding)]
        return self.parameters - sum(table.weight.numel() for table in tables)

    @property
    def megabytes(self) -> float:
        """The size of its weights on disk, in 10^6 bytes."""
        return next(
            sum(file.stat().st_size for file in files) / 1e6
            for files in (list(self.folder.glob(pattern)) for pattern in WEIGHTS)
            if files
        )

    @torch.inference_mode()
    def logits(self, columns: Sequence[Sequence[str]], batch: int = BATCH) -> NDArray[np.float32]:
        """Return the logits of texts, or of pairs of texts.

        The texts go through the model in batches of about one length, each padded to its own longest text; a text's
        logits do not depend on its batch but for the rounding of the precision.

        Args:
            columns: One sequence of texts, or two for pairs. ``[MASK]`` is the tokenizer's own mask token.
            batch: Texts a batch.

        Returns:
            ``float32 [texts, task.outputs]``, in the order of the texts and of the task's labels.

        Raises:
            DataError: The model gives logits that are not finite.
        """
        if not len(columns[0]):
            return np.zeros((0, self.task.outputs), np.float32)
        pieces = self._pieces(columns)
        pad = DataCollatorWithPadding(self.tokenizer)
        order = np.argsort([-len(ids) for ids in pieces["input_ids"]], kind="stable")  # too little memory shows at once
        made = []
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            inputs = pad([{name: values[row] for name, values in pieces.items()} for row in rows])
            made.append(self.model(**inputs.to(self.device)).logits)  # [batch, outputs]
        logits = np.empty((len(order), self.task.outputs), np.float32)
        logits[order] = torch.cat(made).float().cpu().numpy()[:, self.outputs]
        if not np.isfinite(logits).all():
            row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            what = f"the teacher's logits of {columns[0][row][:80]!r} are not finite"
            raise DataError(what, file=self.folder, hint="use --precision fp32 or bf16; fp16 overflows in some models")
        return logits

    def _pieces(self, columns: Sequence[Sequence[str]]) -> dict[str, list[list[int]]]:
        mask = self.tokenizer.mask_token or self.tokenizer.unk_token or MASK
        if mask != MASK:
            columns = [[text.replace(MASK, mask) for text in column] for column in columns]
        made = self.tokenizer(
            *(list(column) for column in columns),
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids="token_type_ids" in self.inputs,
        )
        return {name: made[name] for name in self.inputs if name in made}


def load_teacher(
    name: str | Path, task: Task, *, max_length: int, device: str, precision: str, reporter: Reporter | None = None
) -> Teacher:
    """Load a fine-tuned model for a task.

    Args:
        name: A folder or a hub name.
        task: The task; the model's labels are matched to it by name.
        max_length: The longest input in word pieces; not more than the model takes is used.
        device: Where it runs.
        precision: ``fp32``, ``bf16`` or ``fp16``: weights and arithmetic, whatever they are stored in.
        reporter: Told when files are fetched and when labels are in another order or have no names.

    Raises:
        DataError: The files cannot be read, the model is not fine-tuned, or it is for other labels.
        MissingError: There is no such model.
    """
    reporter = reporter or QuietReporter()
    folder = find_model(name, reporter)
    tokenizer, model = _read(folder, DTYPES[precision])
    outputs = output_positions(model.config, task, file=folder, reporter=reporter)
    if tokenizer.mask_token is None:
        reporter.warn(f"the teacher's tokenizer has no mask token: {MASK} is read as {tokenizer.unk_token or 'a word'}")
    limits = [getattr(model.config, "max_position_embeddings", 0), tokenizer.model_max_length]
    longest = min([max_length, *(limit for limit in limits if limit and limit > 0)])
    if longest < max_length:
        reporter.warn(
            f"max_length is {max_length}, and the teacher takes {longest} word pieces: longer texts are cut there"
        )
    accepted = inspect.signature(model.forward).parameters
    inputs = [name for name in tokenizer.model_input_names if name in accepted]
    return Teacher(str(name), task, folder, model.to(device).eval(), tokenizer, longest, inputs, outputs)


def _read(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=dtype, output_loading_info=True
            )
    except Exception as error:  # whatever a broken or hostile file makes the library raise
        raise DataError(f"the teacher cannot be read: {first_line(error)}", file=folder) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        what = f"this model is not fine-tuned: it has no weights for {len(missing)} tensors, {missing[0]} for one"
        raise DataError(what, file=folder, hint="fine-tune it first: kd teacher train, or teacher.train = true")
    if len(tokenizer) <= len(tokenizer.all_special_tokens) or tokenizer.pad_token is None:
        hint = "copy tokenizer.json (or vocab.txt) of the model it was fine-tuned from into it"
        raise DataError("the teacher's folder holds no tokenizer with a padding token", file=folder, hint=hint)
    return tokenizer, model
