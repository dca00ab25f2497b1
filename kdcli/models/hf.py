"""Where a model comes from: a folder, or the Hugging Face hub."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import torch
from transformers.utils import logging as transformers_logging

from kdcli.api import Reporter
from kdcli.errors import DataError, MissingError, first_line

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
CARD = ("*.json", "*.txt", "*.model", "vocab.pkl", "vocab.bin")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What each precision is to torch."""


def find_model(name: str | Path, reporter: Reporter, *, key: str = "teacher.model") -> Path:
    """Return the folder of a model: ``name`` itself, or the hub's files, fetched unless they are cached.

    Args:
        name: A folder, or a hub name such as ``bert-large-uncased``.
        reporter: Told when files are fetched.
        key: The setting that holds the name, for errors.

    Raises:
        DataError: The folder holds no model.
        MissingError: There is no such folder, or the hub cannot be reached or has no such model.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            hint = "name the folder that save_pretrained wrote: config.json, model.safetensors and a tokenizer"
            raise DataError("this folder holds no Hugging Face model: config.json is missing", file=path, hint=hint)
        return path
    if path.exists():
        raise DataError("a model is a folder, and this is a file", file=path)
    if path.is_absolute() or str(name).startswith((".", "~")) or len(path.parts) > 2:
        raise MissingError("there is no such folder", file=path, key=key)
    with quiet():
        return _cached(str(name)) or _fetched(str(name), reporter, key)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and the hub from writing to the terminal, which is the reporter's alone."""
    hub = logging.getLogger("huggingface_hub")
    levels = transformers_logging.get_verbosity(), hub.level
    had_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        hub.setLevel(levels[1])
        if had_bar:
            transformers_logging.enable_progress_bar()


def _cached(name: str) -> Path | None:
    try:
        folder = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except Exception:  # not cached, or no valid name: the hub will tell
        return None
    whole = (folder / "config.json").exists() and any(any(folder.glob(pattern)) for pattern in WEIGHTS)
    return folder if whole else None


def _fetched(name: str, reporter: Reporter, key: str) -> Path:
    try:
        # Asked first because a download retries for half a minute before it says that there is no network.
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(name, "config.json"), timeout=10)
        reporter.info(f"fetching {name} from the Hugging Face hub")
        for weights in WEIGHTS:
            patterns = [*CARD, weights]
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
            if any(folder.glob(weights)):
                return folder
    except Exception as error:
        what = f"the model {name!r} is no folder, is not cached, and cannot be had from the Hugging Face hub: "
        hint = "check the name, run once with a network (the model is kept), or give a folder that holds it"
        raise MissingError(what + first_line(error), key=key, hint=hint) from error
    raise DataError(f"the hub's model {name!r} has no PyTorch weights", key=key)
