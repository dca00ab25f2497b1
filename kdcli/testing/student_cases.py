"""The models that a student's checks look at: one for each kind of task that its flags promise, briefly trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdcli.api import Batch, Task
from kdcli.config.schema import StudentSettings
from kdcli.export.onnx_check import random_batches
from kdcli.student.loaded import Columns
from kdcli.student.optimizers import make_optimizer
from kdcli.testing.outcomes import expect

WORDS = 50
"""Of the vocabulary, the padding included."""
DIMENSION = 8
LONGEST = 40
SEED = 3


def given_vectors() -> NDArray[np.float32]:
    """Return word vectors as a file would bring them."""
    return np.random.default_rng(SEED).normal(scale=0.3, size=(WORDS, DIMENSION)).astype(np.float32)


@contextmanager
def seeded(seed: int = SEED) -> Iterator[None]:
    """Seed PyTorch for as long as the block lasts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass
class Case:
    """A task, and a student for it.

    Attributes:
        plugin: The student plugin.
        options: Its validated options.
        task: The task.
        vectors: What the word vectors began with, ``float32 [WORDS, DIMENSION]``.
    """

    plugin: Any
    options: Any
    task: Task
    vectors: NDArray[np.float32] = field(default_factory=given_vectors)

    def __str__(self) -> str:
        what = "scores" if self.task.is_score else f"{self.task.outputs} classes"
        return f"{'single sentences' if self.task.kind == 'single' else 'pairs'}, {what}"

    def build(self, vectors: NDArray[np.float32] | None, seed: int = SEED) -> nn.Module:
        """Build the model, as ``kd`` does after it has seeded PyTorch."""
        with seeded(seed):
            module: nn.Module = self.plugin.build(self.options, self.task, WORDS, vectors, DIMENSION)
        expect(isinstance(module, nn.Module), "build to return a torch.nn.Module", type(module).__name__)
        return module

    @cached_property
    def trained(self) -> nn.Module:
        """The model after a few updates, for prediction: what no training has touched may hide a difference."""
        module = self.build(self.vectors)
        with seeded():
            for settings in (StudentSettings(optimizer="adam", lr=0.01), StudentSettings()):
                optimizer = make_optimizer(module.train(), settings, torch.device("cpu"))
                for _ in range(4):
                    optimizer.zero_grad()
                    self.loss(module).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        return module.eval()

    def loss(self, module: nn.Module) -> Tensor:
        """Return the mean squared distance of the logits of many texts from random ones."""
        batch = self.wide_batch()
        logits: Tensor = module(batch)
        wanted = torch.from_numpy(np.random.default_rng(SEED).normal(size=tuple(logits.shape))).float()
        return (logits - wanted).square().mean()

    def wide_batch(self) -> Batch:
        """Return 64 texts in which every word occurs."""
        numbers = np.random.default_rng(SEED)
        lengths = [numbers.integers(6, 13, 64) for _ in self.task.columns]
        words = [(np.arange(64 * 12).reshape(64, 12) + place) % (WORDS - 1) + 1 for place in range(len(lengths))]
        padded = [ids * (np.arange(12) < count[:, None]) for ids, count in zip(words, lengths, strict=True)]
        return Batch(tuple(map(torch.from_numpy, padded)), tuple(map(torch.from_numpy, lengths)))

    def batches(self) -> list[Batch]:
        """Return batches of 1 to 32 texts of 1 to 40 words."""
        return list(random_batches(self.task, WORDS, LONGEST))

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return the trained model's parameters and buffers."""
        return {name: value.detach().clone().numpy() for name, value in self.trained.state_dict().items()}


def logits_of(module: nn.Module, batch: Batch) -> NDArray[np.float32]:
    """Return a module's logits, ``float32 [batch, outputs]``."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = module(batch).numpy()
    return logits


def padded(batch: Batch, more: int) -> Batch:
    """Return a batch with so much more padding behind its texts."""
    return Batch(tuple(nn.functional.pad(words, (0, more)) for words in batch.words), batch.lengths)


def moved(batch: Batch, place: int) -> Batch:
    """Return a batch in which each row has the text of the row before it in one of the text columns."""
    words, lengths = list(batch.words), list(batch.lengths)
    words[place], lengths[place] = words[place].roll(1, 0), lengths[place].roll(1)
    return Batch(tuple(words), tuple(lengths))


def rows_of(batch: Batch) -> Iterator[Batch]:
    """Return each text of a batch alone, without padding."""
    for row in range(len(batch.lengths[0])):
        counts = tuple(lengths[row : row + 1] for lengths in batch.lengths)
        words = tuple(ids[row : row + 1, : int(count)] for ids, count in zip(batch.words, counts, strict=True))
        yield Batch(words, counts)


def arrays(batch: Batch, kind: Any = np.int64) -> tuple[Columns, Columns]:
    """Return a batch as arrays, words and lengths of each column."""
    return tuple(words.numpy().astype(kind) for words in batch.words), tuple(count.numpy() for count in batch.lengths)
