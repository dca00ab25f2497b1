"""What a plugin author imports: the contracts, and the values that pass through them. It imports nothing large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kdcli.errors import DataError, KdError, MissingError, PluginError, ProfileError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel
    from torch import Tensor, nn

__all__ = ["API_VERSION", "MASK", "Batch", "Corpus", "GeneratorSettings", "Part", "Samples", "Task"]
__all__ += ["GeneratorPlugin", "LoadedTeacher", "Sampler", "StudentPlugin", "TaggerPlugin", "TeacherPlugin"]
__all__ += ["DataError", "KdError", "MissingError", "PluginError", "ProfileError", "UsageError"]
__all__ += ["Progress", "QuietReporter", "Reporter"]

API_VERSION = 2  # of these contracts; the api_version of a plugin says which it is written for
MASK = "[MASK]"
"""The masked word in every table; a teacher reads it as its own tokenizer's mask token."""
UNKNOWN = 1
"""The word id of ``MASK`` in a ``Batch``."""


@dataclass(frozen=True)
class Task:
    """A text classification or regression task."""

    name: str  # its name, ``sst2`` for example
    kind: Literal["single", "pair"]  # one text a row, or two
    labels: tuple[str, ...]  # the classes as written in the tables, in the order of the logits; empty for scores
    names: tuple[str, ...] = ()  # a readable name for each label (``negative``, ``positive``), or empty
    score_range: tuple[float, float] | None = None  # lowest and highest score of a regression task, else None
    metric: str = "accuracy"  # the one that chooses among models, of those in the setting ``task.metric``
    more_metrics: tuple[str, ...] = ()  # further metrics of the results table
    positive: str = ""  # the label of two that F1 is about; by default the second
    multi_label: bool = False  # whether a text has any number of the labels: each output is a yes or no of its own
    thresholds: tuple[float, ...] = ()  # the probability of each label above which a multi-label model says yes

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the text columns in every table that ``kd`` writes."""
        return ("sentence",) if self.kind == "single" else ("sentence1", "sentence2")

    @property
    def outputs(self) -> int:
        """The number of logits of a row: one for each class, or a single score."""
        return len(self.labels) or 1

    @property
    def is_score(self) -> bool:
        """Whether the task predicts a number instead of a class."""
        return not self.labels


@dataclass(frozen=True)
class Batch:
    """Texts as word ids, padded with 0 on the right; 1 is ``MASK``, which stands for unknown words too."""

    words: tuple[Tensor, ...]  # one ``int64 [batch, time]`` tensor for each text column (one, or two for a pair)
    lengths: tuple[Tensor, ...]  # one ``int64 [batch]`` tensor for each text column, on the CPU, none below 1


@dataclass(frozen=True)
class Corpus:
    """The texts of a task, without labels, for a generator.

    No text is blank or holds a line end. The two texts of a pair are joined by a tab, the only one.
    """

    kind: Literal["single", "pair"]  # one text a row, or two
    train: Sequence[str]  # the texts to learn from
    dev: Sequence[str]  # the texts that choose among checkpoints
    test: Sequence[str] = ()  # the texts of the test set, for reports alone; perhaps none


@dataclass(frozen=True)
class GeneratorSettings:
    """The settings of fine-tuning and sampling."""

    options: BaseModel  # the plugin's validated options
    kind: Literal["single", "pair"]  # one text a row, or two
    seed: int  # seed of every random draw
    device: str  # ``cpu``, ``cuda``, ``cuda:N`` or ``mps``
    precision: str  # ``fp32``, ``bf16`` or ``fp16``
    resume: bool = True  # resume a killed fine-tuning
    temperature: float = 1.0  # of sampling; 1 draws from the model's own distribution
    top_k: int = 0  # draw among this many most likely tokens; 0 = all
    top_p: float = 1.0  # draw among the most likely tokens with this total probability; 1 = all
    batch_size: int | Literal["auto"] = "auto"  # texts that are sampled at once, or ``auto``


@dataclass(frozen=True)
class Part:
    """One part of the sampling: the draws ``first``, ``first + 1``, ... of all."""

    first: int  # the number of its first draw
    count: int  # how many draws it has
    seed: int  # the seed of the whole sampling; draw ``i`` depends on the seed and ``i`` alone


@dataclass(frozen=True)
class Samples:
    """The draws of a part: each is a text, or is counted as rejected."""

    texts: list[str]  # the texts, in the order of the draws; no line ends, and no tab but the one inside a pair
    rejected: Mapping[str, int]  # how many draws gave no text, by reason: ``{"no end within max_length tokens": 3}``


class StudentPlugin(Protocol):
    """The module that an entry point of the group ``kdcli.students`` names: a model and nothing else.

    ``kd`` does the rest: vocabulary, losses, training, evaluation. The module imports torch inside ``build`` only.

    Two functions of the trained model are optional. Their ``weights`` is the ``state_dict`` as ``float32`` arrays:

    - ``fast(options, task, weights)`` returns a callable that predicts without torch. It takes the words of each text
      column, integers ``[batch, time]`` padded with 0, and their lengths, integers ``[batch]``, as two tuples. It
      returns logits, ``float32 [batch, task.outputs]``, within 1e-5 of the module's. Weights that do not fit raise a
      ``KeyError`` or a ``ValueError``; a word that has no vector raises an ``IndexError``.
    - ``to_onnx(options, task, weights)`` returns an ``onnx.ModelProto`` with the inputs ``words``, ``int64 [batch,
      time]``, and ``lengths``, ``int64 [batch]`` (of pairs: ``words1, lengths1, words2, lengths2``), and the output
      ``logits``, ``float32 [batch, task.outputs]``; batch and time are dynamic.
    """

    api_version: int  # the version of the contracts that it is written for, 2
    pairs: bool  # whether it reads pairs of texts; else such a task is an error
    scores: bool  # whether it predicts scores; else such a task is an error
    Options: type[BaseModel]  # its table ``[students.NAME]`` of a profile: no unknown keys, each field described

    def build(
        self, options: BaseModel, task: Task, vocabulary_size: int, vectors: np.ndarray | None, dimension: int
    ) -> nn.Module:
        """Build the model: ``forward(batch: Batch)`` returns ``float32 [batch, task.outputs]``, whatever the padding.

        ``options`` is an instance of its own ``Options``, ``vocabulary_size`` the number of words, of which 0 is the
        padding. ``vectors`` are initial word vectors, ``float32 [vocabulary_size, dimension]``, or None for random ones
        of ``dimension`` values.
        """


class TaggerPlugin(Protocol):
    """The module that an entry point of the group ``kdcli.taggers`` names: a part-of-speech tagger."""

    api_version: int

    def tag(self, texts: Sequence[Sequence[str]]) -> list[list[str]]:
        """Give each word of each text its tag, from any set of tags; a text may have no words.

        It is deterministic, and independent of the other texts. Load data on the first call and keep it; several
        processes may tag at once. Data that is missing is a ``MissingError``.
        """


class TeacherPlugin(Protocol):
    """The module that an entry point of the group ``kdcli.teachers`` names: a classifier to distil.

    The module imports torch inside functions only. ``kdcli.models.classifier`` loads Hugging Face models. A teacher
    behind a server has a function ``estimate`` beside ``load``: docs/plugins.md, Teachers behind a server.
    """

    api_version: int  # the version of the contracts that it is written for, 2
    Options: type[BaseModel]  # its table ``[teachers.NAME]`` of a profile: no unknown keys, each field described

    def load(
        self,
        model: str,
        options: BaseModel,
        *,
        labels: tuple[str, ...],
        max_length: int,
        long_texts: Literal["cut", "mean", "max"],
        device: str,
        precision: str,
        reporter: Reporter,
    ) -> LoadedTeacher:
        """Load a teacher.

        Args:
            model: What ``teacher.model`` names: a folder or a hub name.
            options: An instance of its own ``Options``.
            labels: The names of the task's labels, as far as they are known; a teacher with names of its own keeps
                them, and kd compares.
            max_length: The longest input in its tokens; 0 = its own limit.
            long_texts: What to do with longer texts: cut them, or take the mean or the maximum over windows.
            device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            precision: ``fp32``, ``bf16`` or ``fp16``.
            reporter: Gets warnings, and the progress of long calls of ``logits``.

        Raises:
            KdError: ``DataError`` for a wrong model, ``MissingError`` for a missing model or package.
        """


class LoadedTeacher(Protocol):
    """A loaded teacher.

    Optional: ``parameters`` and ``parameters_without_embeddings``, the number of all and of those outside of embedding
    tables; ``megabytes``, the size of its weights on disk in 10^6 bytes; ``multi_label: bool | None``, see ``Task``;
    ``represent(columns, batch)``, the logits and, for each text, the mean of the last hidden states, ``float32 [texts,
    size]``, which a student can learn to predict too.
    """

    labels: tuple[str, ...]  # of its outputs, in order; empty for a score; ``LABEL_0`` and so on are no names
    max_length: int  # the longest input in its tokens; 0 = no limit
    cut: int  # how many texts were longer so far

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the logits of texts, before any sigmoid or softmax: ``float32 [texts, outputs]``.

        ``columns`` are the texts, or the first and the second texts of pairs; ``batch`` says how many to read at once.

        Raises:
            DataError: It cannot read pairs, or cannot read single texts.
            torch.OutOfMemoryError: The batch does not fit; kd may call again with a smaller one.
        """

    def fingerprint(self) -> str:
        """Return a hash of all that its answers depend on, such as its files; options, device and precision aside."""


class GeneratorPlugin(Protocol):
    """The module that an entry point of the group ``kdcli.generators`` names: it writes texts like the task's.

    The module imports torch inside functions only. ``kdcli.lm`` fine-tunes language models and samples from them.
    """

    api_version: int  # the version of the contracts that it is written for, 2
    Options: type[BaseModel]  # its table ``[generators.NAME]`` of a profile: no unknown keys, each field described

    def fine_tune(
        self, corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter
    ) -> Mapping[str, Any]:
        """Learn the task's texts, and write the best model on dev to the folder ``checkpoint``.

        The folder is new, and holds everything that ``load`` needs, and no pickle. Of the corpus dev may choose a
        checkpoint; test is for reports alone. The settings are options, device, precision and seed; with ``resume`` it
        resumes a killed call. The reporter shows the progress, and gets the learning curve.

        Returns:
            Its metrics as JSON values, ``dev_bits_per_character`` for one.

        Raises:
            KdError: ``DataError`` for wrong texts or files, ``MissingError`` for a missing model or package.
        """

    def load(self, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> Sampler:
        """Load the model that ``fine_tune`` wrote, perhaps in another process; another folder is a ``DataError``.

        The settings are those of ``fine_tune``, and how to sample: ``temperature``, ``top_k``, ``top_p``,
        ``batch_size``. The reporter gets warnings, such as of a setting that has no effect here.
        """


class Sampler(Protocol):
    """A loaded generator.

    ``bits(texts) -> float64 [texts]`` is optional: the bits that each text takes, its end included. With it ``kd``
    orders texts by nearness and rates samples.
    """

    def prefixes(self, corpus: Corpus) -> dict[str, Any]:
        """Return what samples begin with, as JSON values, such as the counts of first tokens; ``kd`` calls it once."""

    def sample(self, prefixes: Mapping[str, Any], part: Part) -> Samples:
        """Draw the texts of one part: ``part.count`` draws, texts and rejected ones together.

        The same part gives the same texts, whatever was drawn before; another part gives other texts. ``prefixes`` is
        the result of ``prefixes``, read back from JSON.
        """


class Progress(Protocol):
    """The progress of one piece of work."""

    def advance(self, steps: int = 1, **shown: float | str) -> None:
        """Count ``steps`` more units done; ``shown`` values (``loss=0.31``, ``best="0.912"``) stand beside the bar."""


class Reporter(Protocol):
    """Progress and messages for the user, on stderr."""

    def progress(self, title: str, total: int | None = None, unit: str = "rows") -> AbstractContextManager[Progress]:
        """Open a progress bar of ``total`` units (None: unknown)."""

    def info(self, message: str) -> None:
        """Print a message."""

    def warn(self, message: str) -> None:
        """Print a warning."""

    def metrics(self, stage: str, step: int, **values: float) -> None:
        """Record a point of a learning curve (``metrics.jsonl``)."""


class QuietReporter:
    """A silent reporter and progress: the default when ``kd`` is used from Python."""

    def progress(
        self, title: str, total: int | None = None, unit: str = "rows"
    ) -> AbstractContextManager[QuietReporter]:
        """Return itself as a progress that shows nothing."""
        return nullcontext(self)

    def info(self, *arguments: object, **values: object) -> None:
        """Do nothing."""

    advance = warn = metrics = info
