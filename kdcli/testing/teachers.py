"""The checks of a teacher: what the export of logits relies on, and does not check itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.api import QuietReporter
from kdcli.errors import KdError
from kdcli.testing import tiny_corpus, tiny_task, tiny_teacher
from kdcli.testing.checks import Checks, Skip, Subject, cheap_import, expect, expect_close, in_one_line, loads, options

ODD_TEXTS = (
    *("", " ", "[MASK]", "a [MASK] film", "na\u00efve \u96fb\u5f71 \U0001f642", "x" * 1000),
    "<br /> http://a.b/c?d=e",
)
"""Texts as tables have them."""
COLUMNS = {
    kind: [[*column, *ODD_TEXTS] for column in zip(*(text.split("\t") for text in corpus.train), strict=True)]
    for kind, corpus in (("single texts", tiny_corpus()), ("pairs", tiny_corpus("pair")))
}
BATCH = 8  # texts that are read at once
SHORT = 48  # the longest input with which long texts are tried, in the teacher's tokens
LONG = "the plot is warm and " * 100
TOLERANCE = 1e-4  # of float32, absolute and relative: another batch has another order of sums

Logits = NDArray[np.float32]


@dataclass
class TeacherSubject(Subject):
    """A teacher under check, loaded once; the kinds of texts that it reads, with their logits."""

    model: str = ""
    first: dict[str, Logits] = field(default_factory=dict)

    @cached_property
    def loaded(self) -> Any:
        """The teacher that all checks share: the model under check, by default the tiny one."""
        self.model = self.model or str(tiny_teacher(self.folder / "model"))
        return load_teacher(self.plugin, self.model, self.options)


def load_teacher(plugin: Any, model: str, options: Any, *, max_length: int = 0, long_texts: str = "cut") -> Any:
    """Load a teacher for the labels of the tiny task, on the CPU."""
    how: dict[str, Any] = {"max_length": max_length, "long_texts": long_texts, "device": "cpu", "precision": "fp32"}
    return plugin.load(model, options, labels=tiny_task().names, reporter=QuietReporter(), **how)


def load(subject: TeacherSubject) -> str:
    """Load the model, and look at its labels."""
    labels = subject.loaded.labels
    names = isinstance(labels, tuple) and all(isinstance(label, str) and label for label in labels)
    right = names and len(set(labels)) == len(labels) != 1
    expect(right, "labels that are a tuple of different names, empty for a score", f"{labels!r}")
    return f"labels {', '.join(labels)}" if labels else "a score"


def logits(subject: TeacherSubject) -> str:
    """Read single texts and pairs; one of the two may be refused."""
    refused = []
    for kind, columns in COLUMNS.items():
        try:
            found = subject.loaded.logits(columns, BATCH)
        except KdError as error:
            refused.append(f"{kind}: {in_one_line(error)}")
            continue
        form = f"{getattr(found, 'dtype', type(found).__name__)} {getattr(found, 'shape', '')}"
        shape = (len(columns[0]), len(subject.loaded.labels) or 1)
        expect(form == f"float32 {shape}", f"a NumPy array of logits, float32 {shape}", form)
        subject.first[kind] = found
    expect(bool(subject.first), "logits of single texts or of pairs", "; ".join(refused))
    return ", ".join(subject.first)


def independent_of_neighbours(subject: TeacherSubject) -> str:
    """Read all texts at once, once more in another order, and each alone."""
    read = subject.loaded.logits
    ways: Sequence[Callable[[list[list[str]]], Logits]] = (
        lambda columns: read(columns, 1000),
        lambda columns: read([column[::-1] for column in columns], 3)[::-1],
        lambda columns: np.concatenate([read([[text] for text in row], 1) for row in zip(*columns, strict=True)]),
    )
    for kind, found in subject.first.items():
        expected = f"the same logits for the same text, whatever its batch ({kind})"
        for way in ways:
            expect_close(way(COLUMNS[kind]), found, expected, TOLERANCE)
    return ", ".join(subject.first)


def long_texts(subject: TeacherSubject) -> str:
    """Read a text that is too long, cut and in windows; windows may be refused."""
    if "single texts" not in subject.first:
        raise Skip("it reads pairs alone")
    short, ways = COLUMNS["single texts"][0][:2], []
    for way in ("cut", "mean", "max"):
        try:
            loaded = load_teacher(subject.plugin, subject.model, subject.options, max_length=SHORT, long_texts=way)
        except KdError as error:
            expect(way != "cut", f"a teacher that reads {SHORT} tokens", in_one_line(error))
            continue
        expected = f"at most the {SHORT} tokens that teacher.max_length allows"
        expect(loaded.max_length <= SHORT, expected, f"max_length {loaded.max_length}")
        found = loaded.logits([[*short, LONG]], BATCH)
        wanted = 1 if loaded.max_length else 0
        expect(loaded.cut == wanted, f"{wanted} of 3 texts counted as cut, in windows too", f"cut = {loaded.cut}")
        first = subject.first["single texts"][:2]
        expect_close(found[:2], first, f"short texts to have the same logits ({way})", TOLERANCE)
        ways.append(way)
    return f"read by {', '.join(ways)}"


def same_in_another_process(subject: TeacherSubject) -> str:
    """Load and read in another process, where sets have another order; compare logits and fingerprint."""
    kind, found = next(iter(subject.first.items()))
    own: Any = subject.loaded.fingerprint()
    expect(isinstance(own, str) and bool(own), "a fingerprint that is a text", f"{own!r}")
    other, rows = subject.elsewhere(read_texts, subject.model, dict(subject.table), kind)
    expected = "the same logits in every process: no order of a set, no hash()"
    expect_close(np.array(rows, np.float32), found, expected, TOLERANCE)
    expect(other == own, "the same fingerprint in every process", f"{own} and {other}")
    return f"fingerprint {own[:16]}"


def read_texts(plugin: Any, model: str, table: dict[str, Any], kind: str) -> tuple[str, list[list[float]]]:
    """Return a teacher's fingerprint, and its logits of one kind of texts."""
    loaded = load_teacher(plugin, model, plugin.Options.model_validate(table))
    return loaded.fingerprint(), loaded.logits(COLUMNS[kind], BATCH).tolist()


STEPS = (loads, options, load, logits)
CHECKS = Checks(TeacherSubject, STEPS, (independent_of_neighbours, long_texts, same_in_another_process, cheap_import))
