"""What is checked of a student: what its training, its folder, prediction and export rely on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kdcli.errors import shown
from kdcli.testing.elsewhere import elsewhere
from kdcli.testing.module_checks import MODULE_CHECKS, OPTIONS_CHECKS, PRINTS_NOTHING, Subject, options_given
from kdcli.testing.outcomes import Check, Failure, Skipped, Warned, expect
from kdcli.testing.tiny import tiny_task

if TYPE_CHECKING:
    from kdcli.testing.student_cases import Case

TOLERANCE = 1e-5
"""Of float32: absolute, and relative to the logits."""
_SEE = "docs/plugins.md, Students, and kdcli.api.Student"


@dataclass
class StudentSubject(Subject):
    """A student that is checked, with a model for each kind of task that its flags promise."""

    @cached_property
    def cases(self) -> list[Case]:
        """One case for each kind of task."""
        from kdcli.testing.student_cases import Case

        tasks = [
            tiny_task(kind, scores)
            for kind in ("single", "pair")
            for scores in (False, True)
            if (kind == "single" or self.plugin.pairs) and (not scores or self.plugin.scores)
        ]
        return [Case(self.plugin, self.options, task) for task in tasks]


def of_each_case(check: Callable[[Case], None]) -> Callable[[StudentSubject], str]:
    """Make a check of a student out of one of its cases; a failure, else the first warning, names the kind of task."""

    @wraps(check)
    def run(subject: StudentSubject) -> str:
        warned = []
        for case in subject.cases:
            try:
                check(case)
            except Warned as warning:
                warned.append(Warned(f"{warning.expected} ({case})", warning.came))
            except Failure as failure:
                raise Failure(f"{failure.expected} ({case})", failure.came) from None
        if warned:
            raise warned[0]
        return f"{len(subject.cases)} kinds of tasks"

    return run


def build(subject: StudentSubject) -> str:
    """Build with word vectors and without."""

    @of_each_case
    def check(case: Case) -> None:
        for vectors in (case.vectors, None):
            trained = [parameter for parameter in case.build(vectors).parameters() if parameter.requires_grad]
            expect(bool(trained), "a module with parameters to train", "none")

    check(subject)
    return "; ".join(map(str, subject.cases))


@of_each_case
def seeded_weights(case: Case) -> None:
    """Build twice after the same seed."""
    one, again = (case.build(case.vectors).state_dict() for _ in range(2))
    different = [name for name, value in one.items() if not value.equal(again[name])]
    expected = "the same weights after the same seed of PyTorch: draw with torch alone"
    expect(not different, expected, f"others in {', '.join(different)}")


@of_each_case
def output_shape(case: Case) -> None:
    """Look at the logits of batches of all sizes."""
    import torch

    module = case.build(case.vectors).eval()
    for batch in case.batches():
        with torch.inference_mode():
            logits = module(batch)
        shape = [len(batch.lengths[0]), case.task.outputs]
        expected = f"float32 logits {shape}, [batch, task.outputs]"
        expect(isinstance(logits, torch.Tensor), expected, type(logits).__name__)
        right = list(logits.shape) == shape and logits.dtype == torch.float32
        expect(right, expected, f"{logits.dtype} {list(logits.shape)}")
        expect(bool(logits.isfinite().all()), "logits that are numbers", "infinite ones or NaN")


@of_each_case
def gradient(case: Case) -> None:
    """Look whether the loss has a gradient at every parameter that is to be trained."""
    from kdcli.testing.student_cases import seeded

    module = case.build(case.vectors).train()
    with seeded():
        case.loss(module).backward()  # type: ignore[no-untyped-call]
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    without = [name for name, value in trained.items() if value.grad is None]
    expected = f"a gradient at each of the {len(trained)} trained parameters; freeze with requires_grad_()"
    expect(not without, expected, f"none at {', '.join(without)}")
    # Right before a softmax, which takes no notice of a bias, and behind a gate that begins with 0.
    if zero := [name for name, value in trained.items() if value.grad is not None and not value.grad.to_dense().any()]:
        raise Warned("a gradient that is not 0, unless it is meant to be", f"0 at {', '.join(zero)}")


@of_each_case
def training(case: Case) -> None:
    """Take a few steps of Adam and of AdaDelta, and look whether the given word vectors stay what they are."""
    import numpy as np

    from kdcli.testing.student_cases import given_vectors, logits_of

    finite = np.isfinite(logits_of(case.trained, case.wide_batch())).all()
    expect(bool(finite), "logits that are numbers after 8 updates", "infinite ones or NaN")
    same = (case.vectors == given_vectors()).all()
    expect(bool(same), "the given word vectors to stay as they are: copy them", "changed ones")


@of_each_case
def deterministic(case: Case) -> None:
    """Predict twice in evaluation mode."""
    from kdcli.testing.student_cases import logits_of

    for batch in case.batches():
        one, again = logits_of(case.trained, batch), logits_of(case.trained, batch)
        expected = "the same logits twice in evaluation mode: no dropout there"
        expect(bool((one == again).all()), expected, f"{abs(one - again).max():.2g} apart")


@of_each_case
def every_text_counts(case: Case) -> None:
    """Give each row another text: in place of the first of a pair, and of the second."""
    from kdcli.testing.student_cases import logits_of, moved

    batch = case.wide_batch()
    logits = logits_of(case.trained, batch)
    for place, column in enumerate(case.task.columns):
        others = logits_of(case.trained, moved(batch, place))
        expect(bool((others != logits).any()), f"logits that depend on {column}", "the same for other texts")


@of_each_case
def padding(case: Case) -> None:
    """Add padding behind all texts."""
    from kdcli.testing.student_cases import logits_of, padded

    for batch in case.batches():
        for more in (1, 9):
            found = logits_of(case.trained, padded(batch, more))
            _expect_close(found, logits_of(case.trained, batch), "padding to make no difference to logits")


@of_each_case
def neighbours(case: Case) -> None:
    """Predict each text alone, without padding."""
    import numpy as np

    from kdcli.testing.student_cases import logits_of, rows_of

    for batch in case.batches():
        if len(batch.lengths[0]) < 10:
            alone = np.concatenate([logits_of(case.trained, row) for row in rows_of(batch)])
            expected = "the other texts of a batch to make no difference to logits"
            _expect_close(logits_of(case.trained, batch), alone, expected)


@of_each_case
def save_and_load(case: Case) -> None:
    """Write the weights, build again without word vectors, and read them."""
    from safetensors.torch import load, save

    from kdcli.testing.student_cases import logits_of

    kept = save({name: value.detach().clone().contiguous() for name, value in case.trained.state_dict().items()})
    again = case.build(None, seed=99)
    try:
        again.load_state_dict(load(kept))
    except RuntimeError as error:
        expected = "the same parameters and buffers when it is built without vectors"
        raise Failure(expected, " ".join(str(error).split())) from None
    for batch in case.batches():
        expected = "the same logits after state_dict and load_state_dict"
        _expect_close(logits_of(again.eval(), batch), logits_of(case.trained, batch), expected)


@of_each_case
def fast(case: Case) -> None:
    """Compare ``fast`` with the module, and try weights and words that do not fit."""
    import numpy as np

    from kdcli.testing.student_cases import WORDS, arrays, logits_of

    _need(case.plugin, "fast")
    weights = case.weights()
    compute = case.plugin.fast(case.options, case.task, weights)
    for batch in case.batches():
        for kind in (np.int64, np.uint16):
            expected = f"fast to give the module's logits (words as {kind.__name__})"
            _expect_close(compute(*arrays(batch, kind)), logits_of(case.trained, batch), expected)

    def compute_one(weights: Any, word: int) -> None:
        words, lengths = np.full((1, 1), word), np.ones(1, np.int64)
        columns = len(case.task.columns)
        case.plugin.fast(case.options, case.task, weights)((words,) * columns, (lengths,) * columns)

    first, *others = weights
    some = {name: weights[name] for name in others}
    expected = f"a KeyError or a ValueError for weights without {first}"
    _expect_error(lambda: compute_one(some, 1), expected, LookupError, ValueError)
    # `kd` tries this word, and takes any other error for weights of another student.
    expected = f"an IndexError for word {WORDS}, which has no vector"
    _expect_error(lambda: compute_one(weights, WORDS), expected, IndexError)


def fast_without_torch(subject: StudentSubject) -> str:
    """Run ``fast`` in a process of its own, and look what it imports."""
    from safetensors.numpy import save_file

    _need(subject.plugin, "fast")
    file = subject.folder / "weights.safetensors"
    save_file(subject.cases[0].weights(), file)
    with_torch = elsewhere("fast", *subject.address, str(file), json.dumps(dict(subject.table)))
    expect(not with_torch, "fast to do without torch, as `kd predict` then does", "it imports torch")
    return "no torch"


def onnx_graph(subject: StudentSubject) -> str:
    """Compare the graph of ``to_onnx`` with the module."""
    _need(subject.plugin, "to_onnx")
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        raise Skipped("onnx or onnxruntime is not installed: pip install 'kdcli[onnx]'")
    from kdcli.export.onnx_student import Session
    from kdcli.testing.student_cases import arrays, logits_of

    file = subject.folder / "model.onnx"

    @of_each_case
    def check(case: Case) -> None:
        graph = case.plugin.to_onnx(case.options, case.task, case.weights())
        file.write_bytes(graph.SerializeToString())
        session = Session(file, threads=1)
        names = sorted(value.name for value in graph.graph.input)
        numbers = ("",) if case.task.kind == "single" else ("1", "2")
        wanted = sorted(f"{name}{number}" for name in ("words", "lengths") for number in numbers)
        expect(names == wanted, f"a graph with the inputs {', '.join(wanted)}", ", ".join(names))
        for batch in case.batches():
            _expect_close(
                session(*arrays(batch)), logits_of(case.trained, batch), "the graph to give the module's logits"
            )

    return check(subject)


CHECKS: tuple[Check[Any], ...] = (
    *MODULE_CHECKS,
    *OPTIONS_CHECKS,
    Check(build, _SEE, (options_given,)),
    Check(seeded_weights, _SEE, (build,)),
    Check(output_shape, _SEE, (build,)),
    Check(gradient, _SEE, (output_shape,)),
    Check(training, _SEE, (output_shape,)),
    Check(deterministic, _SEE, (training,)),
    Check(every_text_counts, _SEE, (deterministic,)),
    Check(padding, _SEE, (deterministic,)),
    Check(neighbours, _SEE, (deterministic,)),
    Check(save_and_load, _SEE, (deterministic,)),
    Check(fast, _SEE, (deterministic,)),
    Check(fast_without_torch, _SEE, (deterministic,)),
    Check(onnx_graph, _SEE, (deterministic,)),
    PRINTS_NOTHING,
)


def _need(plugin: Any, name: str) -> None:
    if not hasattr(plugin, name):
        raise Skipped(f"the plugin has no {name}")


def _expect_close(found: Any, expected: Any, what: str) -> None:
    import numpy as np

    shape = getattr(found, "shape", None)
    expect(shape == expected.shape, f"{what}: shape {expected.shape}", f"{type(found).__name__} of shape {shape}")
    expect(found.dtype == np.float32, f"{what}: float32", f"{found.dtype}")
    close = np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    expect(bool(close), what, f"{np.abs(found - expected).max():.2g} of difference, more than {TOLERANCE:g}")


def _expect_error(attempt: Callable[[], None], expected: str, *wanted: type[Exception]) -> None:
    try:
        attempt()
    except wanted:
        return
    except Exception as error:  # whatever a plugin may do
        raise Failure(expected, shown(error)) from None
    raise Failure(expected, "no error")
