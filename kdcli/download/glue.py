"""The tables of GLUE: the Hub's columns in the files and columns that GLUE itself writes (gluebenchmark.com)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kdcli.download.hub import Split
from kdcli.errors import DataError

UNKNOWN = "none"
"""What stands in a column of GLUE's that the Hub has left out; GLUE writes so itself where it knows nothing."""
HIDDEN = "-"
"""A label that annotators did not agree on, as MNLI writes it."""

Columns = Mapping[str, str | None]
"""GLUE's columns in order, each with the Hub's that fills it: None where there is none."""

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


@dataclass(frozen=True)
class GlueTask:
    """How GLUE lays out a task.

    Attributes:
        train: The columns of its train table.
        test: Those of its test tables, which have no labels.
        dev: Those of its dev tables, where they are others.
        labels: The classes as its tables write them, in the Hub's order; empty where they write the number.
        splits: The Hub's split that each file holds.
        header: Whether train and dev name their columns.
        score: Whether the label is a number of three decimals.
    """

    train: Columns
    test: Columns
    dev: Columns | None = None
    labels: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(default_factory=lambda: dict(_SPLITS))
    header: bool = True
    score: bool = False

    def columns(self, name: str) -> Columns:
        """Return the columns of the file of this name."""
        if name.startswith("dev"):
            return self.dev or self.train
        return self.train if name == "train" else self.test

    def files(self, folder: str) -> dict[str, str]:
        """Return the Parquet files of each split on the Hub."""
        return {split: f"{folder}/{split}-*.parquet" for split in self.splits.values()}

    @property
    def leaves_out(self) -> bool:
        """Whether the Hub lacks columns of GLUE's tables."""
        return None in {**self.train, **self.test}.values()

    @property
    def no_header(self) -> tuple[str, ...]:
        """The files without one."""
        return () if self.header else ("train", "dev")


def _unknown(names: str) -> Columns:
    return dict.fromkeys(names.split())


_TEXT = {"sentence": "sentence"}
_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_INDEX = {"index": "idx"}
_LABEL = {"label": "label"}
_IDS: Columns = {"#1 ID": None, "#2 ID": None}
_STRINGS = {"#1 String": "sentence1", "#2 String": "sentence2"}
_MNLI_TEST = {
    **_INDEX,
    **_unknown("promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"),
    "sentence1": "premise",
    "sentence2": "hypothesis",
}
_STSB_TEST = {**_INDEX, **_unknown("genre filename year old_index source1 source2"), **_PAIR}
_QUESTION = {**_INDEX, "question": "question", "sentence": "sentence"}
_QUESTIONS = {"question1": "question1", "question2": "question2"}
_ENTAILMENT = ("entailment", "not_entailment")

TASKS = {
    "sst2": GlueTask(_TEXT | _LABEL, _INDEX | _TEXT),
    "cola": GlueTask({"source": None, **_LABEL, "mark": None, **_TEXT}, _INDEX | _TEXT, header=False),
    "mrpc": GlueTask({"Quality": "label", **_IDS, **_STRINGS}, {**_INDEX, **_IDS, **_STRINGS}),
    "stsb": GlueTask({**_STSB_TEST, "score": "label"}, _STSB_TEST, score=True),
    "qqp": GlueTask(
        {"id": "idx", **_unknown("qid1 qid2"), **_QUESTIONS, "is_duplicate": "label"}, {"id": "idx", **_QUESTIONS}
    ),
    "mnli": GlueTask(
        {**_MNLI_TEST, "label1": None, "gold_label": "label"},
        _MNLI_TEST,
        {**_MNLI_TEST, **_unknown("label1 label2 label3 label4 label5"), "gold_label": "label"},
        ("entailment", "neutral", "contradiction"),
        splits={
            "train": "train",
            "dev_matched": "validation_matched",
            "dev_mismatched": "validation_mismatched",
            "test_matched": "test_matched",
            "test_mismatched": "test_mismatched",
        },
    ),
    "qnli": GlueTask(_QUESTION | _LABEL, _QUESTION, labels=_ENTAILMENT),
    "rte": GlueTask(_INDEX | _PAIR | _LABEL, _INDEX | _PAIR, labels=_ENTAILMENT),
    "wnli": GlueTask(_INDEX | _PAIR | _LABEL, _INDEX | _PAIR),
    "ax": GlueTask({}, {**_INDEX, "sentence1": "premise", "sentence2": "hypothesis"}, splits={"diagnostic": "test"}),
}


def glue_tables(name: str, splits: Mapping[str, Split]) -> dict[str, pa.Table]:
    """Turn the Hub's splits of a task into GLUE's tables.

    Args:
        name: The task.
        splits: Its splits.

    Returns:
        The tables, all of text, by the names of their files without suffix.

    Raises:
        DataError: A column is missing, or a label is none of the task's.
    """
    task = TASKS[name]
    return {file: _table(task, splits[split], task.columns(file), split) for file, split in task.splits.items()}


def _table(task: GlueTask, split: Split, columns: Columns, where: str) -> pa.Table:
    rows = split.rows
    if "idx" not in rows.schema.names:
        rows = rows.append_column("idx", pa.array(np.arange(rows.num_rows)))
    for column in filter(None, columns.values()):
        if column not in rows.schema.names:
            hint = f"it has {', '.join(rows.schema.names)}"
            raise DataError(f"the split {where} of the dataset has no column {column!r}", key=column, hint=hint)
    nothing = pa.chunked_array([pa.repeat(pa.scalar(UNKNOWN), rows.num_rows)])
    texts = {
        name: nothing if column is None else _labels(task, split, where) if column == "label" else _text(rows[column])
        for name, column in columns.items()
    }
    return pa.table(texts)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _labels(task: GlueTask, split: Split, where: str) -> pa.ChunkedArray:
    """Write the labels as GLUE does: a class's name or number, a score's three decimals."""
    column = split.rows["label"]
    if task.score:
        return pa.chunked_array([[_score(score) for score in column.to_pylist()]], pa.string())
    if pa.types.is_string(column.type) or not task.labels:
        return _text(column)
    names = split.names or task.labels
    if set(names) != set(task.labels):
        what = f"the classes of the dataset are {', '.join(names)}, and GLUE's are {', '.join(task.labels)}"
        raise DataError(what, key="label")
    numbers = column.cast(pa.int64())
    if pc.any(pc.or_(pc.less(numbers, -1), pc.greater_equal(numbers, len(names)))).as_py():
        raise DataError(f"the split {where} of the dataset has labels that are no classes", key="label")
    return pc.take(pa.chunked_array([[HIDDEN, *names]]), pc.add(numbers, 1))


def _score(score: float) -> str:
    """Write a score as GLUE does; the Hub keeps it in 32 bits, so that 3.8 is 3.799999952..."""
    text = f"{score:.3f}"
    return text if np.float32(text) == np.float32(score) else str(np.float32(score))
