"""A generator that puts the beginning of one training text before the end of another."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from kdcli.api import API_VERSION, Corpus, DataError, GeneratorSettings, Part, Reporter, Samples

api_version = API_VERSION
FILE = "texts.json"


class Options(BaseModel):
    """Its table of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    words: Annotated[int, Field(ge=1)] = 3
    """Words that a text begins with."""


@dataclass(frozen=True)
class Splicer:
    """What ``load`` returns.

    Attributes:
        texts: The training texts.
        words: Words that a text begins with.
    """

    texts: Sequence[str]
    words: int

    def starts(self, corpus: Corpus) -> dict[str, Any]:
        """Return the beginnings of the training texts."""
        return {"beginnings": [" ".join(text.split(" ")[: self.words]) for text in corpus.train]}

    def sample(self, starts: Mapping[str, Any], part: Part) -> Samples:
        """Draw the texts of one part."""
        texts = [self._text(starts["beginnings"], f"{part.seed} {part.first + draw}") for draw in range(part.count)]
        return Samples([text for text in texts if text], {"nothing to go on with": texts.count("")})

    def _text(self, beginnings: Sequence[str], seed: str) -> str:
        """Put two texts together; in a pair, the second is the other's."""
        draw = random.Random(seed)  # of a text: Python hashes it the same way in every process
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
        DataError: They are not there.
    """
    try:
        texts = json.loads((checkpoint / FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("this folder holds no texts", file=checkpoint / FILE) from error
    assert isinstance(settings.options, Options)
    return Splicer(texts, settings.options.words)
