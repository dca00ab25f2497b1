"""Trained models without torch, for student plugins: in NumPy for their ``fast``, as a graph for their ``to_onnx``.

A plugin says how a text becomes a state; what comes after it is here: the states of a pair are compared as [h1, h2,
|h1 - h2|, h1 * h2], and linear layers make logits of them (Tang et al. 2019, section 3.1). It imports NumPy at its top,
so a plugin imports it inside of functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from kdcli.api import Task

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Cores",
    "Floats",
    "Graph",
    "Ints",
    "Model",
    "Weights",
    "channels",
    "numpy_model",
    "onnx_model",
    "word_vectors",
]

Floats = NDArray[np.float32]
Ints = NDArray[Any]
Weights = Mapping[str, Floats]
"""A trained model's, by the names of its ``state_dict``."""
Model = Callable[[tuple[Ints, ...], tuple[Ints, ...]], Floats]
"""Words ``[batch, time]`` and lengths ``[batch]`` of each text column to logits ``[batch, outputs]``."""
Graph: TypeAlias = "onnx.ModelProto"
Job = TypeVar("Job")
Result = TypeVar("Result")

_ONE_CALLER = Lock()

_MODEL = """<ir_version: 8, opset_import: ["": 17], producer_name: "kd">
{name} ({inputs}) => (float[batch, {outputs}] logits) {{
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    axis = Constant <value_ints = [1]> ()
    {statements}
}}"""  # versions of 2022, which runtimes of all kinds read
_INPUTS = "int64[batch, time#] words#, int64[batch] lengths#"
_PRESENT = """
    shape# = Shape <start = 1> (words#)
    time# = Squeeze (shape#)
    places# = Range (zero, time#, one)
    ends# = Unsqueeze (lengths#, axis)
    inside# = Less (places#, ends#)
    present# = Cast <to = 1> (inside#)
"""
_PAIR = """
    difference = Sub (states1, states2)
    distance = Abs (difference)
    agreement = Mul (states1, states2)
    states = Concat <axis = 1> (states1, states2, distance, agreement)
"""


def channels(weights: Weights) -> list[Floats]:
    """Return the vectors of ``kdcli.models.embedding.Embedding``, ``[vocabulary, size]`` for each channel, the trained first.

    Args:
        weights: A model's, in which that module is the attribute ``embedding``.
    """
    names = ("embedding.trained.weight", "embedding.frozen.weight")
    return [weights[name] for name in names if name in weights]


def word_vectors(weights: Weights) -> Floats:
    """Return a copy of all ``channels`` side by side, ``[vocabulary, dimension]``."""
    return np.concatenate(channels(weights), axis=1)


class Cores:
    """The cores, with a thread of ours for each: those of BLAS would wait for each other at every step.

    Attributes:
        count: How many there are.
    """

    def __init__(self) -> None:
        self.blas = ThreadpoolController().select(user_api="blas")
        self.count = max((library["num_threads"] for library in self.blas.info()), default=os.cpu_count() or 1)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Keep BLAS to the thread that calls it; of several callers one at a time, since this holds for the process."""
        with _ONE_CALLER, self.blas.limit(limits=1):
            yield

    def each(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """Do the jobs, in threads if there are several: NumPy lets go of the interpreter while it computes."""
        if min(len(jobs), self.count) < 2:
            return [work(job) for job in jobs]
        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(work, jobs))


def numpy_model(
    encode: Callable[[Ints, Ints], Floats], layers: Sequence[str], weights: Weights, *, words: int
) -> Model:
    """Return a model as ``fast`` of a student plugin returns it.

    Args:
        encode: Computes states ``[texts, size]``, of texts ``[texts, time]``, int64, and their lengths ``[texts]``;
            several threads call it at once, as many as BLAS would take.
        layers: The linear layers that make logits of states by their names, with a ReLU between them.
        weights: The trained model's.
        words: About how many words, or one text, are encoded at once: what they need should fit a core's own cache.
            Texts of similar lengths go together.

    Raises:
        KeyError: A layer's weights are missing.
    """
    linear = [(weights[f"{name}.weight"].T, weights[f"{name}.bias"]) for name in layers]
    cores = Cores()

    def states(texts: Ints, lengths: Ints) -> Floats:
        order = np.argsort(lengths, kind="stable")
        rows = np.split(order, np.flatnonzero(np.diff(np.cumsum(lengths[order]) // words)) + 1)
        pieces = [(texts[piece, : lengths[piece[-1]]].astype(np.int64), lengths[piece]) for piece in rows]
        if len(pieces) == 1:
            return encode(*pieces[0])[np.argsort(order)]
        with cores.taken():
            found = cores.each(lambda piece: encode(*piece), pieces)
        return np.concatenate(found)[np.argsort(order)]

    def model(texts: tuple[Ints, ...], lengths: tuple[Ints, ...]) -> Floats:
        parts = [states(*column) for column in zip(texts, lengths, strict=True)]
        if len(parts) == 2:
            one, two = parts
            parts += [np.abs(one - two), one * two]
        hidden: Floats = np.concatenate(parts, axis=1)
        for number, (weight, bias) in enumerate(linear):
            hidden = (np.maximum(hidden, 0) if number else hidden) @ weight + bias
        return hidden

    return model


def onnx_model(name: str, task: Task, encode: str, layers: Sequence[str], values: Mapping[str, Any]) -> Graph:
    """Build a model from statements in ONNX's own notation (https://onnx.ai/onnx/repo-docs/Syntax.html).

    The statements find the values by their names, with ``_`` for each dot, and in place of ``embedding.trained.weight``
    and ``embedding.frozen.weight`` their ``word_vectors`` as ``vectors``.

    Args:
        name: The graph's name.
        task: The task.
        encode: Statements that make ``states#``, ``[batch, size]``, of ``words#`` and ``lengths#``; a ``#`` stands for
            the text column. There is also ``present#``, ``float32 [batch, time]``: 1 for each word, 0 beyond a text's
            end; and ``axis``, which is ``[1]``.
        layers: The linear layers that make logits of states by their names, with a ReLU between them.
        values: The trained model's weights, and what other constants there are.

    Raises:
        onnx.parser.ParseError: A statement cannot be read.
        onnx.checker.ValidationError: The statements do not fit together, or not the values.
    """
    from onnx import checker, numpy_helper, parser

    columns = ("",) if task.kind == "single" else ("1", "2")
    statements = "".join((_PRESENT + encode).replace("#", column) for column in columns)
    model = parser.parse_model(
        _MODEL.format(
            name=name,
            inputs=", ".join(_INPUTS.replace("#", column) for column in columns),
            outputs=task.outputs,
            statements=statements + (_PAIR if task.kind == "pair" else "") + _linear(layers),
        )
    )
    constants = {key.replace(".", "_"): value for key, value in values.items() if not key.startswith("embedding.")}
    if len(constants) < len(values):
        constants["vectors"] = word_vectors(values)
    for key, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), key))
    checker.check_model(model, full_check=True)
    return model


def _linear(layers: Sequence[str]) -> str:
    *inner, last = (name.replace(".", "_") for name in layers)
    text, given = "", "states"
    for name in inner:
        text += f"sum_{name} = Gemm <transB = 1> ({given}, {name}_weight, {name}_bias)\n"
        given = f"positive_{name}"
        text += f"{given} = Relu (sum_{name})\n"
    return f"{text}logits = Gemm <transB = 1> ({given}, {last}_weight, {last}_bias)"
