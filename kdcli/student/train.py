"""Training a student: distilled, or on labels alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from math import inf
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from kdcli import __version__, registry
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError
from kdcli.student.built import try_out
from kdcli.student.checkpoint import Checkpoint
from kdcli.student.examples import Examples
from kdcli.student.folder import build_student, count_parameters, save_student
from kdcli.student.loop import Training
from kdcli.student.losses import check_losses
from kdcli.student.word_vectors import Vectors


@dataclass(frozen=True)
class StudentResult:
    """What became of a student.

    Attributes:
        dev: The metrics of the best model on dev.
        updates: Updates done in all.
        best_update: After how many of them the best model stood.
        epochs: Passes over the rows, the last one possibly not whole.
        rows_per_second: Training speed of the last launch, evaluations left out.
        stopped: Why it ended: ``epochs``, ``max_steps``, ``patience`` or ``nan``.
        parameters: All parameters.
        parameters_without_embeddings: Those that are not word vectors.
        history: For each evaluation: update, epoch, mean training loss since the one before, and the dev metrics.
    """

    dev: dict[str, float]
    updates: int
    best_update: int
    epochs: float
    rows_per_second: float
    stopped: str
    parameters: int
    parameters_without_embeddings: int
    history: list[dict[str, float]]


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
    resume: bool = True,
    name: str = "student",
    reporter: Reporter | None = None,
) -> StudentResult:
    """Train a student and write its folder; the model that is best on dev is kept.

    On the CPU, a training that was killed and is called again ends with the same weights, bit by bit, as one that was
    not.

    Args:
        examples: The rows to learn from.
        dev: Labelled rows that choose the model.
        tokenizer: The vocabulary of both.
        vectors: The word vectors to begin with, or None for random ones.
        task: The task.
        settings: The student's settings.
        options: Its plugin's table of the profile.
        seed: Seed of the weights, the order of the rows and the dropout.
        device: Where to train.
        output: The folder to write.
        max_updates: Stop after so many updates, if ``settings.max_steps`` does not stop it before.
        resume: Go on where a launch with the same arguments was stopped.
        name: What the progress and the learning curve call it.
        reporter: Shows the progress, and gets the learning curve.

    Raises:
        DataError: There are no rows, or the losses need what they do not have.
        KdError: The loss became infinite or NaN before any evaluation.
        ProfileError: The losses or options make no sense.
        PluginError: The plugin is missing or broken, or its module gives no logits of this task.
    """
    reporter = reporter or QuietReporter()
    check_losses(settings, task, examples)
    if not len(examples) or not len(dev) or dev.labels is None:
        raise DataError("a student needs rows to learn from, and labelled rows for dev")
    chosen = registry.options("students", settings.model, options).model_dump(mode="json")
    versions = registry.versions("students", settings.model)  # of now: a file may be changed while it trains
    dimension = settings.dimension if vectors is None else vectors.matrix.shape[1]
    given = {
        **{f"student.{key}": value for key, value in settings.model_dump(mode="json").items()},
        **{f"students.{registry.table_name(settings.model)}.{key}": value for key, value in chosen.items()},
        "task": asdict(task),
        "seed": seed,
        "max_updates": max_updates,
        "rows": examples.digest(),
        "dev": dev.digest(),
        "vectors": None if vectors is None else blake2b(vectors.matrix.data, digest_size=16).hexdigest(),
        "device": torch.device(device).type,
        "kd": __version__,
        "torch": torch.__version__,
        **versions,
    }
    checkpoint = Checkpoint(output.with_name(f".{output.name}.resume.safetensors"), given)
    with _seeded(seed):
        matrix = None if vectors is None else vectors.matrix
        module = build_student(settings.model, chosen, task, tokenizer.get_vocab_size(), matrix, dimension).to(device)
        try_out(settings.model, module, examples, task)
        training = Training(
            module,
            examples,
            dev,
            task=task,
            settings=settings,
            seed=seed,
            limit=min((limit for limit in (settings.max_steps, max_updates) if limit), default=inf),
            checkpoint=checkpoint,
            name=name,
            reporter=reporter,
        )
        training.run(resume)
    position = training.position
    result = StudentResult(
        position.best,
        position.updates,
        position.best_update,
        training.epochs,
        training.rows / training.seconds if training.seconds else 0.0,
        training.stopped,
        *count_parameters(module),
        position.history,
    )
    config = {
        "plugin": settings.model,
        "plugin_version": versions,
        "options": chosen,
        "vocabulary_size": tokenizer.get_vocab_size(),
        "dimension": dimension,
        "max_length": settings.max_length,
        "vectors": None if vectors is None else vectors.source,
        "words_with_vectors": 0 if vectors is None else vectors.found,
        "rows": len(examples),
        "seed": seed,
        "training": settings.model_dump(mode="json"),
        "kd": __version__,
    }
    save_student(
        output, weights=training.weights, config=config, task=task, tokenizer=tokenizer, metrics=asdict(result)
    )
    checkpoint.remove()
    return result


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch for the block, and leave the caller's random state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
