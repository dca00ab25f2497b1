"""A plugin that keeps every contract and costs nothing: a generator, a student and a tagger in one module.

The generator puts the beginning of one
training text before the end of another; the student averages word vectors; the tagger knows numbers, words and signs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from kdcli.api import API_VERSION, Batch, Corpus, DataError, GeneratorSettings, Part, Reporter, Samples, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

api_version = API_VERSION
pairs = True
scores = True
FILE = "texts.json"


class Options(BaseModel):
    """The table ``[generators.fake]`` or ``[students.fake]`` of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    words: Annotated[int, Field(ge=1)] = 3
    """Words that a generated text begins with."""
    bias: bool = True
    """Add a number to each logit of the student."""


@dataclass(frozen=True)
class Splicer:
    """A loaded generator: its training texts, and how many words of one a text begins with."""

    texts: Sequence[str]
    words: int

    def prefixes(self, corpus: Corpus) -> dict[str, Any]:
        """Return the beginnings of the training texts."""
        return {"beginnings": [" ".join(text.split(" ")[: self.words]) for text in corpus.train]}

    def sample(self, prefixes: Mapping[str, Any], part: Part) -> Samples:
        """Draw the texts of one part."""
        texts = [self._text(prefixes["beginnings"], f"{part.seed} {part.first + draw}") for draw in range(part.count)]
        return Samples([text for text in texts if text], {"nothing to go on with": texts.count("")})

    def _text(self, beginnings: Sequence[str], seed: str) -> str:
        """Join two texts; in a pair, the second text is the other's."""
        draw = random.Random(seed)  # seeded by a text: the same in every process
        beginning, other = draw.choice(beginnings), draw.choice(self.texts)
        if "\t" in other:
            return "\t".join([beginning.partition("\t")[0], other.partition("\t")[2]])
        end = other.split(" ")[self.words :]
        return " ".join([beginning, *end]) if end else ""


def fine_tune(corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> dict[str, Any]:
    """Keep the texts."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / FILE).write_text(json.dumps(list(corpus.train)), "utf-8")
    return {"texts": len(corpus.train)}


def load(checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> Splicer:
    """Read the texts.

    Raises:
        DataError: The folder holds none.
    """
    try:
        texts = json.loads((checkpoint / FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("this folder holds no texts", file=checkpoint / FILE) from error
    assert isinstance(settings.options, Options)
    return Splicer(texts, settings.options.words)


def build(
    options: Options, task: Task, vocabulary_size: int, vectors: NDArray[np.float32] | None, dimension: int
) -> nn.Module:
    """Build the model; see ``kdcli.api.StudentPlugin``."""
    import torch
    from torch import nn

    class Average(nn.Module):
        """The mean of each text's word vectors, then one linear layer."""

        def __init__(self) -> None:
            super().__init__()
            weight = None if vectors is None else torch.tensor(vectors)
            self.embedding = nn.Embedding(vocabulary_size, dimension, _weight=weight)
            self.logits = nn.Linear(dimension * len(task.columns), task.outputs, bias=options.bias)

        def forward(self, batch: Batch) -> Tensor:
            """Return logits, ``[batch, outputs]``."""
            means = []
            for words, lengths in zip(batch.words, batch.lengths, strict=True):
                there = (torch.arange(words.shape[1]) < lengths[:, None]).to(words.device)  # [batch, time]
                vectors_there = self.embedding(words) * there[:, :, None]
                means.append(vectors_there.sum(1) / lengths.to(words.device)[:, None])
            logits: Tensor = self.logits(torch.cat(means, dim=1))
            return logits

    return Average()


def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Give each word of each text its tag."""
    return [[_tag(word) for word in words] for words in texts]


def _tag(word: str) -> str:
    return "CD" if word.isdecimal() else "NN" if word.isalpha() else "SYM"
