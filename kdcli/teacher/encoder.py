"""The model that becomes the teacher: from pretrained weights, or from a configuration."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    set_seed,
)

from kdcli.api import Reporter, Task
from kdcli.config.schema import TeacherSettings
from kdcli.errors import ProfileError
from kdcli.lm.texts import TokenRows
from kdcli.lm.wordpiece import SPECIAL, train_wordpiece
from kdcli.models.hf import find_model, fit_max_length, load_config, load_model, load_tokenizer, quiet

CHUNK = 10_000
"""Texts that are tokenized at once."""


@dataclass(frozen=True)
class Encoder:
    """A model to fine-tune, before its weights are loaded.

    Attributes:
        config: The Hugging Face configuration, head and label names included.
        tokenizer: Its tokenizer.
        max_length: The longest input in word pieces, at most what the model takes.
        folder: Where its pretrained weights are; None for a model that starts at random.
    """

    config: Any
    tokenizer: Any
    max_length: int
    folder: Path | None

    def build(self, seed: int) -> Any:
        """Return the model in float32, its new weights drawn with ``seed``, all parameters to be trained.

        Raises:
            DataError: The weights cannot be read, or do not fit the configuration.
            ProfileError: No model can be made of the configuration.
        """
        set_seed(seed)
        if self.folder is not None:
            model = load_model(
                self.folder, AutoModelForSequenceClassification, config=self.config, allow_new="head"
            )
            return model.requires_grad_(True)
        try:
            with quiet():
                return AutoModelForSequenceClassification.from_config(self.config, dtype=torch.float32)
        except Exception as error:  # each architecture checks its sizes in its own way
            raise ProfileError(f"no {self.config.model_type} model can be made: {error}", key="teacher.config") from error

    def encode(self, columns: list[pl.Series], labels: NDArray[Any], reporter: Reporter) -> TokenRows:
        """Turn texts into word pieces, at most ``max_length`` a row; of a pair the longer text is cut first.

        Args:
            columns: One text column, or two.
            labels: The classes or scores of the rows.
            reporter: Shows the progress.
        """
        accepted = _accepted(self.config)
        names = [name for name in self.tokenizer.model_input_names if name in accepted and name != "attention_mask"]
        pieces: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in names}
        lengths: list[int] = []
        with reporter.progress("word pieces", len(labels)) as progress:
            for start in range(0, len(labels), CHUNK):
                encoded = self.tokenizer(
                    *(column.slice(start, CHUNK).to_list() for column in columns),
                    truncation=True,
                    max_length=self.max_length,
                    return_attention_mask=False,
                    return_token_type_ids="token_type_ids" in names,
                )
                lengths += map(len, encoded["input_ids"])
                for name in names:
                    pieces[name] += [np.asarray(row, np.int32) for row in encoded[name]]
                progress.advance(len(encoded["input_ids"]))
        padding = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        fields = {name: np.concatenate(rows) for name, rows in pieces.items()}
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        left = self.tokenizer.padding_side == "left"
        return TokenRows(fields, {name: padding.get(name, 0) for name in names}, offsets, labels, left)


def prepare_encoder(settings: TeacherSettings, task: Task, texts: Iterable[list[str]], reporter: Reporter) -> Encoder:
    """Find the encoder that ``teacher.model`` names, or make one from ``teacher.config``.

    Args:
        settings: The teacher's settings.
        task: Gives the number of outputs and their names.
        texts: The training texts in batches; a model from a configuration gets its word pieces from them.
        reporter: Reports downloads, and a ``max_length`` that the model does not take.

    Raises:
        DataError: The folder holds no readable model or tokenizer.
        MissingError: The model does not exist.
        ProfileError: The configuration is wrong.
    """
    folder = None
    if settings.model == "config":
        pieces = train_wordpiece(texts, settings.vocab_size)
        config = _config(settings.config, pieces.get_vocab_size(), _head(task))
        inputs = ["input_ids", "attention_mask"]
        if "token_type_ids" in _accepted(config) and getattr(config, "type_vocab_size", 0) > 1:
            inputs.insert(1, "token_type_ids")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=pieces, model_max_length=settings.max_length, model_input_names=inputs, **SPECIAL
        )
    else:
        folder = find_model(settings.model, reporter)
        config, tokenizer = load_config(folder, **_head(task)), load_tokenizer(folder, needs=("pad",))
    longest = fit_max_length(settings.max_length, config, tokenizer, key="teacher.max_length", reporter=reporter)
    return Encoder(config, tokenizer, longest, folder)


def _accepted(config: Any) -> Iterable[str]:
    """Return the arguments that the model takes."""
    model = AutoModelForSequenceClassification._model_mapping[type(config)]
    return inspect.signature(model.forward).parameters.keys()


def _head(task: Task) -> dict[str, Any]:
    names = ("score",) if task.is_score else task.names or task.labels
    return {
        "num_labels": task.outputs,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": "regression" if task.is_score else "single_label_classification",
    }


def _config(table: dict[str, Any], vocab_size: int, head: dict[str, Any]) -> Any:
    """Make a configuration from the table ``teacher.config``."""
    values = dict(table)
    kind = values.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        what = f"there is no model type {kind!r}" if kind else 'model = "config" needs a model_type'
        near = difflib.get_close_matches(str(kind), CONFIG_MAPPING.keys(), n=1) or ["bert"]
        raise ProfileError(what, key="teacher.config.model_type", hint=f'for example model_type = "{near[0]}"')
    known = CONFIG_MAPPING[kind]().to_dict()
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else None
            raise ProfileError(f"a {kind} configuration has no {name!r}", key=f"teacher.config.{name}", hint=hint)
    # The vocabulary is ours, so the ids that a model type has for its own would point anywhere.
    ids = {f"{name}_id": number for number, name in enumerate(SPECIAL)} | {"bos_token_id": None, "eos_token_id": None}
    ours = {"vocab_size": vocab_size, **{name: number for name, number in ids.items() if name in known}}
    try:
        return AutoConfig.for_model(kind, **{**values, **ours, **head})
    except Exception as error:  # each configuration checks its values in its own way
        raise ProfileError(f"no {kind} model can be made: {error}", key="teacher.config") from error
