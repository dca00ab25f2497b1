"""The settings that need not be said: derived from the teacher, the columns and the texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kdcli.api import LoadedTeacher, Reporter, Task
from kdcli.config.schema import Settings
from kdcli.distillation.texts import Columns
from kdcli.errors import DataError, UsageError
from kdcli.models.classifier import are_generic
from kdcli.models.hf import find_model, load_config
from kdcli.tasks.labels import spelling_of, split_sets
from kdcli.teacher.logits import label_positions
from kdcli.teacher.model import TeacherSource

ZERO_SHOT = "zero-shot"
FEW = 2_000  # so few texts take smaller batches
_WORDS = r"\w+|[^\w\s]"
_LONGEST, _SHORTEST = 512, 8  # words that a student reads, at the most and at the least
_BATCH = 64  # texts an update, of few texts


def teacher_settings(model: str, labels: Sequence[str], settings: Settings, reporter: Reporter) -> dict[str, Any]:
    """Derive the plugin: a model of natural language inference with labels of the user's own is a zero-shot teacher."""
    found = {"teacher.model": model}
    if TeacherSource(model, settings.teacher.plugin).is_remote:  # it has no word vectors
        found |= {"student.vectors": ""}
    if not labels or settings.teacher.plugin != "transformers":
        return found
    names = load_config(find_model(model, reporter)).id2label.values()
    asked = ZERO_SHOT in settings.teachers  # its options are set
    infers = any(str(name).casefold().startswith("entail") for name in names)
    return found | ({"teacher.plugin": ZERO_SHOT} if asked or infers else {})


def task_settings(
    teacher: LoadedTeacher, wanted: Sequence[str], columns: Columns, reporter: Reporter
) -> dict[str, Any]:
    """Derive the task: the labels are the teacher's, or those wanted of one that does not name them."""
    labels = teacher.labels
    kind: dict[str, Any] = {"task.kind": "pair" if len(columns.texts) == 2 else "single"}
    if labels and getattr(teacher, "multi_label", None):
        kind |= {"task.multi_label": True, "task.metric": "micro_f1", "task.more_metrics": ["macro_f1"]}
    if not labels:
        if wanted:
            raise UsageError("the teacher gives a score, and --labels names classes", hint="leave out --labels")
        return {**kind, "task.labels": [], "task.names": [], "task.metric": "pearson"}
    if wanted and sorted(wanted) != sorted(labels):
        if not are_generic(labels) or len(wanted) != len(labels):
            what = f"the teacher's labels are {', '.join(labels)}, and --labels names {', '.join(wanted)}"
            hint = "leave out --labels, which are for a zero-shot teacher, a model of inference (NLI)"
            if are_generic(labels):
                hint = f"name all {len(labels)}; of an NLI model: --set teachers.{ZERO_SHOT}.entailment=NUMBER, from 0"
            raise UsageError(what, hint=hint)
        pairs = ", ".join(f"{own} as {name}" for own, name in zip(labels, wanted, strict=True))
        what = f"the teacher does not name its labels; they are read in their order: {pairs}"
        reporter.warn(f"{what}. Of a model of inference (NLI), set teachers.{ZERO_SHOT}.entailment")
        return {**kind, "task.labels": list(wanted)}
    if are_generic(labels):
        reporter.warn(f"the teacher does not name its labels ({', '.join(labels)}): --labels NAME,NAME names them")
    if len(columns.texts) == 1 and "entailment" in map(str.casefold, labels):
        hint = "--labels NAME,NAME asks it about classes of your own; --text2-col names the second text of a pair"
        raise UsageError("this teacher compares two texts, and there is one a row", hint=hint)
    return {**kind, "task.labels": list(labels)}


def label_settings(columns: Columns, teacher: LoadedTeacher) -> dict[str, Any]:
    """Take the file's own spelling of the teacher's labels where it differs: ``Positive`` for ``POSITIVE``."""
    labels, values = teacher.labels, _labels_in(columns, multi_label=bool(getattr(teacher, "multi_label", None)))
    if columns.label is None or not labels:
        return {}
    positions = label_positions(values.to_list(), Task("labels", "single", tuple(labels)))
    own = [values[position] for position in positions] if positions else list(labels)
    return {} if own == list(labels) else {"task.labels": own, "task.names": list(labels)}


def _labels_in(columns: Columns, *, multi_label: bool) -> pl.Series:
    values = pl.Series(columns.values, dtype=pl.String)
    return split_sets(values).explode().drop_nulls().unique(maintain_order=True) if multi_label else values


def check_labels(columns: Columns, task: Task, file: Path, reporter: Reporter) -> None:
    """Compare the labels of the first rows with the teacher's; one that it does not know is a ``DataError``."""
    if columns.label is None or task.is_score:
        return
    found = _labels_in(columns, multi_label=task.multi_label).str.strip_chars(" ")
    spelling = spelling_of(found, task)
    if unknown := [label for label in found if label not in spelling]:
        what = f"the teacher has no labels {', '.join(unknown[:5])}: it has {', '.join(task.labels)}"
        hint = "--label-col none reads no labels; a zero-shot teacher takes others with --labels"
        raise DataError(what, file=file, key=columns.label, hint=hint)
    if missing := [label for label in task.labels if label not in {spelling[one] for one in found}]:
        reporter.warn(f"{file.name}: none of the first rows has the label {', '.join(missing)}")


def student_settings(texts: pl.DataFrame, settings: Settings) -> dict[str, Any]:
    """Derive the student's longest text, which 99 of 100 texts do not exceed, and its batch, smaller of few texts."""
    longest = max(int(words.quantile(0.99, "higher") or 0) for words in _word_counts(texts))
    return {
        "student.max_length": max(_SHORTEST, min(_LONGEST, longest)),
        "student.batch_size": settings.student.batch_size if len(texts) >= FEW else _BATCH,
    }


def count_cut(texts: pl.DataFrame, longest: int) -> int:
    """Count the texts that are longer than a student reads."""
    return sum(int((words > longest).sum()) for words in _word_counts(texts))


def _word_counts(texts: pl.DataFrame) -> list[pl.Series]:
    return [count_words(texts[name]) for name in texts.columns if name != "label"]


def count_words(texts: pl.Series) -> pl.Series:
    """Count the words and signs of each text, about as a student's vocabulary cuts them."""
    return texts.str.count_matches(_WORDS)
