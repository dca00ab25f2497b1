"""A teacher, of whatever plugin: texts in, logits in the task's order of labels out."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from kdcli import registry
from kdcli.api import LoadedTeacher, QuietReporter, Reporter, Task
from kdcli.config.schema import Settings
from kdcli.errors import DataError
from kdcli.models.classifier import are_generic
from kdcli.models.device import resolve
from kdcli.models.hf import ADAPTER
from kdcli.tasks.labels import encode_labels
from kdcli.teacher.logits import label_positions

BATCH = 64  # texts a batch by default; on a CPU larger batches are padded more and gain nothing
_TRIED = 4096  # the longest input that is tried out, in word pieces


@dataclass
class Teacher:
    """A loaded teacher of a task."""

    source: "TeacherSource"  # where it was loaded from: its model and its plugin
    task: Task  # the task
    loaded: LoadedTeacher  # the plugin's model
    outputs: list[int]  # for each label of the task, the position of its output
    read: Counter[str] = field(default_factory=Counter)  # how many texts it has read, and how many of them it has cut

    def __post_init__(self) -> None:
        """Take over what the plugin's model says of its size; 0 if it is unknown."""
        self.parameters = int(getattr(self.loaded, "parameters", 0))
        self.parameters_without_embeddings = int(getattr(self.loaded, "parameters_without_embeddings", 0))
        self.megabytes = float(getattr(self.loaded, "megabytes", 0.0))

    @property
    def saved_seconds(self) -> float:
        """The seconds that answers which were written down before took when they were asked for."""
        return float(getattr(self.loaded, "saved_seconds", 0.0))

    def logits(self, columns: Sequence[Sequence[str]], batch: int = BATCH) -> NDArray[np.float32]:
        """Return the logits ``float32 [texts, task.outputs]`` of texts, or of pairs in two columns.

        Those of a text that the teacher leaves without an answer are NaN.
        """
        if not len(columns[0]):
            return np.empty((0, self.task.outputs), np.float32)
        return self.represent(columns, batch, states=False)[0]

    def represent(
        self, columns: Sequence[Sequence[str]], batch: int = BATCH, *, states: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits of texts, and their representations ``float32 [texts, size]``; size 0 without ``states``."""
        if states and not hasattr(self.loaded, "represent"):
            what = f"the teacher plugin {self.source.plugin} gives no representation of a text"
            raise DataError(what, file=self.source.model, hint="set student.repr_weight to 0")
        name, cut, represented = self.source.plugin, self.loaded.cut, np.empty((len(columns[0]), 0), np.float32)
        with registry.blaming("teachers", name, "logits", but=(MemoryError, torch.OutOfMemoryError)):
            if states:
                found, represented = self.loaded.represent(columns, batch)  # type: ignore[attr-defined]
            else:
                found = self.loaded.logits(columns, batch)
        shape = (len(columns[0]), len(self.loaded.labels) or 1)
        if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != np.float32:
            there = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
            raise registry.breach("teachers", name, f"gives {there} for logits float32 {list(shape)}")
        finite = np.isfinite(np.concatenate([found, represented], axis=1)).all(axis=1)
        if self.source.is_remote:
            finite |= np.isnan(found).all(axis=1)  # without an answer
        if not finite.all():
            text = columns[0][int(np.argmin(finite))]
            what = f"the teacher's logits of the text {text[:80]!r} are not finite"
            hint = "try --precision fp32: fp16 overflows; where fp32 gives them too, the model's weights are broken"
            raise DataError(what, file=self.source.model, key="teacher.model", hint=hint)
        self.read.update(texts=len(found), cut=self.loaded.cut - cut)
        return found[:, self.outputs], represented

    def fit(self, texts: pl.DataFrame, reporter: Reporter) -> dict[str, Any]:
        """Let the plugin fit options of its own to texts with gold labels; return these as settings by dotted key."""
        if not (fit := getattr(self.loaded, "fit", None)):
            return {}
        columns = [texts[name].to_list() for name in self.task.columns]
        gold = encode_labels(texts["label"], self.task, file="dev")
        if not self.task.is_score:  # in the order of the plugin's outputs
            gold = gold[:, np.argsort(self.outputs)] if gold.ndim == 2 else np.array(self.outputs)[gold]
        with registry.blaming("teachers", self.source.plugin, "fit"):
            fitted: dict[str, Any] = fit(columns, gold, BATCH)
        for name, value in fitted.items():
            reporter.info(f"teacher: {name} {value}, fitted to the gold labels of {len(texts):,} dev texts")
        return {f"teachers.{self.source.plugin}.{name}": value for name, value in fitted.items()}

    def try_out(self, words: int = 0) -> None:
        """Read one text, by default of the longest input, so that what does not fit shows before long work."""
        words = words or self.loaded.max_length
        if 0 < words <= _TRIED and not self.source.is_remote:
            self.logits([["a " * words]] * len(self.task.columns), 1)
            self.read.clear()

    def warn_of_cuts(self, reporter: Reporter) -> None:
        """Warn if texts were longer than what it reads."""
        warn_of_cuts(self.read["cut"], self.read["texts"], self.loaded.max_length, self.source.long_texts, reporter)


def warn_of_cuts(cut: int, texts: int, max_length: int, long_texts: str, reporter: Reporter) -> None:
    """Warn if texts were longer than what a teacher reads."""
    if cut:
        done = "they were cut" if long_texts == "cut" else f"the {long_texts} of their windows counts"
        what = f"{cut:,} of {texts:,} texts are longer than the {max_length} word pieces that the teacher reads"
        reporter.warn(f"{what} (teacher.max_length; 0 = its own limit): {done} (teacher.long_texts)")


@dataclass(frozen=True)
class TeacherSource:
    """Where a teacher comes from, and how it reads: all that decides its logits, but for device and precision."""

    model: str  # a folder or hub name
    plugin: str = "transformers"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the plugin
    max_length: int = 0
    long_texts: str = "cut"
    answers: Path | None = None  # the file of answers of a teacher that writes them down

    @classmethod
    def of(cls, settings: Settings, model: str | Path | None = None, logits: Path | None = None) -> Self:
        """Return the teacher that settings name; ``model`` takes the place of theirs, if they fine-tune it.

        Answers are written down beside the file ``logits``.
        """
        teacher = settings.teacher
        table = settings.teachers.get(teacher.plugin, {})
        name = str(teacher.model if model is None else model)
        answers = logits and logits.with_suffix(".answers.jsonl")
        return cls(name, teacher.plugin, table, teacher.max_length, teacher.long_texts, answers)

    @property
    def unusual(self) -> dict[str, Any]:
        """What its logits depend on beside the model and the longest input, where it is not the default."""
        options = registry.effective("teachers", self.plugin, self.options)
        values = {"plugin": self.plugin, "long_texts": self.long_texts, "options": options}
        return {name: value for name, value in values.items() if value not in ("transformers", "cut", {})}

    @property
    def files(self) -> tuple[Path, ...]:
        """The folders and files of this machine that it is loaded from; the base of an adapter is one of them."""
        values = [one for value in self.options.values() for one in (value if isinstance(value, list) else [value])]
        found = [Path(name) for name in (self.model, *values) if isinstance(name, str)]
        for adapter in [path.expanduser() / ADAPTER for path in found]:
            if adapter.is_file():
                found.append(Path(json.loads(adapter.read_text("utf-8")).get("base_model_name_or_path") or ""))
        return tuple(path for path in found if path != Path() and path.expanduser().exists())

    def load(
        self, task: Task, *, device: str = "cpu", precision: str = "fp32", reporter: Reporter = QuietReporter()
    ) -> Teacher:
        """Load the teacher, match its labels to the task's, and try it out."""
        loaded = self.open(task.names or task.labels, device=device, precision=precision, reporter=reporter)
        return self.match(loaded, task, reporter)

    def match(self, loaded: LoadedTeacher, task: Task, reporter: Reporter) -> Teacher:
        """Match the labels of a loaded teacher to a task's, and try it out."""
        teacher = Teacher(self, task, loaded, _output_positions(loaded.labels, task, self.model, reporter))
        multi_label = getattr(loaded, "multi_label", None)
        if task.labels and multi_label is not None and multi_label != task.multi_label:
            kinds = "gives a text one label", "gives a text any number of labels (multi-label)"
            what = f"the teacher {kinds[multi_label]}, and a model of this task {kinds[not multi_label]}"
            hint = f"set task.multi_label = {str(multi_label).lower()}; or correct problem_type in its config.json"
            raise DataError(what, file=self.model, key="task.multi_label", hint=hint)
        teacher.try_out(1)
        return teacher

    def open(self, labels: Sequence[str], *, device: str, precision: str, reporter: Reporter) -> LoadedTeacher:
        """Load the plugin's model; ``labels`` are the names of the task's labels, as far as they are known."""
        plugin: Any = registry.load("teachers", self.plugin)
        options = registry.options("teachers", self.plugin, self.options)
        how: dict[str, Any] = {"max_length": self.max_length, "long_texts": self.long_texts}
        how |= {"device": device, "precision": precision, **({"answers": self.answers} if self.is_remote else {})}
        with registry.blaming("teachers", self.plugin, "load"):
            loaded: LoadedTeacher = plugin.load(self.model, options, labels=tuple(labels), reporter=reporter, **how)
        return loaded

    @property
    def is_remote(self) -> bool:
        """Whether it answers over the network, where each answer may have its price."""
        return hasattr(registry.load("teachers", self.plugin), "estimate")

    def estimate(self, task: Task, table: pl.DataFrame) -> dict[str, float] | None:
        """Return what the texts of a table will take, by name; None unless the teacher answers over the network."""
        if not self.is_remote:
            return None
        plugin: Any = registry.load("teachers", self.plugin)
        options = registry.options("teachers", self.plugin, self.options)
        how = {"labels": task.names or task.labels, "columns": [table[name].to_list() for name in task.columns]}
        with registry.blaming("teachers", self.plugin, "estimate"):
            found: dict[str, float] = plugin.estimate(self.model, options, answers=self.answers, **how)
        return found


def load_teacher(source: TeacherSource, task: Task, device: str, precision: str) -> Teacher:
    """Load a teacher in another process, perhaps on another machine."""
    return source.load(task, device=resolve(device), precision=precision)


def _output_positions(names: Sequence[str], task: Task, model: str, reporter: Reporter) -> list[int]:
    """Return for each label of the task the position of its output, by the names of the teacher's labels."""
    if (len(names) or 1) != task.outputs or bool(names) == task.is_score:
        what = f"the teacher has {len(names) or 1} outputs, and the task needs {task.outputs}"
        kind = "a score" if task.is_score else f"labels {', '.join(task.labels)}"
        raise DataError(what, file=model, hint=f"this task has {kind}; use a teacher fine-tuned for it")
    if task.is_score:
        return [0]
    own = [f"{label} = {name}" for label, name in zip(task.labels, task.names or task.labels, strict=True)]
    own = own if task.names else list(task.labels)
    positions = label_positions(names, task)
    if positions is None and are_generic(names):
        pairs = ", ".join(f"{name} as {label}" for name, label in zip(names, own, strict=True))
        reporter.warn(f"the teacher does not name its labels; they are read in the order of the task: {pairs}")
        return list(range(task.outputs))
    if positions is None:
        hint = f"its labels are {', '.join(names)}; set task.labels or task.names to these, or correct id2label"
        raise DataError(f"the teacher's labels are not the task's ({', '.join(own)})", file=model, hint=hint)
    if positions != sorted(positions):
        order = f"({', '.join(names)}): its outputs are put in the order of the task ({', '.join(own)})"
        reporter.warn(f"the teacher has its labels in another order {order}")
    return positions
