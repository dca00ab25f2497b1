"""The convolutional student of Kim 2014, single sentences and pairs."""

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field

from kdcli.api import API_VERSION, Batch, Task
from kdcli.models.inference import Floats, Graph, Ints, Model, Weights, numpy_model, onnx_model, word_vectors

if TYPE_CHECKING:
    from torch import nn

api_version, pairs, scores = API_VERSION, True, True

ENCODE = """
    found = Gather (vectors, words)
    columns = Transpose <perm = [0, 2, 1]> (found)
    mask = Unsqueeze (present, axis)
    text = Mul (columns, mask)
"""
FILTERS = """
    values_{number} = Conv <pads = [{beyond}, {beyond}]> (text, filters_{number}_weight, filters_{number}_bias)
    positive_{number} = Relu (values_{number})
    windows_{number} = MaxPool <kernel_shape = [{width}], pads = [{beyond}, {beyond}]> (mask)
    counted_{number} = Mul (positive_{number}, windows_{number})
    highest_{number} = ReduceMax <axes = [2], keepdims = 0> (counted_{number})
"""  # a window counts if it sees a word


class Options(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """The table ``[students.kimcnn]`` of a profile."""

    filters: Annotated[int, Field(ge=1)] = 100
    """Filters of each width."""
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (3, 4, 5)
    """How many words the filters of each kind see at once."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of values dropped before the logits."""
    embeddings: Literal["rand", "static", "non-static", "multichannel"] = "multichannel"
    """Word vectors: random and trained; given and frozen; given and trained; or two copies, one frozen and one trained,
    both of which every filter sees (Kim 2014)."""


def build(options: Options, task: Task, vocabulary_size: int, vectors: Floats | None, dimension: int) -> "nn.Module":
    """Build the model; see ``kdcli.api.StudentPlugin``. Without vectors, every kind of embedding begins at random."""
    import torch
    from torch import nn
    from torch.nn import functional

    from kdcli.models.embedding import compared, embedding

    class KimCNN(nn.Module):
        """Filters over word vectors, the largest value of each over time -> dropout -> FC (Kim 2014, section 2).

        A window may reach over the ends of a text, where it sees zeros, as long as it sees a word: there are
        ``length + width - 1`` of them, whatever the text is padded to. Both texts of a pair take the same filters.
        """

        def __init__(self) -> None:
            super().__init__()
            self.embedding = embedding(options.embeddings, vocabulary_size, vectors, dimension)
            size, filters = self.embedding.dimension, options.filters
            self.filters = nn.ModuleList(nn.Conv1d(size, filters, width) for width in options.widths)
            self.dropout = nn.Dropout(options.dropout)
            self.logits = nn.Linear(filters * len(options.widths) * (4 if task.kind == "pair" else 1), task.outputs)

        def forward(self, batch: Batch) -> torch.Tensor:  # [batch, outputs]
            states = [self.encode(*column) for column in zip(batch.words, batch.lengths, strict=True)]
            logits: torch.Tensor = self.logits(self.dropout(compared(states)))
            return logits

        def encode(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            """Return the largest value of each filter, ``[batch, widths * filters]``, for texts ``[batch, time]``."""
            ends = lengths.to(words.device)[:, None]
            present = torch.arange(words.shape[1], device=words.device) < ends
            channels = [(channel * present[:, :, None]).transpose(1, 2) for channel in self.embedding(words)]
            states = []
            for convolution in self.filters:
                assert isinstance(convolution, nn.Conv1d) and convolution.bias is not None
                beyond = convolution.kernel_size[0] - 1
                # Apart, so that no gradient is computed for a frozen channel.
                parts = zip(channels, torch.chunk(convolution.weight, len(channels), dim=1), strict=True)
                values = sum((functional.conv1d(*part, padding=beyond) for part in parts), convolution.bias[:, None])
                windows = torch.arange(values.shape[2], device=words.device) < ends + beyond
                states.append(values.masked_fill(~windows[:, None], -torch.inf).amax(dim=2))
            return functional.relu(torch.cat(states, dim=1))

    return KimCNN()


def to_onnx(options: Options, task: Task, weights: Weights) -> Graph:
    """Build the model as an ONNX graph; see ``kdcli.api.StudentPlugin``."""
    numbered = list(enumerate(options.widths))
    filters = (FILTERS.format(number=number, width=width, beyond=width - 1) for number, width in numbered)
    highest = ", ".join(f"highest_{number}" for number, _ in numbered)
    encode = f"{ENCODE}{''.join(filters)} states = Concat <axis = 1> ({highest})"
    return onnx_model("kd_kimcnn", task, encode, ["logits"], weights)


def fast(options: Options, task: Task, weights: Weights) -> Model:
    """Return the model in NumPy; weights of another model are a ``KeyError`` or a ``ValueError``.

    What a filter makes of a word at each of its places is a constant of the word: it is computed when the word first
    comes. The value of a window is then a sum of as many numbers as it has places.
    """
    vectors = word_vectors(weights)
    size, dimension = vectors.shape
    by_width = [weights[f"filters.{number}.weight"].transpose(1, 2, 0) for number in range(len(options.widths))]
    places = [
        each.reshape(dimension, width * options.filters) for each, width in zip(by_width, options.widths, strict=True)
    ]
    matrix = np.concatenate(places, axis=1)  # [dimension, sum of widths * filters]
    biases = np.concatenate([weights[f"filters.{number}.bias"] for number in range(len(options.widths))])
    table, known = np.empty((size, matrix.shape[1]), np.float32), np.zeros(size, np.bool_)

    def encode(words: Ints, lengths: Ints) -> Floats:
        (texts, time), ends = words.shape, lengths[:, None]
        new = np.unique(words[~known[words]])
        table[new] = vectors[new] @ matrix
        known[new] = True
        made = np.where((np.arange(time) < ends)[:, :, None], table[words], 0)
        parts = iter(np.split(made, sum(options.widths), axis=2))  # [texts, time, filters] for each place of each width
        states = []
        for width in options.widths:
            values = np.zeros((texts, time + width - 1, options.filters), np.float32)
            for first in reversed(range(width)):
                values[:, first : first + time] += next(parts)
            values[np.arange(time + width - 1) >= ends + width - 1] = -np.inf
            states.append(values.max(axis=1))
        return np.asarray(np.maximum(np.concatenate(states, axis=1) + biases, 0), np.float32)

    return numpy_model(encode, ["logits"], weights, words=256)
