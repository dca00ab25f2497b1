"""The checks of a teacher: everything that the export of logits relies on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import KdError, shown
from kdcli.testing import checks
from kdcli.testing.checks import Check, Doubt, Failure, Skip, expect, expect_close, expect_error, in_one_line
from kdcli.testing.processes import BATCH, load_teacher, run_elsewhere, tiny_corpus, tiny_teacher

ODD_TEXTS = (
    "",
    " ",
    "[MASK]",
    "a [MASK] film",
    "na\u00efve \u96fb\u5f71 \U0001f642",
    "x" * 1000,
    "<br /> http://a.b/c?d=e",
)
"""Texts as tables have them."""
SINGLE = [*tiny_corpus().train, *ODD_TEXTS]
COLUMNS = {
    "single texts": [SINGLE],
    "pairs": [
        [*column, *ODD_TEXTS] for column in zip(*(t.split("\t") for t in tiny_corpus("pair").train), strict=True)
    ],
}
SHORT = 48
"""The longest input with which long texts are tried, in the teacher's tokens."""
LONG = "the plot is warm and " * 100
TOLERANCE = 1e-4
"""Of float32, absolute and relative: another batch has another order of sums."""


@dataclass
class TeacherSubject(checks.Subject):
    """A teacher under check, loaded once; the kinds of texts that it reads, with their logits."""

    model: str = ""
    first: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @cached_property
    def loaded(self) -> Any:
        """The teacher that all checks share."""
        return self.load()

    def load(self, model: str | Path = "", **how: Any) -> Any:
        """Load the model under check, the tiny one by default, or another."""
        self.model = self.model or str(tiny_teacher(self.folder / "model"))
        return load_teacher(self.plugin, str(model or self.model), self.options, **how)


def load(subject: TeacherSubject) -> str:
    """Load the model, and look at what it says of itself."""
    loaded = subject.loaded
    missing = [name for name in ("logits", "fingerprint") if not callable(getattr(loaded, name, None))]
    expect(
        not missing, "load to return a teacher with logits and fingerprint", f"{loaded!r} without {', '.join(missing)}"
    )
    labels = loaded.labels
    names = isinstance(labels, tuple) and all(isinstance(label, str) and label for label in labels)
    expect(names, "labels that are a tuple of names, empty for a score", f"{labels!r}")
    expect(len(set(labels)) == len(labels) != 1, "two or more different labels, or none for a score", f"{labels!r}")
    for name in ("max_length", "cut", "parameters", "parameters_without_embeddings", "megabytes"):
        number = getattr(loaded, name, None)
        kinds = (int, float) if name == "megabytes" else (int,)
        fine = isinstance(number, kinds) and not isinstance(number, bool) and number >= 0
        expect(fine, f"{name} that is a number, 0 if unknown", f"{number!r}")
    inside, all_of_them = loaded.parameters_without_embeddings, loaded.parameters
    expect(inside <= all_of_them, f"parameters_without_embeddings of at most {all_of_them} parameters", inside)
    return f"labels {', '.join(labels)}" if labels else "a score"


def load_of_nothing(subject: TeacherSubject) -> str:
    """Load a folder that is not there, and an empty one."""
    if hasattr(subject.plugin, "estimate"):
        raise Skip("its model is behind a server")
    empty = subject.folder / "empty"
    empty.mkdir(exist_ok=True)
    expected = "a MissingError for a model that is not there"
    expect_error(lambda: subject.load(subject.folder / "nowhere"), (KdError,), expected)
    expect_error(lambda: subject.load(empty), (KdError,), "a DataError for an empty folder")
    return "errors for the user"


def logits(subject: TeacherSubject) -> str:
    """Read single texts and pairs; one of the two may be refused."""
    refused = []
    for kind, columns in COLUMNS.items():
        try:
            found = subject.loaded.logits(columns, BATCH)
        except KdError as error:
            refused.append(f"{kind}: {in_one_line([error])}")
            continue
        except Exception as error:
            expected = f"logits of {kind}, or a KdError that refuses them"
            file, row = subject.known.place(error)
            raise Failure(expected, f"{shown(error)} ({file}, line {row})" if row else shown(error)) from None
        subject.first[kind] = _sound(subject, found, len(columns[0]))
    expect(bool(subject.first), "logits of single texts or of pairs", "; ".join(refused))
    return ", ".join(subject.first)


def every_text_counts(subject: TeacherSubject) -> str:
    """Compare the logits of different texts, and of pairs with the second texts in another order."""
    for kind, found in subject.first.items():
        if not np.ptp(found, axis=0).any():
            raise Doubt(
                f"logits that depend on the text ({kind}); give it a model that knows films", "the same for all"
            )
        if kind == "pairs":
            one, other = COLUMNS[kind]
            if (found == subject.loaded.logits([one, other[::-1]], BATCH)).all():
                raise Doubt("logits of pairs that depend on the second text", "the same for other second texts")
    return f"{len(np.unique(np.concatenate(list(subject.first.values())), axis=0))} different rows"


def deterministic(subject: TeacherSubject) -> str:
    """Read the same texts twice."""
    return _same(
        subject, lambda columns: subject.loaded.logits(columns, BATCH), "the same logits for the same texts", 0
    )


def independent_of_neighbours(subject: TeacherSubject) -> str:
    """Read each text alone, all at once, and in another order."""
    read = subject.loaded.logits
    expected = "the batch of a text not to change its logits"

    def alone(columns: list[list[str]]) -> NDArray[np.float32]:
        return np.concatenate([read([[text] for text in row], 1) for row in zip(*columns, strict=True)])

    _same(subject, alone, expected)
    _same(subject, lambda columns: read(columns, 1000), expected)
    return _same(subject, lambda columns: read([list(reversed(column)) for column in columns], 3)[::-1], expected)


def long_texts(subject: TeacherSubject) -> str:
    """Read a text that is too long, cut and in windows; windows may be refused."""
    kind = next(iter(subject.first))
    if kind == "pairs":
        raise Skip("it reads pairs alone")
    ways = []
    for way in ("cut", "mean", "max"):
        try:
            loaded = subject.load(max_length=SHORT, long_texts=way)
        except KdError as error:
            expect(way != "cut", f"a teacher that reads {SHORT} tokens", in_one_line([error]))
            continue
        expected = f"at most the {SHORT} tokens that teacher.max_length allows"
        expect(loaded.max_length <= SHORT, expected, f"max_length {loaded.max_length}")
        found = _sound(subject, loaded.logits([[*SINGLE[:2], LONG]], BATCH), 3)
        wanted = 1 if loaded.max_length else 0
        expect(loaded.cut == wanted, f"{wanted} of 3 texts counted as cut, in windows too", f"cut = {loaded.cut}")
        expect_close(found[:2], subject.first[kind][:2], f"short texts to have the same logits ({way})", TOLERANCE)
        ways.append(way)
    return f"read by {', '.join(ways)}"


def fingerprint(subject: TeacherSubject) -> str:
    """Compare the fingerprint with that of the same model, loaded again."""
    one: Any = subject.loaded.fingerprint()
    again = subject.load().fingerprint()
    expect(isinstance(one, str) and bool(one), "a fingerprint that is a text", f"{one!r}")
    expect(one == again, "the same fingerprint for the same model", f"{one} and {again}")
    return str(one)[:16]


def same_in_another_process(subject: TeacherSubject) -> str:
    """Read texts in another process, where sets have another order."""
    kind, found = next(iter(subject.first.items()))
    arguments = subject.model, json.dumps(dict(subject.table)), json.dumps(COLUMNS[kind])
    other, rows = run_elsewhere("logits", *subject.address, *arguments)
    expect_close(
        np.array(rows, np.float32), found, "the same logits in every process: no order of a set, no hash()", TOLERANCE
    )
    expect(other == subject.loaded.fingerprint(), "the same fingerprint in every process", f"{other}")
    return "the same"


_SEE = "docs/plugins.md, Teachers, and kdcli.api."
CHECKS = (
    *checks.MODULE_CHECKS,
    *checks.OPTIONS_CHECKS,
    Check(load, f"{_SEE}TeacherPlugin.load", (checks.options_given,)),
    Check(load_of_nothing, f"{_SEE}TeacherPlugin.load", (checks.options_given,)),
    Check(logits, f"{_SEE}LoadedTeacher.logits", (load,)),
    Check(every_text_counts, f"{_SEE}LoadedTeacher.logits", (logits,)),
    Check(deterministic, f"{_SEE}LoadedTeacher.logits", (logits,)),
    Check(independent_of_neighbours, f"{_SEE}LoadedTeacher.logits", (deterministic,)),
    Check(long_texts, f"{_SEE}TeacherPlugin.load", (deterministic,)),
    Check(fingerprint, f"{_SEE}LoadedTeacher.fingerprint", (load,)),
    Check(same_in_another_process, f"{_SEE}LoadedTeacher", (deterministic, fingerprint)),
    checks.PRINTS_NOTHING,
)


def _sound(subject: TeacherSubject, found: Any, texts: int) -> NDArray[np.float32]:
    """Return logits if they have the right form."""
    shape = (texts, len(subject.loaded.labels) or 1)
    form = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
    expect(form == f"float32 {shape}", f"a NumPy array of logits, float32 {shape}", form)
    expect(bool(np.isfinite(found).all()), "logits that are finite", "infinite ones or NaN")
    logits: NDArray[np.float32] = found
    return logits


def _same(subject: TeacherSubject, read: Any, expected: str, tolerance: float = TOLERANCE) -> str:
    """Compare what ``read`` returns for each kind of texts with the first logits."""
    for kind, found in subject.first.items():
        expect_close(read(COLUMNS[kind]), found, f"{expected} ({kind})", tolerance)
    return ", ".join(subject.first)


SUBJECT = TeacherSubject
