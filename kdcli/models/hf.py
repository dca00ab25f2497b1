"""Hugging Face models, configurations and tokenizers, from a folder or the hub, with the same errors everywhere."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import torch
from huggingface_hub.errors import EntryNotFoundError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    GPT2Tokenizer,
)
from transformers.utils import logging as transformers_logging

from kdcli.api import Reporter
from kdcli.errors import DataError, KdError, MissingError, first_line
from kdcli.files import (
    files_sha256 as files_sha256,  # the identity of a model, for plugins
    sha256 as sha256,
)
from kdcli.parts import place

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
VOCABULARY = ("tokenizer*", "vocab*", "*.model")
CARD = ("*.json", "*.txt", "*.model", "vocab.pkl", "vocab.bin")
ADAPTER = "adapter_config.json"
"""The file that makes a folder an adapter: a change of a model that lies elsewhere."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The torch type of each precision."""

NO_LIMIT = 1 << 20  # the longest input of a model that has no limit of its own, in tokens

Kind = Literal["causal", "masked"]
"""What a language model predicts: the next token of a text, or masked tokens."""

_LANGUAGE_MODELS = {
    "causal": (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, "name a decoder, such as gpt2"),
    "masked": (MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM, "name an encoder, such as bert-base-uncased"),
}
# Encoders that count positions from behind the padding token: the first ``pad_token_id + 1`` are never used.
_OFFSET = ("roberta", "camembert", "data2vec-text", "longformer", "luke", "mpnet", "ibert", "xmod", "lilt")
_NAMED = 8  # the most tensors that an error names


def find_model(
    name: str | Path,
    reporter: Reporter,
    *,
    key: str = "teacher.model",
    weights: bool = True,
    adapters: bool = False,
    more: Sequence[str] = (),
) -> Path:
    """Return the folder of a model: ``name`` itself, or the files of the hub's model, fetched unless they are cached.

    ``key`` is the setting that holds the name, for errors. Without ``weights``, a folder with a tokenizer is enough;
    with ``adapters``, the folder of an adapter. ``more`` are patterns of further files to fetch from the hub, such as
    ``*/model.safetensors``.

    Raises:
        DataError: The folder holds no model.
        MissingError: There is no such folder, or the hub cannot be reached or has no such model.
    """
    path = place(name).expanduser()
    if (path / ADAPTER).is_file():
        if adapters:
            return path
        hint = "merge it into its base model (PEFT: merge_and_unload), save that with the tokenizer, and name it"
        raise DataError("this folder holds an adapter (LoRA), not a whole model", file=path, key=key, hint=hint)
    if path.is_dir():
        if weights and not (path / "config.json").is_file():
            hint = "name the folder that save_pretrained wrote: config.json, model.safetensors and a tokenizer"
            raise DataError("this folder holds no Hugging Face model: config.json is missing", file=path, hint=hint)
        return path
    if path.exists():
        raise DataError("a model is a folder, and this is a file", file=path)
    if path.is_absolute() or str(name).startswith((".", "~")) or len(path.parts) > 2:
        raise MissingError("there is no such folder", file=path, key=key)
    with quiet():
        cards = ["config.json", ADAPTER] if adapters else ["config.json"]
        with suppress(Exception):  # not cached, or not a valid name: the hub's answer says which
            folder = Path(huggingface_hub.snapshot_download(str(name), local_files_only=True))
            if _whole(folder, weights, cards):
                return folder
        return _download(str(name), weights, cards, reporter, key, more)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers, Sentence Transformers and the hub from writing to the terminal, which is the reporter's."""
    libraries = [logging.getLogger(name) for name in ("transformers", "sentence_transformers", "huggingface_hub")]
    levels, had_bar = [library.level for library in libraries], transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for library in libraries:
        library.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.setLevel(level)
        if had_bar:
            transformers_logging.enable_progress_bar()


def load_config(folder: Path, **head: Any) -> Any:
    """Load a configuration; ``head`` overrides its values, such as ``num_labels``."""
    if not (folder / "config.json").is_file():
        raise DataError("there is no model in this folder: config.json is missing", file=folder)
    with readable("model's configuration", folder):
        return AutoConfig.from_pretrained(folder, **head)


def load_tokenizer(folder: Path, *, needs: Iterable[Literal["pad", "eos", "mask"]] = ()) -> Any:
    """Load a tokenizer with the special tokens that the caller needs; two files alone, as GPT-2 has them, will do."""
    bare = not any((folder / file).exists() for file in ("tokenizer.json", "tokenizer_config.json", "config.json"))
    with readable("tokenizer", folder):
        tokenizer = (GPT2Tokenizer if bare else AutoTokenizer).from_pretrained(folder)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        hint = "copy tokenizer.json (or its vocabulary files) of the pretrained model into it"
        raise DataError("the folder holds no tokenizer", file=folder, hint=hint)
    names = {"pad": "padding", "eos": "end-of-text", "mask": "mask"}
    for kind in needs:
        if getattr(tokenizer, f"{kind}_token_id") is None:
            hint = f'set "{kind}_token" in its tokenizer_config.json, or name a model that has one'
            raise DataError(f"the tokenizer has no {names[kind]} token", file=folder, hint=hint)
    return tokenizer


def load_model(
    folder: Path,
    auto_class: Any,
    *,
    config: Any = None,
    precision: str = "fp32",
    allow_new: Literal["nothing", "pooler", "head"] | frozenset[str] = "nothing",
    hint: str = "copy config.json and the weights from the same place",
) -> Any:
    """Load a model in evaluation mode on the CPU; ``pytorch_model.bin`` is read without running code.

    Args:
        folder: The folder.
        auto_class: ``AutoModelForSequenceClassification`` for one.
        config: The configuration; None reads the folder's.
        precision: ``fp32``, ``bf16`` or ``fp16``, whatever the file holds.
        allow_new: The weights that may be missing or of another shape, and then start at random: a pooler, or
            everything outside the encoder (``head``, poolers included), or tensors of these names.
        hint: What to do where weights are missing.

    Raises:
        DataError: The weights cannot be read, or do not fit the configuration.
    """
    how = {"dtype": DTYPES[precision], "output_loading_info": True, "ignore_mismatched_sizes": True}
    with readable("model's weights", folder):
        model, report = auto_class.from_pretrained(folder, config=config, **how)

    new = {name: f"{name} (missing)" for name in report["missing_keys"]}
    new |= {name: f"{name} ({list(file)}, not {list(own)})" for name, file, own in report["mismatched_keys"]}
    if wrong := sorted(text for name, text in new.items() if not _may_be_new(name, model, allow_new)):
        named = ", ".join(wrong[:_NAMED]) + (" and others" if len(wrong) > _NAMED else "")
        what = f"the weights do not fit config.json: {len(wrong)} tensors are missing or of another shape: {named}"
        raise DataError(what, file=folder, hint=hint)
    return model


def load_lm_config(folder: Path, kind: Kind = "causal") -> Any:
    """Load the configuration of a language model; that of another kind of model is a ``DataError``."""
    config = load_config(folder)
    # transformers accepts an encoder as a decoder, though each of its tokens sees those behind it.
    decoder = getattr(config, "is_decoder", False)
    encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not decoder
    known, _, hint = _LANGUAGE_MODELS[kind]
    other = encoder if kind == "causal" else decoder
    if type(config) not in known or other or getattr(config, "is_encoder_decoder", False):
        raise DataError(f"a {config.model_type} model is not a {kind} language model", file=folder, hint=hint)
    return config


def load_lm_tokenizer(folder: Path, kind: Kind = "causal") -> Any:
    """Load the tokenizer of a language model: with an end-of-text token, or with a mask token and a fast one."""
    tokenizer = load_tokenizer(folder, needs=["eos" if kind == "causal" else "mask"])
    if kind == "masked" and not tokenizer.is_fast:
        hint = "name a model with a tokenizer.json"
        raise DataError("the tokenizer does not say which characters a token stands for", file=folder, hint=hint)
    return tokenizer


def load_lm(folder: Path, config: Any = None, precision: str = "fp32", kind: Kind = "causal") -> Any:
    """Load a language model; see ``kdcli.models.hf.load_model``."""
    return load_model(folder, _LANGUAGE_MODELS[kind][1], config=config, precision=precision)


def max_length_of(config: Any, tokenizer: Any = None) -> int | None:
    """Return how many tokens a model reads, special ones included; None if there is no limit."""
    text = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    if most and any(name in text.model_type for name in _OFFSET):
        most -= (text.pad_token_id or 0) + 1
    # A tokenizer from vocab.txt alone has no limit of its own; one saved with the model may have a lower one.
    limits = [most, getattr(tokenizer, "model_max_length", None)]
    return min((int(limit) for limit in limits if limit and 0 < limit < 1e9), default=None)


def fit_max_length(wanted: int, config: Any, tokenizer: Any = None, *, key: str, reporter: Reporter) -> int:
    """Return ``wanted`` tokens, or the model's limit if that is lower, with a warning that names ``key``.

    0 stands for the model's own limit.
    """
    limit = max_length_of(config, tokenizer) or wanted or NO_LIMIT
    wanted = wanted or limit
    if wanted > limit:
        reporter.warn(f"{key} is {wanted}, and the model reads {limit} tokens: longer texts are cut there")
    return min(wanted, limit)


def _may_be_new(name: str, model: Any, allow_new: str | frozenset[str]) -> bool:
    if isinstance(allow_new, frozenset):
        return name in allow_new
    outside = allow_new == "head" and not name.startswith(f"{model.base_model_prefix}.")
    return outside or (allow_new != "nothing" and "pooler" in name.split("."))


@contextmanager
def readable(what: str, folder: Path) -> Iterator[None]:
    """Turn whatever a library raises over a model's files into a ``DataError`` that names the folder."""
    try:
        with quiet():
            yield
    except (KdError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a broken file makes the libraries raise anything
        hint = "copy the model again; a download may have been cut short"
        raise DataError(f"the {what} cannot be read: {first_line(error)}", file=folder, hint=hint) from error


def weight_megabytes(folders: Iterable[Path]) -> float:
    """Return the size of the weights in some folders, in 10^6 bytes; in each, one form of them counts."""
    forms = ([list(folder.glob(pattern)) for pattern in (*WEIGHTS, "adapter_model.bin")] for folder in folders)
    return sum(file.stat().st_size for files in forms for file in next(filter(None, files), [])) / 1e6


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds the files of a tokenizer."""
    return _holds(folder, VOCABULARY)


def _holds(folder: Path, patterns: Iterable[str]) -> bool:
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _whole(folder: Path, weights: bool, cards: list[str]) -> bool:
    return _holds(folder, cards) and _holds(folder, WEIGHTS) if weights else has_tokenizer(folder)


def _download(name: str, weights: bool, cards: list[str], reporter: Reporter, key: str, more: Sequence[str]) -> Path:
    try:
        # A download retries for half a minute before it says that there is no network; this says it at once.
        try:
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(name, "config.json"), timeout=10)
        except EntryNotFoundError:
            if ADAPTER not in cards:
                raise
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(name, ADAPTER), timeout=10)
        reporter.info(f"fetching {name} from the Hugging Face hub")
        for pattern in WEIGHTS if weights else CARD[:1]:
            patterns, others = [*CARD, pattern, *more], None if more else ["*/*"]
            folder = huggingface_hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=others)
            if _whole(Path(folder), weights, cards):
                return Path(folder)
    except Exception as error:
        what = f"the model {name!r} is not a folder, is not cached, and cannot be fetched from the Hugging Face hub: "
        hint = "check the name, run once with a network (the model is kept), or give a folder that holds it"
        raise MissingError(what + first_line(error), key=key, hint=hint) from error
    raise DataError(f"the hub's model {name!r} has no {'PyTorch weights' if weights else 'tokenizer'}", key=key)
