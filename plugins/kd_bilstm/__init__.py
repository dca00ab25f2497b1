"""The BiLSTM student of Tang et al. 2019, single sentences and pairs (sections 3.1 and 4.2)."""

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field

from kd_bilstm.trained import FoldedBiRNN
from kdcli.api import API_VERSION, Task
from kdcli.models.inference import Floats, Graph, Model, Weights, onnx_model

if TYPE_CHECKING:
    from torch import nn

api_version, pairs, scores = API_VERSION, True, True

GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""Where ONNX's gates are among PyTorch's: input, output, forget, cell of i, f, g, o; update, reset, new of r, z, n."""

START = """
    steps = Transpose <perm = [1, 0]> (words)
    word_vectors = Gather (vectors, steps)
    counts = Cast <to = 6> (lengths)
"""
ALIGN = """
    last = Constant <value_ints = [2]> ()
    no_word = Constant <value_int = -1> ()
    masked = Equal (words, one)
    unmasked = Not (masked)
    real = And (inside, unmasked)
    weights = Cast <to = 1> (real)
    weight = Unsqueeze (weights, last)
    vectors_by_text = Transpose <perm = [1, 0, 2]> (word_vectors)
    norms = ReduceL2 <axes = [2]> (vectors_by_text)
    positive = Max (norms, least)
    scale = Div (weight, positive)
    directions = Mul (vectors_by_text, scale)
    directions_1, directions_2 = Split <axis = 0> (directions)
    turned = Transpose <perm = [0, 2, 1]> (directions_2)
    cosines = MatMul (directions_1, turned)
    ids = Where (real, words, no_word)
    ids_1, ids_2 = Split <axis = 0> (ids)
    rows = Unsqueeze (ids_1, last)
    columns = Unsqueeze (ids_2, axis)
    equal = Equal (rows, columns)
    same = Cast <to = 1> (equal)
    near_1 = ReduceMax <axes = [2], keepdims = 0> (cosines)
    near_2 = ReduceMax <axes = [1], keepdims = 0> (cosines)
    same_1 = ReduceMax <axes = [2], keepdims = 0> (same)
    same_2 = ReduceMax <axes = [1], keepdims = 0> (same)
    nearest = Concat <axis = 0> (near_1, near_2)
    found = Concat <axis = 0> (same_1, same_2)
    near_values = Relu (nearest)
    same_values = Mul (found, weights)
    near_input = Unsqueeze (near_values, last)
    same_input = Unsqueeze (same_values, last)
    both = Concat <axis = 2> (near_input, same_input)
    aligned = Transpose <perm = [1, 0, 2]> (both)
    layer_0 = Concat <axis = 2> (word_vectors, aligned)
"""  # as BiRNN.align has it
LAYER = """
    every_{n}, last_{n} = {kind} <hidden_size = {hidden}, direction = "bidirectional", clip = 1000000.0{attributes}>
        (layer_{n}, input_weights_{n}, recurrent_weights_{n}, biases_{n}, counts)
"""  # [time, 2, texts, hidden], [2, texts, hidden]; no gate reaches the bound, but OpenVINO reads counts only with one
BETWEEN = """
    beside_{n} = Transpose <perm = [0, 2, 1, 3]> (every_{n})
    side_by_side_{n} = Constant <value_ints = [0, 0, {size}]> ()
    layer_{above} = Reshape (beside_{n}, side_by_side_{n})
"""
MAXIMUM = """
    present_steps = Transpose <perm = [1, 0]> (inside)
    around = Constant <value_ints = [1, 3]> ()
    mask = Unsqueeze (present_steps, around)
    kept = Where (mask, every_{n}, lowest)
    pooled = ReduceMax <axes = [0], keepdims = 0> (kept)
"""
END = """
    by_text = Transpose <perm = [1, 0, 2]> (pooled)
    flat = Constant <value_ints = [0, {size}]> ()
    states = Reshape (by_text, flat)
"""


class Options(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """The table ``[students.bilstm]`` of a profile."""

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
    alignment: bool = False
    """Pairs: each word has two more inputs, its largest cosine with a word of the other text, and whether that text has
    it (after Chen, Fisch, Weston, Bordes 2017, section 3.2, which has attention in place of the largest)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of values dropped before the logits and between recurrent layers."""
    embeddings: Literal["rand", "static", "non-static", "multichannel"] = "multichannel"
    """Word vectors: random and trained; given and frozen; given and trained; or two copies side by side, one frozen
    and one trained (Kim 2014)."""


def build(options: Options, task: Task, vocabulary_size: int, vectors: Floats | None, dimension: int) -> "nn.Module":
    """Build the model; see ``kdcli.api.StudentPlugin``. Without vectors, every kind of embedding begins at random."""
    from kd_bilstm.model import BiRNN
    from kdcli.models.embedding import embedding

    words = embedding(options.embeddings, vocabulary_size, vectors, dimension)
    others = options.model_dump(exclude={"embeddings", "alignment"})
    pair, alignment = task.kind == "pair", _aligns(options, task)
    return BiRNN(words, **others, alignment=alignment, pair=pair, outputs=task.outputs)


def to_onnx(options: Options, task: Task, weights: Weights) -> Graph:
    """Build the model as an ONNX graph: PyTorch's exporters know no packed sequences.

    ONNX's own recurrences take the length of each text, so padding makes no difference here either.
    """

    def reordered(parameter: Floats) -> Floats:
        gates = np.split(parameter, len(GATES[options.cell]))  # [gates * hidden, ...], put into ONNX's order
        return np.concatenate([gates[place] for place in GATES[options.cell]])

    values = {name: value for name, value in weights.items() if not name.startswith("rnn.")}
    if options.pooling == "max":
        values["lowest"] = np.array(-np.inf, np.float32)
    # As PyTorch has it: the reset gate scales the product with the recurrent weights, not the state before it.
    attributes = ", linear_before_reset = 1" if options.cell == "gru" else ""
    if _aligns(options, task):
        start, values["least"] = START + ALIGN, np.array(1e-12, np.float32)
    else:
        start = f"{START}layer_0 = Identity (word_vectors)\n"
    encode, last, size = start, options.layers - 1, 2 * options.hidden
    for n in range(options.layers):
        inner, recurrent, bias_inner, bias_recurrent = (
            np.stack([reordered(weights[f"rnn.{name}_l{n}{way}"]) for way in ("", "_reverse")])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        values |= {f"input_weights_{n}": inner, f"recurrent_weights_{n}": recurrent}
        values[f"biases_{n}"] = np.concatenate([bias_inner, bias_recurrent], axis=1)
        encode += LAYER.format(n=n, kind=options.cell.upper(), hidden=options.hidden, attributes=attributes)
        if n < last:
            encode += BETWEEN.format(n=n, above=n + 1, size=size)
    encode += MAXIMUM.format(n=last) if options.pooling == "max" else f"pooled = Identity (last_{last})\n"
    return onnx_model("kd_bilstm", task, encode + END.format(size=size), ["fc", "logits"], values)


def fast(options: Options, task: Task, weights: Weights) -> Model:
    """Return the model for prediction alone, without torch; see ``kdcli.api.StudentPlugin``."""
    chosen = options.model_dump(include={"cell", "hidden", "layers", "pooling"})
    return FoldedBiRNN(weights, **chosen, alignment=_aligns(options, task))


def _aligns(options: Options, task: Task) -> bool:
    return options.alignment and task.kind == "pair"
