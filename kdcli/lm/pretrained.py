"""Language models, causal and masked: their configurations, tokenizers and weights from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
)

from kdcli.api import DataError
from kdcli.models.hf import load_config, load_model, load_tokenizer

Kind = Literal["causal", "masked"]
"""What a language model predicts: the next token of a text, or masked tokens."""

_MODELS = {
    "causal": (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, "name a decoder, such as gpt2"),
    "masked": (MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM, "name an encoder, such as bert-base-uncased"),
}


def load_lm_config(folder: Path, kind: Kind = "causal") -> Any:
    """Load the configuration of a language model.

    Raises:
        DataError: It is missing, cannot be read, or belongs to another kind of model.
    """
    config = load_config(folder)
    # transformers accepts an encoder as a decoder, though each of its tokens sees those behind it.
    decoder = getattr(config, "is_decoder", False)
    encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not decoder
    known, _, hint = _MODELS[kind]
    other = encoder if kind == "causal" else decoder
    if type(config) not in known or other or getattr(config, "is_encoder_decoder", False):
        raise DataError(f"a {config.model_type} model is not a {kind} language model", file=folder, hint=hint)
    return config


def load_lm_tokenizer(folder: Path, kind: Kind = "causal") -> Any:
    """Load the tokenizer of a language model.

    Raises:
        DataError: It cannot be read; it has no end-of-text token; or, for a masked language model, no mask token, or
            it does not say which characters a token stands for.
    """
    if kind == "causal":
        return load_tokenizer(folder, needs=["eos"])
    tokenizer = load_tokenizer(folder, needs=["mask"])
    if not tokenizer.is_fast:
        hint = "name a model with a tokenizer.json"
        raise DataError("the tokenizer does not say which characters a token stands for", file=folder, hint=hint)
    return tokenizer


def load_lm(folder: Path, config: Any, precision: str = "fp32", kind: Kind = "causal") -> Any:
    """Load a language model.

    Raises:
        DataError: The weights cannot be read, or do not fit the configuration.
    """
    return load_model(folder, _MODELS[kind][1], config=config, precision=precision)
