"""The BiLSTM student of Tang et al. 2019, single sentences and pairs (sections 3.1 and 4.2)."""

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
    """The table ``[students.bilstm]`` of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    hidden: Annotated[int, Field(ge=1)] = 150
    """Size of a hidden state, each direction its own."""
    fc: Annotated[int, Field(ge=1)] = 200
    """Size of the fully connected layer."""
    cell: Literal["lstm", "gru"] = "lstm"
    """The recurrent unit."""
    layers: Annotated[int, Field(ge=1)] = 1
    """Recurrent layers."""
    pooling: Literal["last", "max"] = "last"
    """What stands for a text: the last hidden states of both directions, or the maximum over all words."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of values dropped before the logits and between recurrent layers."""
    embeddings: Literal["rand", "static", "non-static", "multichannel"] = "multichannel"
    """Word vectors: random and trained; given and frozen; given and trained; or two copies side by side, one frozen
    and one trained (Kim 2014)."""


def build(options: Options, task: Task, vocabulary_size: int, vectors: Floats | None, dimension: int) -> nn.Module:
    """Build the model; see ``kdcli.api.StudentPlugin``. Without vectors, every kind of embedding begins at random."""
    from kd_bilstm.model import BiRNN
    from kdcli.models.embedding import embedding

    return BiRNN(
        embedding(options.embeddings, vocabulary_size, vectors, dimension),
        cell=options.cell,
        hidden=options.hidden,
        layers=options.layers,
        pooling=options.pooling,
        fc=options.fc,
        dropout=options.dropout,
        pair=task.kind == "pair",
        outputs=task.outputs,
    )


def to_onnx(options: Options, task: Task, weights: Weights) -> Graph:
    """Build the model as an ONNX graph; see ``kdcli.api.StudentPlugin``."""
    from kd_bilstm.onnx_graph import build_graph

    return build_graph(options, task, weights)


def fast(options: Options, task: Task, weights: Weights) -> Model:
    """Return the model for prediction alone, without torch; see ``kdcli.api.StudentPlugin``."""
    from kd_bilstm.trained import FoldedBiRNN

    return FoldedBiRNN(
        weights, cell=options.cell, hidden=options.hidden, layers=options.layers, pooling=options.pooling
    )
