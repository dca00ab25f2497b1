"""The facts of GLUE (Wang et al. 2019): column layouts, label spellings, the Hub's columns, submission files.

No other module knows GLUE. The layouts are those that GLUE's own tables, the Hub, and d-bert have.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HIDDEN_NUMBER = "-1"  # the Hub's label in test tables, whose labels GLUE keeps back
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

_ENTAILED = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class GlueTask:
    """A task of GLUE: the file to submit for each test table, and the classes as it writes them (none for a score)."""

    submission: Mapping[str, str]
    labels: tuple[str, ...] = ("0", "1")


TASKS = {
    "cola": GlueTask({"test": "CoLA.tsv"}),
    "sst2": GlueTask({"test": "SST-2.tsv"}),
    "mrpc": GlueTask({"test": "MRPC.tsv"}),
    "stsb": GlueTask({"test": "STS-B.tsv"}, ()),
    "qqp": GlueTask({"test": "QQP.tsv"}),
    "mnli": GlueTask({"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"}, _NLI),
    "qnli": GlueTask({"test": "QNLI.tsv"}, _ENTAILED),
    "rte": GlueTask({"test": "RTE.tsv"}, _ENTAILED),
    "wnli": GlueTask({"test": "WNLI.tsv"}),
    "ax": GlueTask({"test": "AX.tsv"}, _NLI),
}
"""By the name of the task."""
