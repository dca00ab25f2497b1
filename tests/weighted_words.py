"""A teacher of weighted words: the logit of a label is the sum of the weights that the text's words have for it."""

import re
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from kdcli.api import DataError, ProfileError

api_version = 2


class Options(BaseModel, extra="forbid", frozen=True):
    scale: float = Field(1.0, gt=0, description="What each weight is multiplied by: the teacher is surer with more.")


@dataclass
class WeightedWords:
    labels: tuple[str, ...]
    weights: dict[str, NDArray[np.float32]]  # of a word: one for each label
    max_length: int  # in words; 0 = no limit
    source: bytes
    cut: int = 0
    parameters: int = 0
    parameters_without_embeddings: int = 0
    megabytes: float = 0.0

    def logits(self, columns, batch):
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

    def fingerprint(self):
        return sha256(self.source).hexdigest()


def load(model, options, *, labels, max_length, long_texts, device, precision, reporter):
    if long_texts != "cut":
        raise ProfileError("this teacher cuts long texts", key="teacher.long_texts", hint='set it to "cut"')
    source = Path(model).read_bytes()
    read = tomllib.loads(source.decode())
    words = {word for table in read.values() for word in table}
    weights = {
        word: np.array([table.get(word, 0) * options.scale for table in read.values()], np.float32) for word in words
    }
    return WeightedWords(tuple(read), weights, max_length, source)
