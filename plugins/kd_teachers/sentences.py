"""What the teachers ``cross-encoder`` and ``setfit`` have in common: models of Sentence Transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api import MASK, MissingError, ProfileError, Reporter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEAD = "model_head.pkl"
"""The file of setfit's head."""


@dataclass
class SentenceTeacher:
    """A loaded model."""

    labels: tuple[str, ...]
    folder: Path
    model: Any  # of Sentence Transformers
    max_length: int
    read: Callable[[list[list[str]], int], Any]  # from text columns and the batch to logits ``[texts, outputs]``
    multi_label: bool | None = None  # whether each output is a yes or no of its own
    cut: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Count what the model consists of."""
        from kdcli.models.classifier import count_parameters

        self.parameters, self.parameters_without_embeddings = count_parameters(self.model)

    @property
    def megabytes(self) -> float:
        """The size of all weights, in 10^6 bytes."""
        from kdcli.models.hf import WEIGHTS

        places = [[list(place.glob(pattern)) for pattern in WEIGHTS] for place in self._folders]
        return sum(file.stat().st_size for files in places for file in next(filter(None, files), [])) / 1e6

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the logits, ``float32 [texts, outputs]``; kd's mask token becomes the tokenizer's own."""
        import numpy as np

        from kdcli.models.classifier import count_cut

        tokenizer = self.model.tokenizer
        mask = tokenizer.mask_token or tokenizer.unk_token or MASK
        masked = [[text.replace(MASK, mask) for text in column] for column in columns]
        found = np.asarray(self.read(masked, batch), np.float32)
        self.cut += count_cut(tokenizer(*masked, truncation=True, max_length=self.max_length), self.max_length)
        logits: NDArray[np.float32] = found.reshape(len(masked[0]), -1)
        return logits

    def fingerprint(self) -> str:
        """Return a hash of all files of the model."""
        from kdcli.models.hf import files_sha256

        return sha256("\n".join(files_sha256(place) for place in self._folders).encode()).hexdigest()

    @property
    def _folders(self) -> list[Path]:
        """The folders of the model's modules, its own first."""
        try:
            modules = json.loads((self.folder / "modules.json").read_text("utf-8"))
            inside = sorted({self.folder / module["path"] for module in modules if module["path"]})
        except (OSError, ValueError, TypeError, KeyError):  # loading it says what is wrong
            inside = []
        return [self.folder, *(path for path in inside if path.is_dir())]


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
