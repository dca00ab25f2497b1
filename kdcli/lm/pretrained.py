"""Pretrained language models, causal and masked, and their tokenizers, from folders or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    GPT2Tokenizer,
)

from kdcli.api import DataError, MissingError, Reporter
from kdcli.errors import first_line
from kdcli.files import sha256
from kdcli.models.hf import CARD, DTYPES, find_model, quiet

__all__ = ["DTYPES", "Kind", "find_model", "fitting_length", "read_config", "read_tokenizer", "read_weights", "sha256"]

Kind = Literal["causal", "masked"]
"""What a language model predicts: the next token of a text, or those that are masked."""

_MODELS = {
    "causal": (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, "name a decoder, such as gpt2"),
    "masked": (MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM, "name an encoder, such as bert-base-uncased"),
}
_NAMED = 8
"""Tensors that an error names."""


def read_config(folder: Path, kind: Kind = "causal") -> Any:
    """Read the configuration of a language model.

    Raises:
        DataError: It is not there, cannot be read, or is that of another kind of model.
    """
    if not (folder / "config.json").is_file():
        raise DataError("there is no language model in this folder: config.json is missing", file=folder)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # whatever a broken file makes the library raise
        raise DataError(f"the model cannot be read: {first_line(error)}", file=folder) from error
    # An encoder passes for a decoder in transformers, though each of its tokens sees those behind it.
    encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    known, _, hint = _MODELS[kind]
    other = encoder if kind == "causal" else getattr(config, "is_decoder", False)
    if type(config) not in known or other or getattr(config, "is_encoder_decoder", False):
        raise DataError(f"a {config.model_type} model is no {kind} language model", file=folder, hint=hint)
    return config


def fitting_length(wanted: int, config: Any, key: str, reporter: Reporter, tokenizer: Any = None) -> int:
    """Return ``wanted``, or how many tokens the model takes where these are fewer, and say so.

    Args:
        wanted: The longest text in tokens.
        config: The model's configuration.
        key: The generator's table of the profile.
        reporter: Told if the model takes fewer.
        tokenizer: Its tokenizer, where this knows better: some encoders have places that no text comes to.
    """
    most = getattr(config.get_text_config(), "max_position_embeddings", None) or wanted
    most = min(most, getattr(tokenizer, "model_max_length", most))
    if wanted > most:
        reporter.warn(f"{key}.max_length is {wanted}, and the model takes {most} tokens: it is {most} from here on")
    return int(min(wanted, most))


def read_tokenizer(name: str | Path, *, key: str | None = None, kind: Kind = "causal") -> Any:
    """Read a tokenizer: a folder (``vocab.json`` and ``merges.txt`` alone will do), or a hub name.

    Args:
        name: The folder or name.
        key: The setting that holds it, for errors.
        kind: What the language model predicts.

    Raises:
        DataError: It cannot be read, or has no end-of-text token. For a masked language model: it has no mask token,
            or does not tell where in a text its tokens stand.
        MissingError: There is none of that name.
    """
    folder = _find_tokenizer(name, key)
    bare = not any((folder / file).exists() for file in ("tokenizer.json", "tokenizer_config.json", "config.json"))
    try:
        with quiet():
            tokenizer = (GPT2Tokenizer if bare else AutoTokenizer).from_pretrained(folder)
    except Exception as error:  # whatever a broken file makes the library raise
        raise DataError(f"the tokenizer cannot be read: {first_line(error)}", file=folder) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        hint = "copy tokenizer.json (or vocab.json and merges.txt) of the pretrained model into it"
        raise DataError("the folder holds no tokenizer", file=folder, hint=hint)
    if kind == "masked" and tokenizer.mask_token_id is None:
        hint = 'set "mask_token" in its tokenizer_config.json'
        raise DataError("the tokenizer has no mask token, so that no word could be masked", file=folder, hint=hint)
    if kind == "masked" and not tokenizer.is_fast:
        hint = "name a model with a tokenizer.json"
        raise DataError("the tokenizer does not tell where in a text its tokens stand", file=folder, hint=hint)
    if kind == "causal" and tokenizer.eos_token_id is None:
        hint = 'set "eos_token" in its tokenizer_config.json'
        raise DataError("the tokenizer has no end-of-text token, so that no text would end", file=folder, hint=hint)
    return tokenizer


def read_weights(folder: Path, config: Any, precision: str = "fp32", kind: Kind = "causal") -> Any:
    """Read a language model.

    Raises:
        DataError: The weights cannot be read, or are those of another architecture.
    """
    try:
        with quiet():
            model, report = _MODELS[kind][1].from_pretrained(
                folder,
                config=config,
                dtype=DTYPES[precision],
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # said below, and better
            )
    except Exception as error:  # whatever a broken file makes the library raise
        hint = "copy the model again; a download may have been cut short"
        what = f"the model's weights cannot be read: {first_line(error)}"
        raise DataError(what, file=folder, hint=hint) from error
    shapes = [f"{name} ({_shape(found)}, not {_shape(wanted)})" for name, found, wanted in report["mismatched_keys"]]
    for problem, tensors in (("missing", list(report["missing_keys"])), ("of another shape", shapes)):
        if tensors:
            named = ", ".join(sorted(tensors)[:_NAMED]) + (" and others" if len(tensors) > _NAMED else "")
            what = f"the weights are not those of the configuration: {len(tensors)} are {problem}, {named}"
            raise DataError(what, file=folder, hint="copy config.json and the weights from the same place")
    return model


def _find_tokenizer(name: str | Path, key: str | None) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    wanted: dict[str, Any] = {"repo_id": str(name), "allow_patterns": CARD, "ignore_patterns": ["*/*"]}
    try:
        with quiet():
            try:
                return Path(huggingface_hub.snapshot_download(**wanted, local_files_only=True))
            except LocalEntryNotFoundError:
                # Asked first because a download retries for half a minute before it says that there is no network.
                huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(str(name), "config.json"), timeout=10)
                return Path(huggingface_hub.snapshot_download(**wanted))
    except Exception as error:
        what = f"the tokenizer {str(name)!r} is no folder, is not cached, and cannot be had from the Hugging Face hub: "
        raise MissingError(what + first_line(error), key=key, hint="name a folder that holds it") from error


def _shape(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
