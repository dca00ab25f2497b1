"""The facts of GLUE (Wang et al. 2019): column layouts, label spellings, the Hub's columns, submission files.

No other module knows GLUE. The layouts are those that GLUE's own tables, the Hub, and d-bert have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

UNKNOWN = "none"
"""The text in a column that the Hub leaves out; GLUE itself writes it where it knows no value."""
HIDDEN = "-"
"""MNLI's label where the annotators did not agree."""
HIDDEN_NUMBER = "-1"
"""The Hub's label in test tables, whose labels GLUE keeps back."""
PARTS = ("", "_matched", "_mismatched")
"""MNLI has two tables for dev and for test: of the genres that it was trained on, and of others."""


@dataclass(frozen=True)
class Layout:
    """A known table: its tasks, text columns and possible label columns; ``width`` columns where it has no header."""

    names: tuple[str, ...]
    kind: Literal["single", "pair"]
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    width: int = 0


LAYOUTS = (
    Layout(("mrpc",), "pair", ("#1 String", "#2 String"), ("Quality",)),
    Layout(("qqp",), "pair", ("question1", "question2"), ("is_duplicate", "label")),
    Layout(("qnli",), "pair", ("question", "sentence"), ("label",)),
    Layout(("mnli", "ax"), "pair", ("sentence1", "sentence2"), ("gold_label",)),
    Layout(("stsb",), "pair", ("sentence1", "sentence2"), ("score",)),
    Layout(("rte", "wnli", "mrpc", "stsb"), "pair", ("sentence1", "sentence2"), ("label",)),
    Layout(("mnli", "ax"), "pair", ("premise", "hypothesis"), ("label", "gold_label")),
    Layout(("ax",), "pair", ("Premise", "Hypothesis"), ("Label",)),
    Layout(("sst2", "cola"), "single", ("sentence",), ("label",)),
    Layout(("sst2",), "single", ("content",), ("label",)),
    Layout(("imdb",), "single", ("text",), ("label",)),
    Layout(("imdb",), "single", ("review",), ("sentiment",)),
)
"""Tables with a header. Of two with the same texts, the first whose label column is there applies."""

HEADLESS = (
    Layout(("sst2",), "single", ("c0",), ("c1",), 2),
    Layout(("sst2",), "single", ("c1",), ("c0",), 2),
    Layout(("cola",), "single", ("c3",), ("c1",), 4),
    Layout(("rte", "wnli"), "pair", ("c0", "c1"), ("c2",), 3),
    Layout(("rte", "wnli"), "pair", ("c1", "c2"), ("c0",), 3),
    Layout(("stsb",), "pair", ("c7", "c8"), ("c9",), 10),
    Layout(("stsb",), "pair", ("c5", "c6"), ("c4",), 7),
)
"""Tables without a header, distinguished by the number of columns and the column of the labels."""

INDEX_COLUMNS = ("index", "idx", "id")
LAYOUT_NAMES = sorted({name for layout in (*LAYOUTS, *HEADLESS) for name in layout.names})

Columns = Mapping[str, str | None]
"""GLUE's columns in order, each with the Hub's column that fills it; None where the Hub has none."""


@dataclass(frozen=True)
class GlueTask:
    """A task of GLUE."""

    train: Columns  # the columns of its train table
    test: Columns  # the columns of its test tables, which have no labels
    dev: Columns | None = None  # the columns of its dev tables, where they differ from train's
    # the classes as GLUE's tables and submissions write them, in the Hub's order; empty for a score
    labels: tuple[str, ...] = ("0", "1")
    # the Hub's split for each file
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "dev": "validation", "test": "test"})
    header: bool = True  # whether train and dev have a header
    submission: Mapping[str, str] = field(default_factory=dict)  # the file to submit for each test table

    @property
    def score(self) -> bool:
        """Whether the label is a number of three decimals."""
        return not self.labels

    @property
    def numbers(self) -> bool:
        """Whether GLUE writes the classes by their numbers."""
        return all(label.isdecimal() for label in self.labels)

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
        """The files without a header."""
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
_ENTAILED = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")

TASKS = {
    "cola": GlueTask(
        {"source": None, **_LABEL, "mark": None, **_TEXT},
        _INDEX | _TEXT,
        header=False,
        submission={"test": "CoLA.tsv"},
    ),
    "sst2": GlueTask(_TEXT | _LABEL, _INDEX | _TEXT, submission={"test": "SST-2.tsv"}),
    "mrpc": GlueTask(
        {"Quality": "label", **_IDS, **_STRINGS}, {**_INDEX, **_IDS, **_STRINGS}, submission={"test": "MRPC.tsv"}
    ),
    "stsb": GlueTask({**_STSB_TEST, "score": "label"}, _STSB_TEST, labels=(), submission={"test": "STS-B.tsv"}),
    "qqp": GlueTask(
        {"id": "idx", **_unknown("qid1 qid2"), **_QUESTIONS, "is_duplicate": "label"},
        {"id": "idx", **_QUESTIONS},
        submission={"test": "QQP.tsv"},
    ),
    "mnli": GlueTask(
        {**_MNLI_TEST, "label1": None, "gold_label": "label"},
        _MNLI_TEST,
        {**_MNLI_TEST, **_unknown("label1 label2 label3 label4 label5"), "gold_label": "label"},
        labels=_NLI,
        splits={
            "train": "train",
            "dev_matched": "validation_matched",
            "dev_mismatched": "validation_mismatched",
            "test_matched": "test_matched",
            "test_mismatched": "test_mismatched",
        },
        submission={"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
    ),
    "qnli": GlueTask(_QUESTION | _LABEL, _QUESTION, labels=_ENTAILED, submission={"test": "QNLI.tsv"}),
    "rte": GlueTask(_INDEX | _PAIR | _LABEL, _INDEX | _PAIR, labels=_ENTAILED, submission={"test": "RTE.tsv"}),
    "wnli": GlueTask(_INDEX | _PAIR | _LABEL, _INDEX | _PAIR, submission={"test": "WNLI.tsv"}),
    "ax": GlueTask(
        {},
        {**_INDEX, "sentence1": "premise", "sentence2": "hypothesis"},
        labels=_NLI,
        splits={"diagnostic": "test"},
        submission={"test": "AX.tsv"},
    ),
}
"""By the name of the task."""
