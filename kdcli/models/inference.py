"""Trained models without torch, for student plugins: in NumPy for their ``fast``, as a graph for their ``to_onnx``.

A plugin says how a text becomes a state. The rest is here: the states of a pair are compared as [h1, h2, |h1 - h2|,
h1 * h2], and linear layers make logits of them (Tang et al. 2019, section 3.1).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from kdcli.api import Task
from kdcli.errors import DataError

if TYPE_CHECKING:
    import onnx

Floats = NDArray[np.float32]
"""Values of a model."""
Ints = NDArray[Any]
"""Word ids or lengths: integers of any size."""
Weights = Mapping[str, Floats]
"""A trained model's, by the names of its ``state_dict``."""
Model = Callable[[tuple[Ints, ...], tuple[Ints, ...]], Floats]
"""Words ``[batch, time]`` and lengths ``[batch]`` of each text column to logits ``[batch, outputs]``."""
Graph: TypeAlias = "onnx.ModelProto"
"""A model for ONNX runtimes."""
Job = TypeVar("Job")
Result = TypeVar("Result")

_ONE_CALLER = Lock()
_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_DAMAGED = "copy the file again, or train the student again"

_MODEL = """<ir_version: 8, opset_import: ["": 17], producer_name: "kd">
{name} ({inputs}) => (float[batch, {outputs}] logits) {{
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    axis = Constant <value_ints = [1]> ()
    {statements}
}}"""  # versions of 2022, which runtimes of all kinds read
_INPUTS = "int64[batch, time#] words#, int64[batch] lengths#"
# One encoder reads both texts of a pair as one batch: of two that share their weights onnxruntime's quantisation makes
# a graph that does not run.
_STACK = """
    time1 = Shape <start = 1> (words1)
    time2 = Shape <start = 1> (words2)
    longest = Max (time1, time2)
    nothing = Constant <value_ints = [0, 0, 0]> ()
    missing1 = Sub (longest, time1)
    missing2 = Sub (longest, time2)
    padding1 = Concat <axis = 0> (nothing, missing1)
    padding2 = Concat <axis = 0> (nothing, missing2)
    padded1 = Pad (words1, padding1)
    padded2 = Pad (words2, padding2)
    words = Concat <axis = 0> (padded1, padded2)
    lengths = Concat <axis = 0> (lengths1, lengths2)
"""
_PRESENT = """
    shape = Shape <start = 1> (words)
    time = Squeeze (shape)
    places = Range (zero, time, one)
    ends = Unsqueeze (lengths, axis)
    inside = Less (places, ends)
    present = Cast <to = 1> (inside)
"""
_COMPARE = """
    states1, states2 = Split <axis = 0> (states)
    difference = Sub (states1, states2)
    distance = Abs (difference)
    agreement = Mul (states1, states2)
    compared = Concat <axis = 1> (states1, states2, distance, agreement)
"""


def read_weights(path: Path) -> dict[str, Floats]:
    """Read the weights of a model from a ``.safetensors``: float32, or converted from float16, bfloat16 or float64.

    Raises:
        DataError: Names the tensor that holds other values, or values that are not finite.
        OSError: The file cannot be read.
        safetensors.SafetensorError: It is damaged, or no such file.
    """
    weights = {}
    # The library gives them in another order each time.
    tensors: list[tuple[str, Any]] = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    for name, tensor in sorted(tensors, key=itemgetter(0)):
        kind, data = tensor["dtype"], tensor["data"]
        if kind == "BF16":  # the upper half of a float32, which NumPy has not
            values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind in _FLOATS:
            with np.errstate(over="ignore"):
                values = np.frombuffer(data, _FLOATS[kind]).astype(np.float32)
        else:
            what = f"this tensor is {kind}, and a model's weights are F32, F16, BF16 or F64"
            raise DataError(what, file=path, key=name, hint=_DAMAGED)
        # A sum costs less, and NaN and infinity stay in it; it may overflow by itself.
        with np.errstate(over="ignore"):
            total = values.sum()
        if not np.isfinite(total) and not np.isfinite(values).all():
            raise DataError("this tensor holds values that are not finite", file=path, key=name, hint=_DAMAGED)
        weights[name] = values.reshape(tensor["shape"])
    return weights


def narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Return float32 values as float16 where that changes none, others as they are; without gaps in memory."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    same = values.dtype == np.float32 and np.array_equal(half, values)
    return np.ascontiguousarray(half if same else values)


def channels(weights: Weights) -> list[Floats]:
    """Return the vectors of ``kdcli.models.embedding.Embedding``, a model's attribute ``embedding``.

    They are ``[vocabulary, size]`` for each channel, the trained first.
    """
    names = ("embedding.trained.weight", "embedding.frozen.weight")
    return [weights[name] for name in names if name in weights]


def word_vectors(weights: Weights) -> Floats:
    """Return a copy of all ``channels`` side by side, ``[vocabulary, dimension]``."""
    return np.concatenate(channels(weights), axis=1)


class Cores:
    """The cores, with a thread of ours for each: those of BLAS would wait for each other at every step."""

    def __init__(self) -> None:
        self.blas = ThreadpoolController().select(user_api="blas")
        self.count = max((library["num_threads"] for library in self.blas.info()), default=os.cpu_count() or 1)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Keep BLAS to the thread that calls it; of several callers one at a time, since this holds for the process."""
        with _ONE_CALLER, self.blas.limit(limits=1):
            yield

    def each(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """Do the jobs, in threads if there are several: NumPy releases the interpreter's lock while it computes."""
        if min(len(jobs), self.count) < 2:
            return [work(job) for job in jobs]
        # A thread begins with NumPy's own settings, not with its caller's.
        with ThreadPoolExecutor(self.count, initializer=partial(np.seterr, invalid="ignore")) as pool:
            return list(pool.map(work, jobs))


def head(layers: Sequence[str], weights: Weights) -> Callable[[Sequence[Floats]], Floats]:
    """Return a function from the states of each text column, ``[texts, size]``, to logits ``[texts, outputs]``.

    ``layers`` are the linear layers by their names, with a ReLU between them.

    Raises:
        KeyError: A layer's weights are missing.
        ValueError: The weights and biases of a layer do not fit together.
    """
    linear = [(weights[f"{name}.weight"].T, weights[f"{name}.bias"]) for name in layers]
    for name, (weight, bias) in zip(layers, linear, strict=True):
        if weight.ndim != 2 or bias.shape != weight.shape[1:]:
            raise ValueError(f"{name}.weight {list(weight.T.shape)} and {name}.bias {list(bias.shape)} do not fit")

    def logits(states: Sequence[Floats]) -> Floats:
        if len(states) == 2:
            one, two = states
            states = [one, two, np.abs(one - two), one * two]
        hidden: Floats = np.concatenate(states, axis=1)
        for number, (weight, bias) in enumerate(linear):
            hidden = (np.maximum(hidden, 0) if number else hidden) @ weight + bias
        return hidden

    return logits


def numpy_model(
    encode: Callable[[Ints, Ints], Floats], layers: Sequence[str], weights: Weights, *, words: int
) -> Model:
    """Return a model as ``fast`` of a student plugin returns it.

    Args:
        encode: Computes states ``[texts, size]``, of texts ``[texts, time]``, int64, and their lengths ``[texts]``;
            several threads call it at once, as many as BLAS would take.
        layers: See ``head``.
        weights: The trained model's.
        words: About how many words, or one text, are encoded at once: what they need should fit a core's own cache.
            Texts of similar lengths go together.

    Raises:
        KeyError: A layer's weights are missing.
    """
    cores, logits = Cores(), head(layers, weights)

    def states(texts: Ints, lengths: Ints) -> Floats:
        order = np.argsort(lengths, kind="stable")
        rows = np.split(order, np.flatnonzero(np.diff(np.cumsum(lengths[order]) // words)) + 1)
        pieces = [(texts[piece, : lengths[piece[-1]]].astype(np.int64), lengths[piece]) for piece in rows]
        if len(pieces) == 1:
            return encode(*pieces[0])[np.argsort(order)]
        with cores.taken():
            found = cores.each(lambda piece: encode(*piece), pieces)
        return np.concatenate(found)[np.argsort(order)]

    return lambda texts, lengths: logits([states(*column) for column in zip(texts, lengths, strict=True)])


def onnx_model(name: str, task: Task, encode: str, layers: Sequence[str], values: Mapping[str, Any]) -> Graph:
    """Build a model from statements in ONNX's own notation (https://onnx.ai/onnx/repo-docs/Syntax.html).

    The statements find the values by their names, with ``_`` for each dot, and in place of ``embedding.trained.weight``
    and ``embedding.frozen.weight`` their ``word_vectors`` as ``vectors``.

    Args:
        name: The graph's name.
        task: Single texts or pairs, and how many outputs.
        encode: Statements that make ``states``, ``[texts, size]``, of ``words``, ``int64 [texts, time]``, and
            ``lengths``, ``int64 [texts]``; both texts of each pair are among them. There are also ``inside``, ``bool
            [texts, time]``, and ``present``, the same as float32: 1 for each word, 0 beyond a text's end; and ``axis``,
            which is ``[1]``, ``zero`` and ``one``.
        layers: See ``head``.
        values: The trained model's weights, and other constants.

    Raises:
        onnx.parser.ParseError: A statement cannot be read.
        onnx.checker.ValidationError: The statements do not fit together, or not the values.
    """
    from onnx import checker, numpy_helper, parser

    if task.kind == "single":
        inputs, statements = _INPUTS.replace("#", ""), f"{_PRESENT}{encode}{_linear(layers, 'states')}"
    else:
        inputs = ", ".join(_INPUTS.replace("#", column) for column in "12")
        statements = f"{_STACK}{_PRESENT}{encode}{_COMPARE}{_linear(layers, 'compared')}"
    model = parser.parse_model(_MODEL.format(name=name, inputs=inputs, outputs=task.outputs, statements=statements))
    constants = {key.replace(".", "_"): value for key, value in values.items() if not key.startswith("embedding.")}
    if len(constants) < len(values):
        constants["vectors"] = word_vectors(values)
    for key, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), key))
    checker.check_model(model, full_check=True)
    return model


def _linear(layers: Sequence[str], states: str) -> str:
    *inner, last = (name.replace(".", "_") for name in layers)
    text = ""
    for name in inner:
        text += f"sum_{name} = Gemm <transB = 1> ({states}, {name}_weight, {name}_bias)\n"
        states = f"positive_{name}"
        text += f"{states} = Relu (sum_{name})\n"
    return f"{text}logits = Gemm <transB = 1> ({states}, {last}_weight, {last}_bias)"
