"""What is checked of a student: what its training, its folder, prediction and export rely on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kdcli.testing.elsewhere import elsewhere
from kdcli.testing.module_checks import Subject, module_checks, options_checks, options_given
from kdcli.testing.outcomes import Check, Failure, Skipped, expect
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

    def for_each(self, check: Callable[[Case], None]) -> str:
        """Do something with each case, and say how many they are."""
        for case in self.cases:
            check(case)
        return f"{len(self.cases)} kinds of tasks"


def build(subject: StudentSubject) -> str:
    """Build with word vectors and without."""

    def check(case: Case) -> None:
        for vectors in (case.vectors, None):
            trained = [parameter for parameter in case.build(vectors).parameters() if parameter.requires_grad]
            expect(bool(trained), f"a module with parameters to train ({case})", "none")

    subject.for_each(check)
    return "; ".join(map(str, subject.cases))


def seeded_weights(subject: StudentSubject) -> str:
    """Build twice after the same seed."""

    def check(case: Case) -> None:
        one, again = (case.build(case.vectors).state_dict() for _ in range(2))
        different = [name for name, value in one.items() if not value.equal(again[name])]
        expected = f"the same weights after the same seed of PyTorch ({case}): draw with torch alone"
        expect(not different, expected, f"others in {', '.join(different)}")

    return subject.for_each(check)


def output_shape(subject: StudentSubject) -> str:
    """Look at the logits of batches of all sizes."""
    import torch

    def check(case: Case) -> None:
        module = case.build(case.vectors).eval()
        for batch in case.batches():
            with torch.inference_mode():
                logits = module(batch)
            shape = [len(batch.lengths[0]), case.task.outputs]
            expected = f"float32 logits {shape}, [batch, task.outputs] ({case})"
            expect(isinstance(logits, torch.Tensor), expected, type(logits).__name__)
            right = list(logits.shape) == shape and logits.dtype == torch.float32
            expect(right, expected, f"{logits.dtype} {list(logits.shape)}")
            expect(bool(logits.isfinite().all()), f"logits that are numbers ({case})", "infinite ones or NaN")

    return subject.for_each(check)


def gradient(subject: StudentSubject) -> str:
    """Look whether the loss has a gradient at every parameter that is to be trained."""

    def check(case: Case) -> None:
        module = case.build(case.vectors).train()
        case.loss(module).backward()  # type: ignore[no-untyped-call]
        trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
        without = [name for name, value in trained.items() if value.grad is None or not value.grad.to_dense().any()]
        expected = f"a gradient at each of the {len(trained)} trained parameters ({case}); freeze with requires_grad_()"
        expect(not without, expected, f"none at {', '.join(without)}")

    return subject.for_each(check)


def training(subject: StudentSubject) -> str:
    """Take a few steps of Adam and of AdaDelta, and look whether the given word vectors stay what they are."""
    import numpy as np

    from kdcli.testing.student_cases import given_vectors, logits_of

    def check(case: Case) -> None:
        finite = np.isfinite(logits_of(case.trained, case.wide_batch())).all()
        expect(bool(finite), f"logits that are numbers after 8 updates ({case})", "infinite ones or NaN")
        same = (case.vectors == given_vectors()).all()
        expect(bool(same), f"the given word vectors to stay as they are ({case}): copy them", "changed ones")

    return subject.for_each(check)


def deterministic(subject: StudentSubject) -> str:
    """Predict twice in evaluation mode."""
    from kdcli.testing.student_cases import logits_of

    def check(case: Case) -> None:
        for batch in case.batches():
            one, again = logits_of(case.trained, batch), logits_of(case.trained, batch)
            expected = f"the same logits twice in evaluation mode ({case}): no dropout there"
            expect(bool((one == again).all()), expected, f"{abs(one - again).max():.2g} apart")

    return subject.for_each(check)


def padding(subject: StudentSubject) -> str:
    """Add padding behind all texts."""
    from kdcli.testing.student_cases import logits_of, padded

    def check(case: Case) -> None:
        expected = f"padding to make no difference to logits ({case})"
        for batch in case.batches():
            for more in (1, 9):
                _expect_close(logits_of(case.trained, padded(batch, more)), logits_of(case.trained, batch), expected)

    return subject.for_each(check)


def neighbours(subject: StudentSubject) -> str:
    """Predict each text alone, without padding."""
    import numpy as np

    from kdcli.testing.student_cases import logits_of, rows_of

    def check(case: Case) -> None:
        for batch in case.batches():
            if len(batch.lengths[0]) < 10:
                alone = np.concatenate([logits_of(case.trained, row) for row in rows_of(batch)])
                expected = f"the other texts of a batch to make no difference to logits ({case})"
                _expect_close(logits_of(case.trained, batch), alone, expected)

    return subject.for_each(check)


def save_and_load(subject: StudentSubject) -> str:
    """Write the weights, build again without word vectors, and read them."""
    from safetensors.torch import load, save

    from kdcli.testing.student_cases import logits_of

    def check(case: Case) -> None:
        kept = save({name: value.detach().clone().contiguous() for name, value in case.trained.state_dict().items()})
        again = case.build(None, seed=99)
        try:
            again.load_state_dict(load(kept))
        except RuntimeError as error:
            expected = f"the same parameters and buffers when it is built without vectors ({case})"
            raise Failure(expected, " ".join(str(error).split())) from None
        for batch in case.batches():
            what = f"the same logits after state_dict and load_state_dict ({case})"
            _expect_close(logits_of(again.eval(), batch), logits_of(case.trained, batch), what)

    return subject.for_each(check)


def fast(subject: StudentSubject) -> str:
    """Compare ``fast`` with the module, and try weights and words that do not fit."""
    import numpy as np

    from kdcli.testing.student_cases import WORDS, arrays, logits_of

    _need(subject, "fast")

    def check(case: Case) -> None:
        weights = case.weights()
        compute = subject.plugin.fast(subject.options, case.task, weights)
        for batch in case.batches():
            for kind in (np.int64, np.uint16):
                expected = f"fast to give the module's logits ({case}, words as {kind.__name__})"
                _expect_close(compute(*arrays(batch, kind)), logits_of(case.trained, batch), expected)
        first, *others = weights
        expected = f"a KeyError or a ValueError for weights without {first} ({case})"
        _expect_error(lambda: _run_fast(subject, case, {name: weights[name] for name in others}, 1), expected)
        expected = f"an IndexError for word {WORDS}, which has no vector ({case})"
        _expect_error(lambda: _run_fast(subject, case, weights, WORDS), expected)

    return subject.for_each(check)


def fast_without_torch(subject: StudentSubject) -> str:
    """Run ``fast`` in a process of its own, and look what it imports."""
    from safetensors.numpy import save_file

    _need(subject, "fast")
    with TemporaryDirectory(prefix="kd-check-") as folder:
        file = Path(folder) / "weights.safetensors"
        save_file(subject.cases[0].weights(), str(file))
        table, libraries = json.dumps(dict(subject.table)), json.dumps(["torch"])
        done = elsewhere("fast", *subject.address, str(file), table, libraries)
    expect(not done, "fast to do without torch, as `kd predict` then does", "it imports torch")
    return "no torch"


def onnx_graph(subject: StudentSubject) -> str:
    """Compare the graph of ``to_onnx`` with the module."""
    _need(subject, "to_onnx")
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        raise Skipped("onnx or onnxruntime is not installed: pip install 'kdcli[onnx]'")
    from kdcli.student.onnx_student import Session
    from kdcli.testing.student_cases import arrays, logits_of

    def check(case: Case) -> None:
        graph = subject.plugin.to_onnx(subject.options, case.task, case.weights())
        with TemporaryDirectory(prefix="kd-check-") as folder:
            file = Path(folder) / "model.onnx"
            file.write_bytes(graph.SerializeToString())
            session = Session(file, threads=1)
        names = sorted(value.name for value in graph.graph.input)
        numbers = ("",) if case.task.kind == "single" else ("1", "2")
        wanted = sorted(f"{name}{number}" for name in ("words", "lengths") for number in numbers)
        expect(names == wanted, f"a graph with the inputs {', '.join(wanted)} ({case})", ", ".join(names))
        for batch in case.batches():
            expected = f"the graph to give the module's logits ({case})"
            _expect_close(session(*arrays(batch)), logits_of(case.trained, batch), expected)

    return subject.for_each(check)


CHECKS: tuple[Check[Any], ...] = (
    *module_checks(),
    *options_checks(),
    Check(build, _SEE, (options_given,)),
    Check(seeded_weights, _SEE, (build,)),
    Check(output_shape, _SEE, (build,)),
    Check(gradient, _SEE, (output_shape,)),
    Check(training, _SEE, (output_shape,)),
    Check(deterministic, _SEE, (training,)),
    Check(padding, _SEE, (deterministic,)),
    Check(neighbours, _SEE, (deterministic,)),
    Check(save_and_load, _SEE, (deterministic,)),
    Check(fast, _SEE, (deterministic,)),
    Check(fast_without_torch, _SEE, (deterministic,)),
    Check(onnx_graph, _SEE, (deterministic,)),
)


def _need(subject: StudentSubject, name: str) -> None:
    if not hasattr(subject.plugin, name):
        raise Skipped(f"the plugin has no {name}")


def _run_fast(subject: StudentSubject, case: Case, weights: Any, word: int) -> None:
    """Compute one text of one word with ``fast``."""
    import numpy as np

    columns = len(case.task.columns)
    words, lengths = np.full((1, 1), word), np.ones(1, np.int64)
    subject.plugin.fast(subject.options, case.task, weights)((words,) * columns, (lengths,) * columns)


def _expect_close(found: Any, expected: Any, what: str) -> None:
    import numpy as np

    shape = getattr(found, "shape", None)
    expect(shape == expected.shape, f"{what}: shape {expected.shape}", f"{type(found).__name__} of shape {shape}")
    expect(found.dtype == np.float32, f"{what}: float32", f"{found.dtype}")
    close = np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    expect(bool(close), what, f"{np.abs(found - expected).max():.2g} of difference, more than {TOLERANCE:g}")


def _expect_error(attempt: Callable[[], None], expected: str) -> None:
    """Fail unless there is one of the errors by which ``kd`` knows weights that do not fit."""
    try:
        attempt()
    except (LookupError, ValueError):
        return
    except Exception as error:
        raise Failure(expected, f"{type(error).__name__}: {error}") from None
    raise Failure(expected, "no error")
