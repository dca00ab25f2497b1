"""The model that becomes the teacher: from pretrained weights, or from a configuration."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    set_seed,
)

from kdcli.api import Reporter, Task
from kdcli.config.schema import TeacherSettings
from kdcli.errors import DataError, ProfileError
from kdcli.lm.wordpiece import SPECIAL, train_wordpiece
from kdcli.models.hf import find_model, quiet


@dataclass(frozen=True)
class Encoder:
    """A model to fine-tune, as far as it is known before its weights are made.

    Attributes:
        config: The Hugging Face configuration, head and label names included.
        tokenizer: Its tokenizer.
        max_length: The longest input in word pieces, not more than the model takes.
        folder: Where its pretrained weights are; None for a model that starts at random.
    """

    config: Any
    tokenizer: Any
    max_length: int
    folder: Path | None

    def build(self, seed: int) -> Any:
        """Return the model in float32, its new weights drawn with ``seed``, all parameters to be trained.

        Raises:
            DataError: The weights cannot be read, or are those of another architecture.
            ProfileError: The configuration makes no model.
        """
        set_seed(seed)
        with quiet():
            model = _from_config(self.config) if self.folder is None else _from_folder(self.folder, self.config)
        return model.requires_grad_(True)

    def inputs(self) -> list[str]:
        """Return which of ``input_ids``, ``token_type_ids`` and ``attention_mask`` the model takes."""
        accepted = _accepted(self.config)
        return [name for name in self.tokenizer.model_input_names if name in accepted]


def prepare_encoder(settings: TeacherSettings, task: Task, texts: Iterable[list[str]], reporter: Reporter) -> Encoder:
    """Find the encoder that ``teacher.model`` names, or lay one out from ``teacher.config``.

    Args:
        settings: The teacher's settings.
        task: Gives the number of outputs and their names.
        texts: The training texts in batches; a model from a configuration takes its word pieces from them.
        reporter: Told what is fetched, and of a ``max_length`` that the model does not take.

    Raises:
        DataError: The folder holds no readable model or tokenizer.
        MissingError: The model is not there.
        ProfileError: The configuration is wrong.
    """
    head = _head(task)
    if settings.model == "config":
        pieces = train_wordpiece(texts, settings.vocab_size)
        config, folder = _configured(settings.config, pieces.get_vocab_size(), head), None
        tokenizer = _tokenizer(pieces, config, settings.max_length)
    else:
        folder = find_model(settings.model, reporter)
        config, tokenizer = _read(folder, head)
    limits = [getattr(config, "max_position_embeddings", 0), tokenizer.model_max_length]
    max_length = min([settings.max_length, *(limit for limit in limits if limit and limit > 0)])
    if max_length < settings.max_length:
        reporter.warn(f"teacher.max_length is {settings.max_length}, and the model takes {max_length} word pieces")
    return Encoder(config, tokenizer, max_length, folder)


def _tokenizer(pieces: Tokenizer, config: Any, max_length: int) -> Any:
    inputs = ["input_ids", "attention_mask"]
    if "token_type_ids" in _accepted(config) and getattr(config, "type_vocab_size", 0) > 1:
        inputs.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, model_max_length=max_length, model_input_names=inputs, **SPECIAL
    )


def _accepted(config: Any) -> Collection[str]:
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


def _configured(table: dict[str, Any], vocab_size: int, head: dict[str, Any]) -> Any:
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
    # The vocabulary is ours, so ids that a model type brings along for its own one would point anywhere.
    ids = {f"{name}_id": number for number, name in enumerate(SPECIAL)} | {"bos_token_id": None, "eos_token_id": None}
    ours = {"vocab_size": vocab_size, **{name: number for name, number in ids.items() if name in known}}
    try:
        return AutoConfig.for_model(kind, **{**values, **ours, **head})
    except Exception as error:  # each configuration checks its values in its own way
        raise ProfileError(f"no {kind} model can be made: {error}", key="teacher.config") from error


def _read(folder: Path, head: dict[str, Any]) -> tuple[Any, Any]:
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, **head)
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever a broken file makes the library raise
        raise DataError(f"the model cannot be read: {error}", file=folder) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        hint = "copy tokenizer.json (or vocab.txt) of the pretrained model into it"
        raise DataError("the model's folder holds no tokenizer", file=folder, hint=hint)
    if tokenizer.pad_token is None:
        raise DataError("the model's tokenizer has no padding token: it is no encoder", file=folder)
    return config, tokenizer


def _from_config(config: Any) -> Any:
    try:
        return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except Exception as error:  # each architecture checks its sizes in its own way
        raise ProfileError(f"no {config.model_type} model can be made: {error}", key="teacher.config") from error


def _from_folder(folder: Path, config: Any) -> Any:
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
        )
    except Exception as error:  # whatever a broken file makes the library raise
        hint = "copy the model again; a download may have been cut short"
        raise DataError(f"the model's weights cannot be read: {error}", file=folder, hint=hint) from error
    misfits = [
        key if isinstance(key, str) else key[0] for name in ("missing", "mismatched") for key in report[f"{name}_keys"]
    ]
    prefix = f"{model.base_model_prefix}."
    # A head and a pooler are new to most pretrained encoders, and are learned; an encoder without its weights is not.
    encoder = sorted(key for key in misfits if key.startswith(prefix) and ".pooler." not in key)
    if encoder:
        what = f"the weights do not fit config.json: {len(encoder)} tensors are missing or of another size"
        raise DataError(f"{what}, {encoder[0]} for one", file=folder)
    return model
