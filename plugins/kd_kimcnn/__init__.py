"""The convolutional student of Kim 2014, single sentences and pairs."""

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
    """The table ``[students.kimcnn]`` of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    filters: Annotated[int, Field(ge=1)] = 100
    """Filters of each width."""
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (3, 4, 5)
    """How many words the filters of each kind see at once."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of values dropped before the logits."""
    embeddings: Literal["rand", "static", "non-static", "multichannel"] = "multichannel"
    """Word vectors: random and trained; given and frozen; given and trained; or two copies, one frozen and one trained,
    both of which every filter sees (Kim 2014)."""


def build(options: Options, task: Task, vocabulary_size: int, vectors: Floats | None, dimension: int) -> nn.Module:
    """Build the model; see ``kdcli.api.StudentPlugin``. Without vectors, every kind of embedding begins at random."""
    from kd_kimcnn.model import KimCNN
    from kdcli.models.embedding import embedding

    words = embedding(options.embeddings, vocabulary_size, vectors, dimension)
    others = options.model_dump(exclude={"embeddings"})
    return KimCNN(words, **others, pair=task.kind == "pair", outputs=task.outputs)


def to_onnx(options: Options, task: Task, weights: Weights) -> Graph:
    """Build the model as an ONNX graph; see ``kdcli.api.StudentPlugin``."""
    from kd_kimcnn.trained import graph

    return graph(options.widths, task, weights)


def fast(options: Options, task: Task, weights: Weights) -> Model:
    """Return the model for prediction alone, without torch; see ``kdcli.api.StudentPlugin``."""
    from kd_kimcnn.trained import folded

    return folded(options.filters, options.widths, weights)
