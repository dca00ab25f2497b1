"""The student: one class, loaded from its folder, that predicts with NumPy alone or as its PyTorch module."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save
from tokenizers import Tokenizer

from kdcli import registry
from kdcli.api import Task
from kdcli.errors import DataError, PluginError, ProfileError, UsageError, first_line
from kdcli.files import CALIBRATION
from kdcli.models.inference import read_weights
from kdcli.registry.plugin import use
from kdcli.student.config import REMAKE, Config, Metrics, checked, read_json
from kdcli.student.deferral import Calibration, WordCounts, margins
from kdcli.student.predictions import Predictions, predictions
from kdcli.student.vocabulary import FILE as TOKENIZER
from kdcli.student.vocabulary import (
    ROWS,
    Compute,
    TextEncoder,
    Texts,
    compute_batches,
    load_tokenizer,
    save_tokenizer,
    text_columns,
    unknown_words,
)
from kdcli.tasks.answers import probabilities

if TYPE_CHECKING:
    from torch import nn

FORMAT = "kd.student/2"
READABLE = (FORMAT, "kd.student/1")
WEIGHTS = "model.safetensors"
FEW = 64
"""So many texts are encoded before Polars is even imported."""


@dataclass
class Student:
    """A student, ready to predict."""

    # the best number of rows to predict a file in: texts of one part share their beginnings and ends
    part_rows: ClassVar[int] = 131_072
    task: Task
    config: Mapping[str, Any]  # ``config.json``: how it was built and trained
    metrics: Mapping[str, Any]  # ``metrics.json``: the result of its training
    tokenizer: Tokenizer
    weights: Mapping[str, NDArray[Any]]  # its parameters and buffers by name
    device: str = "cpu"
    compute: Compute | None = None  # the model as a function of word ids, where that is not the PyTorch module
    batch_rows: int | None = ROWS  # texts that are computed at once; None for as many as memory allows
    calibration: Calibration | None = None  # which texts it answers itself; None where it was not calibrated

    def logits(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return ``float32 [rows, task.outputs]`` for the text columns; ``DataError`` if a value is not finite."""
        compute = self.compute or self._module_function
        texts = [self._encode(column, self._encoder) for column in columns]
        if len(columns[0]) == 1:
            logits = compute(tuple(text.words[None] for text in texts), tuple(np.diff(text.offsets) for text in texts))
        else:
            logits = compute_batches(compute, texts, self.task.outputs, self.batch_rows)
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            text = columns[0][int(np.argmin(finite))]
            raise DataError(f"the student's logits of {text[:80]!r} are not finite", hint="train the student again")
        return logits

    def predict(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], *, defer: bool = False, agree: float | None = None
    ) -> Predictions:
        """Return a prediction for each text, or pair of texts; other values are a ``DataError``.

        One of a text without words means nothing, and is a warning. With ``defer`` each says whether it is deferred;
        ``agree`` is the agreement with the teacher to keep to, by default the one that the student was calibrated for.
        """
        columns = text_columns(texts, self.task)
        if empty := sum(not any(map(str.strip, row)) for row in zip(*columns, strict=True)):
            warnings.warn(f"{empty:,} of {len(texts):,} texts are empty: their prediction means nothing", stacklevel=2)
        logits = self.logits(columns)
        deferred = self.deferred(columns, logits, agree) if defer else np.zeros(len(logits), bool)
        found: list[Any] = predictions(logits, self.task)
        return [replace(prediction, deferred=flag) for prediction, flag in zip(found, deferred.tolist(), strict=True)]

    def word_counts(self, columns: Sequence[Sequence[str]]) -> WordCounts:
        """Count the words of texts, and those that the student does not know; here no text is cut.

        The pieces of a word outside the vocabulary count as words; those inside of it are unknown ones.
        """
        whole = copy(self._encoder)  # which shares what is cached
        whole.max_length = sys.maxsize
        counts = [unknown_words(self._encode(column, whole), whole.foreign) for column in columns]
        words, unknown = np.sum(counts, axis=0)
        return WordCounts(words, unknown / words)

    @property
    def calibrated(self) -> Calibration:
        """Which texts it answers itself; a ``DataError`` of a student that was not calibrated."""
        if self.calibration is None:
            raise DataError("this student was not calibrated, and cannot say which texts to defer", hint=_UNCALIBRATED)
        return self.calibration

    def deferred(
        self, columns: Sequence[Sequence[str]], logits: NDArray[np.float32], agree: float | None = None
    ) -> NDArray[np.bool_]:
        """Return which texts the student is too unsure of, ``bool [rows]``, given its logits of them.

        Raises:
            DataError: The student was not calibrated.
        """
        margin = margins(logits, self.word_counts(columns), self.task, self.calibrated.familiar)
        return self.calibrated.defers(margin, agree)

    def predict_proba(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Return the probability of each label, ``float64 [texts, labels]``; a student of scores has none."""
        if self.task.is_score:
            raise UsageError("this student gives scores, not probabilities", hint="predict returns them")
        return probabilities(self.logits(text_columns(texts, self.task)), self.task)

    def save(self, folder: str | Path) -> None:
        """Write the student's folder, whole or not at all."""
        from kdcli.files import atomic
        from kdcli.student.card import student_card

        binary = save({name: np.ascontiguousarray(value) for name, value in self.weights.items()})
        config = {"format": FORMAT} | {**self.config, "format": FORMAT, "task": asdict(self.task)}
        with atomic(Path(folder)) as temporary:
            temporary.mkdir()
            (temporary / WEIGHTS).write_bytes(binary)
            save_tokenizer(self.tokenizer, temporary)
            for name, content in (("config.json", config), ("metrics.json", self.metrics)):
                (temporary / name).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
            if self.calibration:
                self.calibration.save(temporary / CALIBRATION)
            card = student_card(config, self.metrics, self.task, len(binary))
            (temporary / "README.md").write_text(card, "utf-8")

    @cached_property
    def module(self) -> nn.Module:
        """The PyTorch module, in evaluation mode on the device."""
        from kdcli.student.build import load_module

        return load_module(self.config, self.task, self.weights, self.device)

    @property
    def parameters(self) -> int:
        """The number of all parameters."""
        return self._sizes[0]

    @property
    def parameters_without_embeddings(self) -> int:
        """The number of parameters that are not word vectors."""
        return self._sizes[1]

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        from kdcli.student.build import count_parameters

        return count_parameters(self.module)

    @cached_property
    def _module_function(self) -> Compute:
        from kdcli.student.build import module_function

        return module_function(self.module, self.config["plugin"])

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self.tokenizer, self.config["max_length"])

    def _encode(self, texts: Sequence[str], encoder: TextEncoder) -> Texts:
        if len(texts) > FEW:
            with suppress(ImportError):  # a file of `kd export binary` has no Polars
                import polars as pl

                return encoder.encode(pl.Series(texts, dtype=pl.String))
        return encoder.encode_few(texts)


def load_student(
    folder: str | Path, *, code: str | Path | None = None, device: str = "cpu", torch: bool = False
) -> Student:
    """Load a student: on the CPU without torch if its plugin has a NumPy form, else as its PyTorch module.

    Args:
        folder: The student's folder.
        code: The file of its plugin, for a student that was made with ``--code``; from here on ``KD_CODE`` names it.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        torch: Use the PyTorch module in any case.

    Raises:
        DataError: The folder is not a student's, or a file of it is missing, broken, or another student's.
        PluginError: Its plugin is missing or broken.
    """
    use([] if code is None else [code])
    folder = Path(folder)
    config = read_json(folder, "config.json")
    if config.get("format") not in READABLE:
        hint = f"it has format {config.get('format')!r}, and {FORMAT!r} is expected; {REMAKE}"
        raise DataError("this is not a folder of a student", file=folder / "config.json", hint=hint)
    known = checked(Config, config, folder / "config.json")
    task, vocabulary_size = known.task, known.vocabulary_size
    tokenizer = load_tokenizer(folder)
    if tokenizer.get_vocab_size() != vocabulary_size:
        what = f"this tokenizer has {tokenizer.get_vocab_size()} words, and the student has {vocabulary_size}"
        raise DataError(what, file=folder / TOKENIZER, hint=_FOREIGN)
    _check_plugin(config, folder)
    metrics, weights = read_json(folder, "metrics.json"), folder / WEIGHTS
    checked(Metrics, metrics, folder / "metrics.json")
    try:
        student = Student(task, config, metrics, tokenizer, read_weights(weights), device)
        student.calibration = Calibration.load(folder / CALIBRATION)
        if torch or device != "cpu" or not hasattr(registry.load("students", config["plugin"]), "fast"):
            _ = student.module  # whose weights are checked as it is built
        else:
            student.compute, student.batch_rows = _numpy_form(student), None
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        hint = _FOREIGN if weights.exists() else REMAKE
        raise DataError(f"the weights cannot be read: {first_line(error)}", file=weights, hint=hint) from error
    except ProfileError as error:
        raise DataError(error.what, file=folder / "config.json", key=error.key, hint=REMAKE) from error
    return student


def _numpy_form(student: Student) -> Compute:
    """Return the plugin's NumPy form; weights that do not fit are a ``LookupError`` or a ``ValueError``."""
    name, config = student.config["plugin"], student.config
    options, plugin = registry.options("students", name, config["options"]), cast(Any, registry.load("students", name))
    texts, size = len(student.task.columns), config["vocabulary_size"]

    def shape_at(word: int) -> tuple[int, ...]:
        return compute((np.array([[word]]),) * texts, (np.ones(1, np.int64),) * texts).shape

    with registry.blaming("students", name, "fast", but=(LookupError, ValueError)):
        # Matrix products of some processors flag an invalid value in the room that they pad a matrix with.
        compute: Compute = np.errstate(invalid="ignore")(plugin.fast(options, student.task, student.weights))
        # The last word of the vocabulary, and one beyond it: weights of another student show at once.
        found = shape_at(size - 1)
        if found != (1, student.task.outputs):
            raise ValueError(f"they give logits of shape {found}, and the task has {student.task.outputs}")
        with suppress(IndexError):
            shape_at(size)
            raise ValueError(f"they have vectors of more words than the {size} of the vocabulary")
    return registry.blaming("students", name, "fast")(compute)


def _check_plugin(config: Mapping[str, Any], folder: Path) -> None:
    """Check that the plugin is there; warn if its file has changed since the student was trained."""
    distribution, version = next(iter(config.get("plugin_version", {}).items()), ("", ""))
    try:
        registry.find("students", config["plugin"])
    except PluginError as error:
        hint = error.hint
        if distribution.endswith(".py"):
            hint = f"the student was made with --code {distribution}: add that, with the file's path; "
            hint += f'in Python, load_student(folder, code="{distribution}"), or set KD_CODE'
        elif distribution and not any(metadata.distributions(name=distribution)):
            hint = f"the student was made with {distribution} {version}: pip install {distribution}"
        raise PluginError(error.what, file=folder / "config.json", hint=hint) from error
    now = registry.versions("students", config["plugin"]).get(distribution, version)
    if distribution.endswith(".py") and now != version:
        registry.warn(f"{distribution} has changed since the student in {folder} was trained: {version} -> {now}")


_UNCALIBRATED = (
    "`kd distil` calibrates on texts that it holds out, from 5,000 texts on; for another run with a test table: "
    "kd run-all --set deferral.calibrate=true"
)
_FOREIGN = "it may come from another student, or be cut: copy the folder again, or train the student again"
