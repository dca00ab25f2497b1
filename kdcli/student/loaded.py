"""A student, ready to predict: without torch, where its plugin can do without."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from kdcli import registry
from kdcli.api import Task
from kdcli.errors import DataError, PluginError, first_line
from kdcli.registry import code_files
from kdcli.student.answers import Prediction, Score, columns_of, predictions
from kdcli.student.vocabulary import FILE as TOKENIZER
from kdcli.student.vocabulary import TextEncoder, Texts, load_tokenizer, spans
from kdcli.tables.strings import strings

if TYPE_CHECKING:
    from kdcli.student.folder import LoadedStudent

FORMAT = "kd.student/1"
WEIGHTS = "model.safetensors"
CELLS = 1 << 22
"""The largest padded batch, in words: a bound on memory. Texts that begin or end alike are cheapest together."""
FEW = 64
"""Texts that are encoded sooner one by one than Arrow's functions are imported, and pandas with them."""

Columns = tuple[NDArray[Any], ...]
Fast = Callable[[Columns, Columns], NDArray[np.float32]]
"""What a plugin's ``fast`` returns: words and lengths of each text column to logits, see ``kdcli.api.Student``."""


@dataclass(frozen=True)
class Contents:
    """What lies in a student's folder beside its weights.

    Attributes:
        task: Its task.
        config: ``config.json``: how it was built and trained.
        metrics: ``metrics.json``: the result of its training.
        tokenizer: Its vocabulary.
    """

    task: Task
    config: dict[str, Any]
    metrics: dict[str, Any]
    tokenizer: Tokenizer


@dataclass(frozen=True)
class FastStudent:
    """A student that predicts without torch.

    Attributes:
        task: Its task.
        config: ``config.json``: how it was built and trained.
        metrics: ``metrics.json``: the result of its training.
        tokenizer: Its vocabulary.
        compute: Words and lengths of each text column to logits.
        part_rows: Rows that a file is best predicted in: the more, the more beginnings and ends texts share.
    """

    part_rows: ClassVar[int] = 131_072
    task: Task
    config: dict[str, Any]
    metrics: dict[str, Any]
    tokenizer: Tokenizer
    compute: Fast

    def logits(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return ``float32 [rows, task.outputs]`` for the text columns."""
        if [len(column) for column in columns] == [1] * len(self.task.columns):
            return self._one([column[0] for column in columns])
        texts = [self._encode(column) for column in columns]
        logits = np.empty((len(columns[0]), self.task.outputs), np.float32)
        for rows in _batches(np.maximum.reduce([column.lengths for column in texts])):
            words, lengths = zip(*(_padded(column, rows) for column in texts), strict=True)
            logits[rows] = self.compute(words, lengths)
        return logits

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Prediction] | list[Score]:
        """Return a prediction for each text, or for each pair of texts.

        Raises:
            DataError: They are not texts, or not pairs of texts.
        """
        return predictions(self.logits(columns_of(texts, self.task)), self.task)

    def _encode(self, texts: Sequence[str]) -> Texts:
        if len(texts) > FEW:
            return self._encoder.encode(strings(texts))
        words = [self._encoder.encode_one(text) for text in texts]
        return Texts(np.array(list(chain.from_iterable(words)), np.uint32), np.cumsum([0, *map(len, words)]))

    def _one(self, texts: Sequence[str]) -> NDArray[np.float32]:
        words = [self._encoder.encode_one(text) for text in texts]
        return self.compute(
            tuple(np.array([column]) for column in words), tuple(np.array([len(column)]) for column in words)
        )

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self.tokenizer, self.config["max_length"])


def load_student(folder: str | Path, *, code: str | Path | None = None) -> FastStudent | LoadedStudent:
    """Load a student to predict on the CPU: without torch if its plugin has ``fast``, else as its PyTorch module.

    Args:
        folder: The student's folder.
        code: The file of its plugin, for a student that was made with ``--code``; the environment variable ``KD_CODE``
            may name it too, and does so from here on, also for processes that are started.

    Raises:
        DataError: The folder is not a student's, or is not whole.
        PluginError: Its plugin is missing or broken.
    """
    code_files.use([] if code is None else [code])
    folder = Path(folder)
    contents = read_folder(folder)
    plugin = contents.config["plugin"]
    fast = getattr(registry.load("students", plugin), "fast", None)
    if fast is None:
        from kdcli.student.folder import load_student as load_module

        return load_module(folder)
    weights = folder / WEIGHTS
    try:
        options, arrays = registry.options("students", plugin, contents.config["options"]), load_file(weights)
        with registry.blaming("students", plugin, "fast", but=(LookupError, ValueError)):
            compute = fast(options, contents.task, arrays)
            _try(compute, contents)
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        raise unreadable(weights, error) from error
    compute = registry.blaming("students", plugin, "fast")(compute)
    return FastStudent(contents.task, contents.config, contents.metrics, contents.tokenizer, compute)


def read_folder(folder: Path) -> Contents:
    """Read a student's folder, but for its weights.

    Raises:
        DataError: A file is missing, broken, or another student's.
        PluginError: Its plugin is not there.
    """
    config = _json(folder, "config.json")
    if config.get("format") != FORMAT:
        hint = f"it has format {config.get('format')!r}, and {FORMAT!r} is expected; {_HINT}"
        raise DataError("this is not a folder of a student", file=folder / "config.json", hint=hint)
    try:
        task = task_told(config)
        vocabulary_size, *_ = (config[key] for key in _NEEDED)
    except (AttributeError, KeyError, TypeError) as error:
        what = f"a student's config.json is not whole: {error!r}"
        raise DataError(what, file=folder / "config.json", hint=_HINT) from error
    if _json(folder, "labels.json").get("labels") != list(task.labels):
        raise DataError("these are not the labels of this student", file=folder / "labels.json", hint=_FOREIGN)
    tokenizer = load_tokenizer(folder)
    if tokenizer.get_vocab_size() != vocabulary_size:
        what = f"this tokenizer has {tokenizer.get_vocab_size()} words, and the student has {vocabulary_size}"
        raise DataError(what, file=folder / TOKENIZER, hint=_FOREIGN)
    _need_plugin(config, folder)
    return Contents(task, config, _json(folder, "metrics.json"), tokenizer)


def task_told(config: Mapping[str, Any]) -> Task:
    """Return the task that the ``config.json`` of a student, or of an exported one, tells."""
    fields = config["task"].items()
    told: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields}
    return Task(**told)


def unreadable(weights: Path, error: Exception) -> DataError:
    """Return what is to be raised where the weights of a student cannot be used."""
    hint = _FOREIGN if weights.exists() else _HINT
    return DataError(f"the weights cannot be read: {first_line(error)}", file=weights, hint=hint)


def _need_plugin(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a student whose plugin is not there, and warn of one whose file has been edited since it was trained."""
    made_with, version = next(iter(config.get("plugin_version", {}).items()), ("", ""))
    try:
        registry.find("students", config["plugin"])
    except PluginError as error:
        hint = error.hint
        if made_with.endswith(".py"):
            hint = f"the student was made with --code {made_with}: add that, with the file's place; "
            hint += f'in Python, load_student(folder, code="{made_with}"), or set KD_CODE'
        elif made_with and not _is_installed(made_with):
            hint = f"the student was made with {made_with} {version}: pip install {made_with}"
        raise PluginError(error.what, file=folder / "config.json", hint=hint) from error
    now = registry.versions("students", config["plugin"]).get(made_with, version)
    if made_with.endswith(".py") and now != version:
        registry.warn(f"{made_with} has changed since the student in {folder} was trained by it: {version} -> {now}")


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _try(compute: Fast, contents: Contents) -> None:
    """Compute the last word of the vocabulary, and one beyond it: weights of another student show at once.

    Raises:
        IndexError: They have vectors of fewer words.
        ValueError: They have vectors of more words, or another number of outputs.
    """
    size, task = contents.config["vocabulary_size"], contents.task

    def shape_at(word: int) -> tuple[int, ...]:
        words, lengths = np.array([[word]]), np.ones(1, np.int64)
        return compute((words,) * len(task.columns), (lengths,) * len(task.columns)).shape

    found = shape_at(size - 1)
    if found != (1, task.outputs):
        raise ValueError(f"they give logits of shape {found}, and the task has {task.outputs}")
    with suppress(IndexError):
        shape_at(size)
        raise ValueError(f"they have vectors of more words than the {size} of the vocabulary")


def _batches(lengths: NDArray[np.int32]) -> Iterator[NDArray[np.int64]]:
    """Cut rows, ordered by length, into batches of at most ``CELLS`` padded words, or of one row."""
    order = np.argsort(lengths, kind="stable")
    lengths, begin = lengths[order].astype(np.int64), 0
    while begin < len(order):
        cells = np.arange(1, len(order) - begin + 1) * lengths[begin:]
        end = begin + max(1, int(np.searchsorted(cells, CELLS, side="right")))
        yield order[begin:end]
        begin = end


def _padded(texts: Texts, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    begins = texts.offsets[rows]
    lengths = texts.offsets[rows + 1] - begins
    words = np.zeros((len(rows), int(lengths.max())), texts.words.dtype)
    words[np.arange(words.shape[1]) < lengths[:, None]] = texts.words[spans(begins, lengths)]
    return words, lengths


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{name} holds no object")
    except (OSError, ValueError) as error:
        raise DataError(f"this is not a folder of a student: {error}", file=folder / name, hint=_HINT) from error
    return content


_NEEDED = ("vocabulary_size", "plugin", "options", "dimension", "max_length")
_HINT = "name the folder that `kd student` has written, or have it written again"
_FOREIGN = "it may come from another student, or be cut: copy the folder again, or train the student again"
