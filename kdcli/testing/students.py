"""The checks of a student: what training, loading and prediction rely on, and do not check themselves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from kdcli.api import Batch, Task
from kdcli.testing import Kind, fast_imports_torch, tiny_task
from kdcli.testing.checks import Checks, Failure, Skip, Subject, cheap_import, expect, expect_close, loads, options

WORDS, DIMENSION = 50, 8  # of the vocabulary, the padding included; and the size of a word vector
SIZES = ((1, 13), (7, 40), (32, 2))  # rows of a batch, and words of its longest text
SEED = 3
VECTORS = np.random.default_rng(SEED).normal(scale=0.3, size=(WORDS, DIMENSION)).astype(np.float32)
TOLERANCE = 1e-5  # of float32: absolute, and relative to the logits


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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module: nn.Module = self.plugin.build(self.options, self.task, WORDS, vectors, DIMENSION)
        return module

    @cached_property
    def trained(self) -> nn.Module:
        """The model after a few updates, in evaluation mode: initial weights could hide a difference."""
        module, targets = self.build(self.vectors).train(), np.random.default_rng(SEED)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            for _ in range(8):
                optimizer.zero_grad()
                logits: Tensor = module(self.batch(64, 12))
                distances = logits - torch.from_numpy(targets.normal(size=tuple(logits.shape))).float()
                distances.square().mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return module.eval()

    @property
    def weights(self) -> dict[str, NDArray[Any]]:
        """The trained model's parameters and buffers."""
        return {name: value.detach().clone().numpy() for name, value in self.trained.state_dict().items()}

    def batch(self, rows: int, longest: int) -> Batch:
        """Return random texts, one of them with ``longest`` words; among 64 texts every word occurs."""
        random = np.random.default_rng(SEED)
        words, lengths = [], []
        for _ in self.task.columns:
            counts = random.integers(1, longest + 1, rows)
            counts[random.integers(rows)] = longest
            words.append(random.integers(1, WORDS, (rows, longest)) * (np.arange(longest) < counts[:, None]))
            lengths.append(counts)
        return Batch(tuple(map(torch.from_numpy, words)), tuple(map(torch.from_numpy, lengths)))

    @property
    def batches(self) -> list[Batch]:
        """Batches of 1 to 32 texts of 1 to 40 words."""
        return [self.batch(*sizes) for sizes in SIZES]

    def logits(self, batch: Batch, module: nn.Module | None = None) -> NDArray[np.float32]:
        """Return the logits of the trained model, or of another: ``float32 [batch, outputs]``."""
        module = module or self.trained
        with torch.inference_mode():
            logits: NDArray[np.float32] = module(batch).numpy()
        return logits


@dataclass
class StudentSubject(Subject):
    """A student under check, with a model for each kind of task that its flags promise."""

    @cached_property
    def cases(self) -> list[Case]:
        """One case for each kind of task."""
        kinds: list[Kind] = ["single", "pair"] if self.plugin.pairs else ["single"]
        both = product(kinds, (False, True) if self.plugin.scores else (False,))
        return [Case(self.plugin, self.options, tiny_task(kind, scores)) for kind, scores in both]


def for_each_case(check: Callable[[Case], None]) -> Callable[[StudentSubject], str]:
    """Turn a check of one case into a check of the student; a failure names the case."""

    @wraps(check)
    def run(subject: StudentSubject) -> str:
        for case in subject.cases:
            try:
                check(case)
            except Failure as failure:
                raise Failure(f"{failure.expected} ({case})", failure.actual) from None
        return "; ".join(map(str, subject.cases))

    return run


@for_each_case
def build(case: Case) -> None:
    """Build with word vectors and without, each twice after the same seed."""
    for vectors in (case.vectors, None):
        module, again = case.build(vectors), case.build(vectors).state_dict()
        different = [name for name, value in module.state_dict().items() if not value.equal(again[name])]
        expected = "the same weights after the same seed of PyTorch: draw with torch alone"
        expect(not different, expected, f"others in {', '.join(different)}")


@for_each_case
def training(case: Case) -> None:
    """Take a few steps of Adam; every trained parameter gets a gradient, and the given word vectors stay."""
    shape = case.logits(case.batch(64, 12)).shape
    expect(shape == (64, case.task.outputs), f"logits {[64, case.task.outputs]}, [batch, task.outputs]", list(shape))
    trained = {name: value for name, value in case.trained.named_parameters() if value.requires_grad}
    without = [name for name, value in trained.items() if value.grad is None]
    expected = f"a gradient at each of the {len(trained)} trained parameters; freeze with requires_grad_()"
    expect(not without, expected, f"none at {', '.join(without)}")
    same = np.array_equal(case.vectors, VECTORS)
    expect(same, "the given word vectors to stay as they are: copy them", "changed ones")


@for_each_case
def padding(case: Case) -> None:
    """Predict twice, with more padding behind all texts, and each text alone without padding."""
    many, expected = case.batch(64, 12), "the same logits twice in evaluation mode: no dropout there"
    expect_close(case.logits(many), case.logits(many), expected, 0)
    for batch in case.batches:
        wanted = case.logits(batch)
        padded = Batch(tuple(nn.functional.pad(words, (0, 9)) for words in batch.words), batch.lengths)
        expect_close(case.logits(padded), wanted, "padding to make no difference to logits", TOLERANCE)
        rows = []
        for row in range(len(wanted)):
            counts = tuple(lengths[row : row + 1] for lengths in batch.lengths)
            words = tuple(ids[row : row + 1, : int(count)] for ids, count in zip(batch.words, counts, strict=True))
            rows.append(case.logits(Batch(words, counts)))
        expected = "padding and the other texts of a batch to make no difference to logits"
        expect_close(wanted, np.concatenate(rows), expected, TOLERANCE)


@for_each_case
def save_and_load(case: Case) -> None:
    """Build again without word vectors, and give it the trained weights."""
    again = case.build(None, seed=99).eval()
    try:
        again.load_state_dict(case.trained.state_dict())
    except RuntimeError as error:
        expected = "the same parameters and buffers when it is built without vectors"
        raise Failure(expected, " ".join(str(error).split())) from None
    for batch in case.batches:
        expected = "the same logits after state_dict and load_state_dict"
        expect_close(case.logits(batch, again), case.logits(batch), expected, TOLERANCE)


@for_each_case
def fast(case: Case) -> None:
    """Compare ``fast`` with the module, and try weights and words that do not fit."""
    if not hasattr(case.plugin, "fast"):
        raise Skip("the plugin has no fast")
    weights = case.weights

    def predict(weights: dict[str, NDArray[Any]], batch: Batch, kind: Any = np.int64) -> Any:
        compute = case.plugin.fast(case.options, case.task, weights)
        return compute(tuple(ids.numpy().astype(kind) for ids in batch.words), tuple(n.numpy() for n in batch.lengths))

    for batch, kind in product(case.batches, (np.int64, np.uint16)):
        expected = f"fast to give the module's logits (words as {kind.__name__})"
        expect_close(predict(weights, batch, kind), case.logits(batch), expected, TOLERANCE)
    first, *others = weights
    beyond = Batch(tuple(torch.full_like(words, WORDS) for words in batch.words), batch.lengths)
    # `kd` tries a word too many when it loads a student, and takes any other error for weights of another student.
    for given, texts, kinds, expected in (
        ({name: weights[name] for name in others}, batch, (LookupError, ValueError), f"an error without {first}"),
        (weights, beyond, (IndexError,), f"an IndexError for word {WORDS}, which has no vector"),
    ):
        try:
            predict(given, texts)
        except kinds:
            continue
        raise Failure(expected, "no error")


def fast_without_torch(subject: StudentSubject) -> str:
    """Run ``fast`` in another process, and look for torch among its imports."""
    if not hasattr(subject.plugin, "fast"):
        raise Skip("the plugin has no fast")
    file = subject.folder / "weights.safetensors"
    save_file(subject.cases[0].weights, file)
    with_torch = subject.elsewhere(fast_imports_torch, str(file), dict(subject.table))
    expect(not with_torch, "fast to do without torch, as `kd predict` then does", "it imports torch")
    return "no torch"


STEPS = (loads, options, build, training)
CHECKS = Checks(StudentSubject, STEPS, (padding, save_and_load, fast, fast_without_torch, cheap_import))
