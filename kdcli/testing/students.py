"""The checks of a student: everything that its training, its folder, prediction and export rely on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, wraps
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import load, save
from torch import Tensor, nn

from kdcli.api import Batch, Task
from kdcli.testing import checks
from kdcli.testing.checks import Check, Doubt, Failure, Skip, expect, expect_close, expect_error
from kdcli.testing.processes import Kind, run_elsewhere, tiny_task

WORDS = 50
"""Words of the vocabulary, the padding included."""
DIMENSION = 8
SIZES = ((1, 1), (1, 13), (2, 5), (7, 40), (32, 2), (32, 13))
"""Rows of a batch, and words of its longest text."""
SEED = 3
VECTORS = np.random.default_rng(SEED).normal(scale=0.3, size=(WORDS, DIMENSION)).astype(np.float32)
TOLERANCE = 1e-5
"""Of float32: absolute, and relative to the logits."""


@contextmanager
def seeded(seed: int = SEED) -> Iterator[None]:
    """Seed PyTorch for the length of the block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass
class Case:
    """A student plugin with its options, a task, and initial word vectors, ``float32 [WORDS, DIMENSION]``."""

    plugin: Any
    options: Any
    task: Task
    vectors: NDArray[np.float32] = field(default_factory=VECTORS.copy)

    def __str__(self) -> str:
        kind = "single sentences" if self.task.kind == "single" else "pairs"
        return f"{kind}, scores" if self.task.is_score else f"{kind}, {self.task.outputs} classes"

    def build(self, vectors: NDArray[np.float32] | None, seed: int = SEED) -> nn.Module:
        """Build the model, as ``kd`` does after it has seeded PyTorch."""
        with seeded(seed):
            module: nn.Module = self.plugin.build(self.options, self.task, WORDS, vectors, DIMENSION)
        expect(isinstance(module, nn.Module), "build to return a torch.nn.Module", type(module).__name__)
        return module

    @cached_property
    def trained(self) -> nn.Module:
        """The model after a few updates, in evaluation mode: initial weights could hide a difference."""
        module = self.build(self.vectors).train()
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        with seeded():
            for optimizer in (torch.optim.Adam(parameters, lr=0.01), torch.optim.Adadelta(parameters)):
                for _ in range(4):
                    optimizer.zero_grad()
                    self.loss(module).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        return module.eval()

    def loss(self, module: nn.Module) -> Tensor:
        """Return the mean squared distance between the logits of many texts and random ones."""
        logits: Tensor = module(self.batch())
        targets = torch.from_numpy(np.random.default_rng(SEED).normal(size=tuple(logits.shape))).float()
        return (logits - targets).square().mean()

    def batch(self, rows: int = 64, longest: int = 12) -> Batch:
        """Return random texts, one of them with ``longest`` words; among 64 texts every word occurs."""
        random = np.random.default_rng(SEED)
        words, lengths = [], []
        for _ in self.task.columns:
            counts = random.integers(1, longest + 1, rows)
            counts[random.integers(rows)] = longest
            words.append(random.integers(1, WORDS, (rows, longest)) * (np.arange(longest) < counts[:, None]))
            lengths.append(counts)
        return Batch(tuple(map(torch.from_numpy, words)), tuple(map(torch.from_numpy, lengths)))

    def batches(self) -> list[Batch]:
        """Return batches of 1 to 32 texts of 1 to 40 words."""
        return [self.batch(*sizes) for sizes in SIZES]

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return the trained model's parameters and buffers."""
        return {name: value.detach().clone().numpy() for name, value in self.trained.state_dict().items()}

    def logits(self, batch: Batch, module: nn.Module | None = None) -> NDArray[np.float32]:
        """Return the logits of the trained model, or of another: ``float32 [batch, outputs]``."""
        module = module or self.trained
        with torch.inference_mode():
            logits: NDArray[np.float32] = module(batch).numpy()
        return logits


def arrays(batch: Batch, kind: Any = np.int64) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
    """Return a batch as arrays, words and lengths of each column."""
    return tuple(words.numpy().astype(kind) for words in batch.words), tuple(count.numpy() for count in batch.lengths)


@dataclass
class StudentSubject(checks.Subject):
    """A student under check, with a model for each kind of task that its flags promise."""

    @cached_property
    def cases(self) -> list[Case]:
        """One case for each kind of task."""
        kinds: list[Kind] = ["single", "pair"] if self.plugin.pairs else ["single"]
        both = product(kinds, (False, True) if self.plugin.scores else (False,))
        return [Case(self.plugin, self.options, tiny_task(kind, scores)) for kind, scores in both]


def for_each_case(check: Callable[[Case], None]) -> Callable[[StudentSubject], str]:
    """Turn a check of one case into a check of the student; a failure, else the first warning, names the case."""

    @wraps(check)
    def run(subject: StudentSubject) -> str:
        doubts = []
        for case in subject.cases:
            try:
                check(case)
            except Doubt as doubt:
                doubts.append(Doubt(f"{doubt.expected} ({case})", doubt.actual))
            except Failure as failure:
                raise Failure(f"{failure.expected} ({case})", failure.actual) from None
        if doubts:
            raise doubts[0]
        return "; ".join(map(str, subject.cases))

    return run


@for_each_case
def build(case: Case) -> None:
    """Build with word vectors and without, each twice after the same seed."""
    for vectors in (case.vectors, None):
        module = case.build(vectors)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        expect(bool(trained), "a module with parameters to train", "none")
        again = case.build(vectors).state_dict()
        different = [name for name, value in module.state_dict().items() if not value.equal(again[name])]
        expected = "the same weights after the same seed of PyTorch: draw with torch alone"
        expect(not different, expected, f"others in {', '.join(different)}")


@for_each_case
def output_shape(case: Case) -> None:
    """Look at the logits of batches of all sizes."""
    module = case.build(case.vectors).eval()
    for batch in case.batches():
        with torch.inference_mode():
            logits = module(batch)
        shape = [len(batch.lengths[0]), case.task.outputs]
        expected = f"float32 logits {shape}, [batch, task.outputs]"
        expect(isinstance(logits, Tensor), expected, type(logits).__name__)
        right = list(logits.shape) == shape and logits.dtype == torch.float32
        expect(right, expected, f"{logits.dtype} {list(logits.shape)}")
        expect(bool(logits.isfinite().all()), "logits that are numbers", "infinite ones or NaN")


@for_each_case
def gradient(case: Case) -> None:
    """Look for a gradient at every parameter that is trained."""
    module = case.build(case.vectors).train()
    with seeded():
        case.loss(module).backward()  # type: ignore[no-untyped-call]
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    without = [name for name, value in trained.items() if value.grad is None]
    expected = f"a gradient at each of the {len(trained)} trained parameters; freeze with requires_grad_()"
    expect(not without, expected, f"none at {', '.join(without)}")
    # A bias before a softmax, and a parameter behind a gate of 0, rightly have a gradient of 0.
    if zero := [name for name, value in trained.items() if value.grad is not None and not value.grad.to_dense().any()]:
        raise Doubt("a gradient that is not 0, unless it is meant to be", f"0 at {', '.join(zero)}")


@for_each_case
def training(case: Case) -> None:
    """Take a few steps of Adam and of AdaDelta; the initial word vectors must not change."""
    finite = np.isfinite(case.logits(case.batch())).all()
    expect(bool(finite), "logits that are numbers after 8 updates", "infinite ones or NaN")
    same = np.array_equal(case.vectors, VECTORS)
    expect(same, "the given word vectors to stay as they are: copy them", "changed ones")


@for_each_case
def deterministic(case: Case) -> None:
    """Predict twice in evaluation mode."""
    expected = "the same logits twice in evaluation mode: no dropout there"
    for batch in case.batches():
        one, again = case.logits(batch), case.logits(batch)
        expect(bool((one == again).all()), expected, f"{abs(one - again).max():.2g} apart")


@for_each_case
def every_text_counts(case: Case) -> None:
    """Give each row the text of the row before, in each text column."""
    batch = case.batch()
    for place, column in enumerate(case.task.columns):
        words, lengths = list(batch.words), list(batch.lengths)
        words[place], lengths[place] = words[place].roll(1, 0), lengths[place].roll(1)
        others = case.logits(Batch(tuple(words), tuple(lengths)))
        different = bool((others != case.logits(batch)).any())
        expect(different, f"logits that depend on {column}", "the same for other texts")


@for_each_case
def padding(case: Case) -> None:
    """Predict with more padding behind all texts, and each text alone without padding."""
    for batch in case.batches():
        padded = Batch(tuple(nn.functional.pad(words, (0, 9)) for words in batch.words), batch.lengths)
        expect_close(case.logits(padded), case.logits(batch), "padding to make no difference to logits", TOLERANCE)
        rows = []
        for row in range(len(batch.lengths[0])):
            counts = tuple(lengths[row : row + 1] for lengths in batch.lengths)
            words = tuple(ids[row : row + 1, : int(count)] for ids, count in zip(batch.words, counts, strict=True))
            rows.append(case.logits(Batch(words, counts)))
        expected = "padding and the other texts of a batch to make no difference to logits"
        expect_close(case.logits(batch), np.concatenate(rows), expected, TOLERANCE)


@for_each_case
def save_and_load(case: Case) -> None:
    """Write the weights, build again without word vectors, and read them."""
    kept = save({name: value.detach().clone().contiguous() for name, value in case.trained.state_dict().items()})
    again = case.build(None, seed=99)
    try:
        again.load_state_dict(load(kept))
    except RuntimeError as error:
        expected = "the same parameters and buffers when it is built without vectors"
        raise Failure(expected, " ".join(str(error).split())) from None
    for batch in case.batches():
        expected = "the same logits after state_dict and load_state_dict"
        expect_close(case.logits(batch, again.eval()), case.logits(batch), expected, TOLERANCE)


@for_each_case
def fast(case: Case) -> None:
    """Compare ``fast`` with the module, and try weights and words that do not fit."""
    _need(case.plugin, "fast")
    weights = case.weights()
    compute = case.plugin.fast(case.options, case.task, weights)
    for batch in case.batches():
        for kind in (np.int64, np.uint16):
            expected = f"fast to give the module's logits (words as {kind.__name__})"
            expect_close(compute(*arrays(batch, kind)), case.logits(batch), expected, TOLERANCE)

    first, *others = weights
    fewer = {name: weights[name] for name in others}
    columns = len(case.task.columns)

    def predict(found: dict[str, NDArray[Any]], word: int) -> object:
        compute = case.plugin.fast(case.options, case.task, found)
        return compute((np.full((1, 1), word),) * columns, (np.ones(1, np.int64),) * columns)

    expected = f"a KeyError or a ValueError for weights without {first}"
    expect_error(lambda: predict(fewer, 1), (LookupError, ValueError), expected)
    # `kd` tries this word when it loads a student, and takes any other error for weights of another student.
    expected = f"an IndexError for word {WORDS}, which has no vector"
    expect_error(lambda: predict(weights, WORDS), (IndexError,), expected)


def fast_without_torch(subject: StudentSubject) -> str:
    """Run ``fast`` in another process, and look for torch among its imports."""
    _need(subject.plugin, "fast")
    file = subject.folder / "weights.safetensors"
    save_file(subject.cases[0].weights(), file)
    with_torch = run_elsewhere("fast", *subject.address, str(file), json.dumps(dict(subject.table)))
    expect(not with_torch, "fast to do without torch, as `kd predict` then does", "it imports torch")
    return "no torch"


@for_each_case
def onnx_graph(case: Case) -> None:
    """Compare the graph of ``to_onnx`` with the module."""
    _need(case.plugin, "to_onnx")
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        raise Skip("onnx or onnxruntime is not installed: pip install 'kdcli[onnx]'")
    from onnxruntime import InferenceSession

    graph = case.plugin.to_onnx(case.options, case.task, case.weights())
    numbers = ("",) if case.task.kind == "single" else ("1", "2")
    names = [f"{name}{number}" for number in numbers for name in ("words", "lengths")]
    found = sorted(value.name for value in graph.graph.input)
    expect(found == sorted(names), f"a graph with the inputs {', '.join(sorted(names))}", ", ".join(found))
    session = InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in case.batches():
        inputs = [array for pair in zip(*arrays(batch), strict=True) for array in pair]
        logits = session.run(["logits"], dict(zip(names, inputs, strict=True)))[0]
        expect_close(logits, case.logits(batch), "the graph to give the module's logits", TOLERANCE)


_SEE = "docs/plugins.md, Students, and kdcli.api.StudentPlugin"
CHECKS = (
    *checks.MODULE_CHECKS,
    *checks.OPTIONS_CHECKS,
    Check(build, _SEE, (checks.options_given,)),
    Check(output_shape, _SEE, (build,)),
    *(Check(run, _SEE, (output_shape,)) for run in (gradient, training)),
    Check(deterministic, _SEE, (training,)),
    *(Check(run, _SEE, (deterministic,)) for run in (every_text_counts, padding, save_and_load)),
    *(Check(run, _SEE, (deterministic,)) for run in (fast, fast_without_torch, onnx_graph)),
    checks.PRINTS_NOTHING,
)


def _need(plugin: Any, name: str) -> None:
    if not hasattr(plugin, name):
        raise Skip(f"the plugin has no {name}")


SUBJECT = StudentSubject
