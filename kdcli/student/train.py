"""Training a student: distilled, or on labels alone."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from math import ceil, inf, isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.cuda import OutOfMemoryError

from kdcli import __version__, registry
from kdcli.api import UNKNOWN, QuietReporter, Reporter, Task
from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError, KdError
from kdcli.files import remove
from kdcli.models.losses import balanced_weights, warn_of_few
from kdcli.parts import RECORD, claim_folder
from kdcli.student import build
from kdcli.student.dataset import Examples
from kdcli.student.optimize import (
    FILE,
    Checkpoint,
    Position,
    Representation,
    averaged,
    clip_gradients,
    learned,
    loss_of,
    make_optimizer,
)
from kdcli.student.student import Student
from kdcli.student.vectors import Vectors
from kdcli.student.vocabulary import epoch_batches

_MANY = 1 / 3  # the share of unknown words in the dev set from which on there is a warning


@dataclass(frozen=True)
class StudentResult:
    """The result of training a student."""

    dev: dict[str, float]  # the metrics of the best model on dev
    updates: int
    best_update: int  # the update after which the best model was scored
    epochs: float  # passes over the rows, the last one possibly not whole
    rows_per_second: float  # training speed of the last launch, evaluations left out
    stopped: str  # why it ended: ``epochs``, ``max_steps``, ``patience`` or ``nan``
    parameters: int
    parameters_without_embeddings: int
    history: list[dict[str, float]]  # of each evaluation: update, epoch, mean loss since the last one, lr, dev metrics


def train_student(
    *,
    examples: Examples,
    dev: Examples,
    tokenizer: Tokenizer,
    vectors: Vectors | None,
    task: Task,
    settings: StudentSettings,
    options: Mapping[str, Any],
    seed: int,
    device: str = "cpu",
    output: Path,
    max_updates: int | None = None,
    gold: bool = True,
    resume: bool = True,
    name: str = "student",
    reporter: Reporter = QuietReporter(),
) -> StudentResult:
    """Train a student and write its folder; the model that is best on dev is kept.

    The student learns from ``examples`` and is chosen by ``dev``, both encoded by ``tokenizer``. ``options`` is the
    plugin's table of the profile, ``seed`` decides weights, the order of the rows and dropout. With ``resume`` a
    training goes on where one with the same arguments was stopped, on the CPU to the same weights, bit by bit.
    ``name`` stands in its learning curve; ``gold`` says whether the labels of dev are gold ones.

    Raises:
        DataError: There are no rows, or the losses need inputs that the rows lack.
        KdError: The loss became infinite or NaN before any evaluation.
        PluginError: The plugin is missing or broken, or its module gives no logits of this task.
    """
    if settings.kd_weight and examples.logits is None:
        raise DataError("there are no teacher's logits to distil", hint="set student.kd_weight to 0")
    if settings.ce_weight and examples.labels is None:
        raise DataError("a row has no label, and student.ce_weight is above 0", hint="set student.ce_weight to 0")
    if not len(examples) or not len(dev) or dev.labels is None:
        raise DataError("a student needs rows to learn from, and labelled rows for dev")
    unknown = fmean(float(np.mean(texts.words == UNKNOWN)) for texts in dev.texts)
    if unknown > _MANY:
        what = f"{unknown:.0%} of the words of the dev set are not in the student's vocabulary"
        reporter.warn(f"{what}: the training texts are of another kind, or student.max_size is too small")
    chosen = registry.options("students", settings.model, options).model_dump(mode="json")
    versions = registry.versions("students", settings.model)  # now: a file may be changed while it trains
    vocabulary_size = tokenizer.get_vocab_size()
    matrix, dimension = (vectors.matrix, vectors.matrix.shape[1]) if vectors else (None, settings.dimension)
    fingerprint = {
        **{f"student.{key}": value for key, value in settings.model_dump(mode="json").items()},
        **{f"students.{settings.model}.{key}": value for key, value in chosen.items()},
        "task": asdict(task),
        "seed": seed,
        "max_updates": max_updates,
        "rows": examples.digest(),
        "dev": dev.digest(),
        "vectors": None if matrix is None else blake2b(matrix.data, digest_size=16).hexdigest(),
        "device": torch.device(device).type,
        "kd": __version__,
        "torch": torch.__version__,
        **versions,
    }
    folder = output.with_name(f".{output.name}.resume")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build.build_student(settings.model, chosen, task, vocabulary_size, matrix, dimension).to(device)
        build.try_out(settings.model, module, examples, task)
        claim_folder(folder, fingerprint, [FILE], resume=resume, reporter=reporter)
        limit = min((limit for limit in (settings.max_steps, max_updates) if limit), default=inf)
        training = Training(module, examples, dev, task, settings, seed, limit, name, reporter)
        training.run(folder)
    position, best = training.position, build.round_tables(module, {**module.state_dict(), **training.weights})
    if gold and task.multi_label:
        module.load_state_dict(best)
        task, position.best = build.choose_thresholds(module, settings.model, dev, task)
    ended = training.epochs, training.rows_per_second, training.stopped, *build.count_parameters(module)
    result = StudentResult(position.best, position.updates, position.best_update, *ended, position.history)
    config = {
        "plugin": settings.model,
        "plugin_version": versions,
        "options": chosen,
        "vocabulary_size": vocabulary_size,
        "dimension": dimension,
        "max_length": settings.max_length,
        "vectors": vectors.source if vectors else None,
        "words_with_vectors": vectors.found if vectors else 0,
        "rows": len(examples),
        "seed": seed,
        "gold": gold,
        "training": {**settings.model_dump(mode="json"), "lr": settings.learning_rate},
        "kd": __version__,
    }
    weights = {name: value.numpy() for name, value in best.items()}
    Student(task, config, asdict(result), tokenizer, weights).save(output)
    remove(folder, [RECORD, FILE])
    return result


@dataclass
class Training:
    """The training loop, with a limit of updates; ``weights`` are those that the best model has learned."""

    module: nn.Module
    examples: Examples
    dev: Examples
    task: Task
    settings: StudentSettings
    seed: int
    limit: float
    name: str
    reporter: Reporter
    position: Position = field(default_factory=Position)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    stopped: str = ""
    rows_per_second: float = 0.0

    def __post_init__(self) -> None:
        self.device = next(self.module.parameters()).device
        self.average = averaged(self.module, self.settings.ema) if self.settings.ema else None
        self.scored = self.average.module if self.average else self.module
        self.representation = None
        if self.settings.repr_weight and self.examples.logits is not None:
            made = Representation(self.module, self.examples.states, self.examples.logits)
            self.representation = made.to(self.device)
        self.learning = nn.ModuleList(filter(None, [self.module, self.representation]))
        self.optimizer = make_optimizer(self.learning, self.settings, self.device)
        balanced = self.settings.class_weights == "balanced" and self.settings.ce_weight > 0
        labels = self.examples.labels if balanced else None
        weights = None if labels is None else balanced_weights(labels, self.task.outputs).to(self.device)
        self.loss = loss_of(self.settings, weights)
        self.updates = min(self.settings.epochs * ceil(len(self.examples) / self.settings.batch_size), self.limit)
        if self.examples.logits is not None:  # a baseline has no more of them than the student
            warn_of_few(int(self.updates), "student", self.reporter)
        self._evaluating = 0.0

    def run(self, folder: Path) -> None:
        """Train until an end is reached, with a checkpoint in a folder; go on from the one that is there."""
        everything = nn.ModuleList(filter(None, [self.learning, self.average]))
        self.checkpoint = Checkpoint(folder, everything, self.optimizer)
        restored = self.checkpoint.restore(self.device, self.reporter)
        if restored:
            self.weights, self.position = restored
            self.reporter.info(f"training goes on after update {self.position.updates:,}")
        position, settings = self.position, self.settings
        begin, before = time.perf_counter(), position.rows
        total = min(settings.epochs * len(self.examples), self.limit * settings.batch_size)
        self.module.train()
        with self.reporter.progress(self.name, int(total)) as progress:
            progress.advance(position.rows)
            while not self._is_over():
                batches = epoch_batches(self.examples.lengths, settings.batch_size, self.seed, position.epoch)
                for rows in batches[position.batch :]:
                    loss = self._update(rows)
                    if not isfinite(loss):
                        self._diverged(f"the loss became {loss}")
                        break
                    position.count(len(rows), loss)
                    if self._is_evaluation_due(last=position.batch == len(batches)):
                        self._evaluate()
                    best = position.best.get(self.task.metric)
                    progress.advance(len(rows), loss=loss, **({} if best is None else {"best": f"{best:.4f}"}))
                    if self._is_over():
                        break
                else:
                    position.epoch, position.batch = position.epoch + 1, 0
        seconds = time.perf_counter() - begin - self._evaluating
        self.rows_per_second = (position.rows - before) / seconds

    @property
    def epochs(self) -> float:
        """The passes over the rows."""
        return self.position.rows / len(self.examples)

    def _update(self, rows: NDArray[np.int64]) -> float:
        """Take a step from one batch and return its loss; none from a loss that is not finite."""
        self.optimizer.zero_grad()
        with self._blaming("forward"):
            logits = self.module(build.collate(self.examples, rows, self.device))
        teacher, labels, states = (
            None if array is None else torch.from_numpy(array[rows]).to(self.device)
            for array in (self.examples.logits, self.examples.labels, self.examples.states)
        )
        loss = self.loss(logits, teacher, labels)
        if self.representation and states is not None:
            loss = loss + self.settings.repr_weight * self.representation.loss(states)
        value = loss.item()
        if isfinite(value):
            with self._blaming("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            if self.settings.decay == "linear":
                for group in self.optimizer.param_groups:
                    group["lr"] = self.settings.learning_rate * (1 - self.position.updates / self.updates)
            if self.settings.clip:
                clip_gradients(self.learning.parameters(), self.settings.clip)
            self.optimizer.step()
            if self.average:
                self.average.update_parameters(self.module)
        return value

    def _is_over(self) -> bool:
        if self.settings.patience and self.position.stale >= self.settings.patience:
            self.stopped = "patience"
        elif self.position.updates >= self.limit:
            self.stopped = "max_steps"
        elif self.position.epoch >= self.settings.epochs:
            self.stopped = "epochs"
        return bool(self.stopped)

    def _is_evaluation_due(self, *, last: bool) -> bool:
        """Tell whether to score the model after this batch, which may be the last one of its epoch."""
        updates, steps = self.position.updates, self.settings.eval_steps
        if updates >= self.limit or (last and self.position.epoch + 1 == self.settings.epochs):
            return True
        return updates % steps == 0 if steps else last

    def _evaluate(self) -> None:
        """Score the model on dev, keep it if it is the best, and write the checkpoint."""
        position, begin = self.position, time.perf_counter()
        metrics = build.evaluate(self.scored, self.settings.model, self.dev, self.task)
        if not metrics or not all(value.isfinite().all() for value in self.scored.state_dict().values()):
            self._diverged("logits of dev, or weights, are not finite")
            return
        mean = position.loss / position.losses
        position.loss, position.losses = 0.0, 0
        values = {"loss": mean, "lr": self.optimizer.param_groups[0]["lr"], **metrics}
        position.history.append({"update": position.updates, "epoch": self.epochs, **values})
        if metrics[self.task.metric] > position.best.get(self.task.metric, -inf):
            position.best, position.best_update, position.stale = metrics, position.updates, 0
            self.weights = {name: value.detach().cpu().clone() for name, value in learned(self.scored).items()}
        else:
            position.stale += 1
        self.checkpoint.save(self.weights, position)
        self._evaluating += time.perf_counter() - begin
        self.reporter.metrics(self.name, position.updates, **values)

    def _diverged(self, what: str) -> None:
        what = f"{what} at update {self.position.updates + 1:,}"
        hint = "lower student.lr, or set student.clip"
        if not self.position.best:
            raise KdError(what, hint=hint)
        self.reporter.warn(
            f"{what}: stopped; the best model, of update {self.position.best_update:,}, is kept ({hint})"
        )
        self.stopped = "nan"

    def _blaming(self, inside: str) -> AbstractContextManager[None]:
        but = (OutOfMemoryError,)  # which may be the batch's fault
        return registry.blaming("students", self.settings.model, inside, but=but)
