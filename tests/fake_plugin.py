"""A plugin that keeps every contract and costs nothing: a generator, a student and a tagger in one module.

The generator puts the beginning of one training text before the end of another; the student averages word vectors; the
tagger knows numbers, words and signs.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kdcli.api import API_VERSION, DataError, Samples

api_version = API_VERSION
pairs = True
scores = True
FILE = "texts.json"


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    words: Annotated[int, Field(ge=1)] = 3
    """Words that a generated text begins with."""
    bias: bool = True
    """Add a number to each logit of the student."""


@dataclass(frozen=True)
class Splicer:
    texts: Sequence[str]
    words: int

    def prefixes(self, corpus):
        return {"beginnings": [" ".join(text.split(" ")[: self.words]) for text in corpus.train]}

    def sample(self, prefixes, part):
        texts = [self._text(prefixes["beginnings"], f"{part.seed} {part.first + draw}") for draw in range(part.count)]
        return Samples([text for text in texts if text], {"nothing to go on with": texts.count("")})

    def _text(self, beginnings, seed):
        draw = random.Random(seed)  # seeded by a text: the same in every process
        beginning, other = draw.choice(beginnings), draw.choice(self.texts)
        if "\t" in other:
            return "\t".join([beginning.partition("\t")[0], other.partition("\t")[2]])
        end = other.split(" ")[self.words :]
        return " ".join([beginning, *end]) if end else ""


def fine_tune(corpus, checkpoint, settings, reporter):
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / FILE).write_text(json.dumps(list(corpus.train)), "utf-8")
    return {"texts": len(corpus.train)}


def load(checkpoint, settings, reporter):
    try:
        texts = json.loads((checkpoint / FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("this folder holds no texts", file=checkpoint / FILE) from error
    return Splicer(texts, settings.options.words)


def build(options, task, vocabulary_size, vectors, dimension):
    import torch
    from torch import nn

    class Average(nn.Module):
        def __init__(self):
            super().__init__()
            weight = None if vectors is None else torch.tensor(vectors)
            self.embedding = nn.Embedding(vocabulary_size, dimension, _weight=weight)
            self.logits = nn.Linear(dimension * len(task.columns), task.outputs, bias=options.bias)

        def forward(self, batch):
            means = []
            for words, lengths in zip(batch.words, batch.lengths, strict=True):
                there = (torch.arange(words.shape[1]) < lengths[:, None]).to(words.device)  # [batch, time]
                vectors_there = self.embedding(words) * there[:, :, None]
                means.append(vectors_there.sum(1) / lengths.to(words.device)[:, None])
            logits = self.logits(torch.cat(means, dim=1))
            return logits

    return Average()


def tag(texts):
    return [[_tag(word) for word in words] for words in texts]


def _tag(word):
    return "CD" if word.isdecimal() else "NN" if word.isalpha() else "SYM"
