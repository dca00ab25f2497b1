"""What the folders of Sentence Transformers have in common, for the teachers ``cross-encoder`` and ``setfit``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from kdcli.api import MASK, MissingError, ProfileError, Reporter

HEAD = "model_head.pkl"
"""The file of setfit's head."""


def library(extra: str) -> Any:
    """Import Sentence Transformers, which an extra of kd installs."""
    try:
        return import_module("sentence_transformers")
    except ImportError as error:
        what = "this teacher needs the library sentence-transformers"
        raise MissingError(what, key="teacher.plugin", hint=f"pip install 'kdcli[{extra}]'") from error


def find(model: str, long_texts: str, reporter: Reporter) -> Path:
    """Return the folder of a model, fetched from the hub if need be; only ``long_texts = "cut"`` is supported."""
    from kdcli.models.hf import find_model

    if long_texts != "cut":
        what = "a teacher of Sentence Transformers cuts long texts, and has no windows"
        raise ProfileError(what, key="teacher.long_texts", hint='set it to "cut"')
    return find_model(model, reporter, more=("*/config.json", "*/model.safetensors", "*/pytorch_model.bin", HEAD))


def folders(folder: Path) -> list[Path]:
    """Return the folders of a model's modules, itself first."""
    try:
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        inside = sorted({folder / module["path"] for module in modules if module["path"]})
    except (OSError, ValueError, TypeError, KeyError):  # loading it says what is wrong
        inside = []
    return [folder, *(path for path in inside if path.is_dir())]


def megabytes(folder: Path) -> float:
    """Return the size of all weights, in 10^6 bytes."""
    from kdcli.models.hf import WEIGHTS

    sizes = []
    for place in folders(folder):
        files = next((files for pattern in WEIGHTS if (files := list(place.glob(pattern)))), [])
        sizes += [file.stat().st_size for file in files]
    return sum(sizes) / 1e6


def fingerprint(folder: Path) -> str:
    """Return a hash of all files of a model."""
    from kdcli.models.hf import files_sha256

    return sha256("\n".join(files_sha256(place) for place in folders(folder)).encode()).hexdigest()


def with_masks(columns: Sequence[Sequence[str]], tokenizer: Any) -> list[list[str]]:
    """Return texts with the tokenizer's own mask token in the place of kd's."""
    mask = tokenizer.mask_token or tokenizer.unk_token or MASK
    return [[text.replace(MASK, mask) for text in column] for column in columns]


def count_long(columns: Sequence[Sequence[str]], tokenizer: Any, max_length: int) -> int:
    """Return how many texts, or pairs, are longer than ``max_length`` word pieces."""
    from kdcli.models.classifier import count_cut

    return count_cut(tokenizer(*map(list, columns), truncation=True, max_length=max_length), max_length)
