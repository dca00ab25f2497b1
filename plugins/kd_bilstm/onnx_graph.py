"""The model as an ONNX graph: PyTorch's exporters know no packed sequences.

ONNX's own recurrences take the length of each text, so padding makes no difference here either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdcli.api import Task
from kdcli.models.inference import Floats, Graph, Weights, onnx_model

if TYPE_CHECKING:
    from kd_bilstm import Options

GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""Where ONNX's gates are among PyTorch's: input, output, forget, cell of i, f, g, o; update, reset, new of r, z, n."""

START = """
    steps = Transpose <perm = [1, 0]> (words)
    layer_0 = Gather (vectors, steps)
    counts = Cast <to = 6> (lengths)
"""
LAYER = """
    every_{n}, last_{n} = {kind} <hidden_size = {hidden}, direction = "bidirectional"{attributes}>
        (layer_{n}, input_weights_{n}, recurrent_weights_{n}, biases_{n}, counts)
"""  # [time, 2, texts, hidden], [2, texts, hidden]
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


def build_graph(options: Options, task: Task, weights: Weights) -> Graph:
    """Build the graph.

    Args:
        options: The plugin's options.
        task: The task.
        weights: The parameters of ``kd_bilstm.model.BiRNN`` by name.
    """
    values = {name: value for name, value in weights.items() if not name.startswith("rnn.")}
    if options.pooling == "max":
        values["lowest"] = np.array(-np.inf, np.float32)
    # As PyTorch has it: the reset gate scales the product with the recurrent weights, not the state before it.
    attributes = ", linear_before_reset = 1" if options.cell == "gru" else ""
    encode, last, size = START, options.layers - 1, 2 * options.hidden
    for n in range(options.layers):
        inner, recurrent, bias_inner, bias_recurrent = (
            np.stack([_reordered(weights[f"rnn.{name}_l{n}{way}"], options.cell) for way in ("", "_reverse")])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        values |= {f"input_weights_{n}": inner, f"recurrent_weights_{n}": recurrent}
        values[f"biases_{n}"] = np.concatenate([bias_inner, bias_recurrent], axis=1)
        encode += LAYER.format(n=n, kind=options.cell.upper(), hidden=options.hidden, attributes=attributes)
        if n < last:
            encode += BETWEEN.format(n=n, above=n + 1, size=size)
    encode += MAXIMUM.format(n=last) if options.pooling == "max" else f"pooled = Identity (last_{last})\n"
    return onnx_model("kd_bilstm", task, encode + END.format(size=size), ["fc", "logits"], values)


def _reordered(parameter: Floats, cell: str) -> Floats:
    """Put the gates of a parameter, ``[gates * hidden, ...]``, into ONNX's order."""
    gates = np.split(parameter, len(GATES[cell]))
    return np.concatenate([gates[place] for place in GATES[cell]])
