"""The model as an ONNX graph, built node by node: PyTorch's exporters know no packed sequences.

ONNX's own recurrences take the length of each text, so padding makes no difference here either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kdcli.api import Task
from kdcli.models.inference import Weights, channels

if TYPE_CHECKING:
    from kd_bilstm import Options

OPSET, IR = 17, 8
"""Versions of 2022, which runtimes of all kinds read."""

GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""Where ONNX's gates are among PyTorch's: input, output, forget, cell of i, f, g, o; update, reset, new of r, z, n."""


@dataclass
class Graph:
    """A graph that grows.

    Attributes:
        nodes: Its nodes, each after those that it takes its inputs from.
        constants: Its constants by name.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> tuple[str, ...]:
        """Add a node and return the names of its outputs."""
        name = f"{operator}_{len(self.nodes)}"
        names = tuple(f"{name}_{number}" for number in range(outputs))
        self.nodes.append(helper.make_node(operator, inputs, names, name, **attributes))
        return names

    def one(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return its name."""
        return self.add(operator, *inputs, **attributes)[0]

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant, unless it is there, and return its name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        """Add a constant of integers, ``int64 [values]``."""
        return self.constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))


def build_graph(options: Options, task: Task, weights: Weights) -> onnx.ModelProto:
    """Build the graph.

    Args:
        options: The plugin's options.
        task: The task.
        weights: The parameters of ``kd_bilstm.model.BiRNN`` by name.

    Returns:
        A model with the inputs ``words``, ``int64 [batch, time]``, and ``lengths``, ``int64 [batch]`` (for a pair
        ``words1``, ``lengths1``, ``words2``, ``lengths2``), and the output ``logits``, ``float32 [batch, outputs]``.
    """
    graph = Graph()
    numbers = ("",) if task.kind == "single" else ("1", "2")
    inputs = [
        helper.make_tensor_value_info(f"{name}{number}", TensorProto.INT64, shape)
        for number in numbers
        for name, shape in (("words", ["batch", f"time{number}"]), ("lengths", ["batch"]))
    ]
    if task.kind == "single":
        states = encode(graph, options, weights, "words", "lengths")
    else:
        words, lengths = stacked(graph, "words1", "words2"), graph.one("Concat", "lengths1", "lengths2", axis=0)
        one, two = graph.add("Split", encode(graph, options, weights, words, lengths), outputs=2, axis=0)
        compared = (graph.one("Abs", graph.one("Sub", one, two)), graph.one("Mul", one, two))
        states = graph.one("Concat", one, two, *compared, axis=1)
    hidden = graph.one("Relu", linear(graph, weights, "fc", states))  # [batch, fc]
    graph.nodes.append(helper.make_node("Identity", [linear(graph, weights, "logits", hidden)], ["logits"], "logits"))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", task.outputs])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "kd_bilstm", inputs, [logits], list(graph.constants.values())),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="kd",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def stacked(graph: Graph, *columns: str) -> str:
    """Add what puts both texts of each row into one batch, the first ones before the second ones.

    One recurrence then reads them side by side; of two that share their weights onnxruntime's quantisation makes a
    graph that does not run.
    """
    times = [length(graph, column) for column in columns]
    longest = graph.one("Max", *times)
    padded = [
        graph.one("Pad", column, graph.one("Concat", graph.integers(0, 0, 0), graph.one("Sub", longest, time), axis=0))
        for column, time in zip(columns, times, strict=True)
    ]
    return graph.one("Concat", *padded, axis=0)


def length(graph: Graph, words: str) -> str:
    """Add the second dimension of padded texts ``[batch, time]``, ``int64 [1]``."""
    return graph.one("Shape", words, start=1, end=2)


def encode(graph: Graph, options: Options, weights: Weights, words: str, lengths: str) -> str:
    """Add what encodes texts, and return the name of their states, ``[texts, 2 * hidden]``."""
    steps = graph.one("Transpose", words, perm=[1, 0])  # [time, texts]
    vectors = [
        graph.one("Gather", graph.constant(f"vectors{n}", one), steps) for n, one in enumerate(channels(weights))
    ]
    given = graph.one("Concat", *vectors, axis=2) if len(vectors) > 1 else vectors[0]  # [time, texts, size]
    counts = graph.one("Cast", lengths, to=TensorProto.INT32)
    every, last = recur(graph, options, weights, given, counts, layer=0)  # [time, 2, texts, hidden], [2, texts, hidden]
    for layer in range(1, options.layers):
        beside = graph.one("Transpose", every, perm=[0, 2, 1, 3])
        given = graph.one("Reshape", beside, graph.integers(0, 0, 2 * options.hidden))
        every, last = recur(graph, options, weights, given, counts, layer)
    pooled = last if options.pooling == "last" else maximum(graph, every, words, lengths)
    return graph.one("Reshape", graph.one("Transpose", pooled, perm=[1, 0, 2]), graph.integers(0, 2 * options.hidden))


def recur(graph: Graph, options: Options, weights: Weights, given: str, counts: str, layer: int) -> tuple[str, ...]:
    """Add one layer in both directions, and return the names of all its states and of the last ones."""
    inner, recurrent, bias_inner, bias_recurrent = (
        np.stack([reordered(weights[f"rnn.{name}_l{layer}{way}"], options.cell) for way in ("", "_reverse")])
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return graph.add(
        options.cell.upper(),
        given,
        graph.constant(f"input_weights_{layer}", inner),  # [2, gates * hidden, size]
        graph.constant(f"recurrent_weights_{layer}", recurrent),  # [2, gates * hidden, hidden]
        graph.constant(f"biases_{layer}", np.concatenate([bias_inner, bias_recurrent], axis=1)),
        counts,
        outputs=2,
        hidden_size=options.hidden,
        direction="bidirectional",
        # As PyTorch has it: the reset gate scales the product with the recurrent weights, not the state before it.
        **({"linear_before_reset": 1} if options.cell == "gru" else {}),
    )


def reordered(parameter: NDArray[np.float32], cell: str) -> NDArray[np.float32]:
    """Put the gates of a parameter, ``[gates * hidden, ...]``, into ONNX's order."""
    gates = np.split(parameter, len(GATES[cell]))
    return np.concatenate([gates[place] for place in GATES[cell]])


def maximum(graph: Graph, every: str, words: str, lengths: str) -> str:
    """Add the maximum of states ``[time, 2, texts, hidden]`` over the words of each text, ``[2, texts, hidden]``."""
    zero, one = (graph.constant(name, np.array(value)) for name, value in (("zero", 0), ("one", 1)))
    numbers = graph.one("Range", zero, graph.one("Squeeze", length(graph, words)), one)
    present = graph.one("Less", graph.one("Unsqueeze", numbers, graph.integers(1)), lengths)  # [time, texts]
    lowest = graph.constant("lowest", np.array(-np.inf, np.float32))
    kept = graph.one("Where", graph.one("Unsqueeze", present, graph.integers(1, 3)), every, lowest)
    return graph.one("ReduceMax", kept, axes=[0], keepdims=0)


def linear(graph: Graph, weights: Weights, name: str, given: str) -> str:
    """Add a fully connected layer."""
    parts = (f"{name}.weight", f"{name}.bias")
    return graph.one("Gemm", given, *(graph.constant(part, weights[part]) for part in parts), transB=1)
