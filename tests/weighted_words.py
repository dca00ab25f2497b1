"""A teacher of weighted words: the logit of a label is the sum of the weights that the text's words have for it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, TypeAdapter

from kdcli.api import DataError, MissingError, ProfileError, Reporter

api_version = 2


class Options(BaseModel, extra="forbid", frozen=True):
    """The table ``[teachers.weighted_words]`` of a profile."""

    scale: float = Field(1.0, gt=0, description="What each weight is multiplied by: the teacher is surer with more.")


@dataclass
class WeightedWords:
    """A loaded teacher, see ``kdcli.api.LoadedTeacher``."""

    labels: tuple[str, ...]
    weights: dict[str, NDArray[np.float32]]  # of a word: one for each label
    max_length: int  # in words; 0 = no limit
    source: bytes
    cut: int = 0
    parameters_without_embeddings: int = 0

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return len(self.weights) * len(self.labels)

    @property
    def megabytes(self) -> float:
        """The size of its file."""
        return len(self.source) / 1e6

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the logits, ``float32 [texts, labels]``."""
        if len(columns) > 1:
            raise DataError("this teacher reads one text a row, not pairs", hint="choose another: teacher.plugin")
        found = np.zeros((len(columns[0]), len(self.labels)), np.float32)
        for row, text in enumerate(columns[0]):
            words = re.findall(r"\w+", text.lower())
            if 0 < self.max_length < len(words):
                self.cut += 1
                words = words[: self.max_length]
            for word in words:
                found[row] += self.weights.get(word, 0)
        return found

    def fingerprint(self) -> str:
        """Return a hash of the file: kd asks again when it has changed."""
        return sha256(self.source).hexdigest()


def load(
    model: str,
    options: Options,
    *,
    labels: tuple[str, ...],
    max_length: int,
    long_texts: Literal["cut", "mean", "max"],
    device: str,
    precision: str,
    reporter: Reporter,
) -> WeightedWords:
    """Read the words of each label from a TOML file; its tables are the labels."""
    path = Path(model)
    if not path.exists():
        raise MissingError("there is no such file of words", file=path, key="teacher.model")
    if long_texts != "cut":
        raise ProfileError("this teacher cuts long texts", key="teacher.long_texts", hint='set it to "cut"')
    try:
        source = path.read_bytes()
        read = TypeAdapter(dict[str, dict[str, float]]).validate_python(tomllib.loads(source.decode("utf-8")))
    except (OSError, ValueError) as error:
        hint = "write a table for each label, and in it WORD = WEIGHT"
        raise DataError("this is no file of words", file=path, hint=hint) from error
    if len(read) < 2:
        raise DataError(f"a teacher needs two labels or more, and here are {len(read)}", file=path, hint="add a table")
    words = {word for table in read.values() for word in table}
    weights = {
        word: np.array([table.get(word, 0) * options.scale for table in read.values()], np.float32) for word in words
    }
    return WeightedWords(tuple(read), weights, max_length, source)
