"""A deep averaging network over n-grams in a large sparse table (Ye et al. 2022), single sentences and pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from kdcli.api import API_VERSION, Task

if TYPE_CHECKING:
    from torch import nn

    from kdcli.models.inference import Floats, Graph, Model, Weights

api_version = API_VERSION
pairs = True
scores = True


class Options(BaseModel):
    """The table ``[students.dan]`` of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    ngram: Annotated[int, Field(ge=2)] = 4
    """Words of the longest n-grams; all from single words up to these are averaged."""
    buckets: Annotated[int, Field(ge=1, lt=2**31)] = 100_000
    """Rows of the table that n-grams of two words and more are hashed into."""
    fc: Annotated[int, Field(ge=1)] = 200
    """Size of the fully connected layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of values dropped before the logits."""
    embeddings: Literal["rand", "static", "non-static", "multichannel"] = "non-static"
    """Word vectors: random, given and frozen, given and trained, or two copies: one frozen, one trained (Kim 2014)."""


def build(options: Options, task: Task, vocabulary_size: int, vectors: Floats | None, dimension: int) -> nn.Module:
    """Build the model; see ``kdcli.api.StudentPlugin``. Without vectors, every kind of embedding begins at random."""
    from kd_dan.model import DAN
    from kdcli.models.embedding import embedding

    words = embedding(options.embeddings, vocabulary_size, vectors, dimension)
    others = options.model_dump(exclude={"embeddings"})
    return DAN(words, **others, pair=task.kind == "pair", outputs=task.outputs)


def to_onnx(options: Options, task: Task, weights: Weights) -> Graph:
    """Build the model as an ONNX graph; see ``kdcli.api.StudentPlugin``."""
    from kd_dan.trained import graph

    return graph(options.ngram, task, weights)


def fast(options: Options, task: Task, weights: Weights) -> Model:
    """Return the model for prediction alone, without torch; see ``kdcli.api.StudentPlugin``."""
    from kd_dan.trained import averaging

    return averaging(options.ngram, weights)
