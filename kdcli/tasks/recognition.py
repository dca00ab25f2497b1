"""Which column of a table is what: the layouts of the GLUE tables, and the user's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from kdcli.api import Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, ProfileError
from kdcli.tables.forms import Form, form_of, numbered, open_bytes
from kdcli.tables.read import read_table
from kdcli.tables.strings import strings
from kdcli.tasks.labels import spellings


@dataclass(frozen=True)
class Layout:
    """A known table: the columns of its texts, what its label may be called, and their number if it has no header."""

    names: tuple[str, ...]
    kind: Literal["single", "pair"]
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    width: int = 0


_NAMED = (
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
"""Tables with a header; of two with the same texts the first whose label is there is meant."""

_HEADLESS = (
    Layout(("sst2",), "single", ("c0",), ("c1",), 2),
    Layout(("sst2",), "single", ("c1",), ("c0",), 2),
    Layout(("cola",), "single", ("c3",), ("c1",), 4),
    Layout(("rte", "wnli"), "pair", ("c0", "c1"), ("c2",), 3),
    Layout(("rte", "wnli"), "pair", ("c1", "c2"), ("c0",), 3),
    Layout(("stsb",), "pair", ("c7", "c8"), ("c9",), 10),
    Layout(("stsb",), "pair", ("c5", "c6"), ("c4",), 7),
)
"""Tables without a header, told by the number of columns and by where the labels are."""

_INDEX = ("index", "idx", "id")
_NAMES = sorted({name for layout in (*_NAMED, *_HEADLESS) for name in layout.names})
_HINT = "name the columns with --text-col (--text2-col) and --label-col; c0, c1, ... in a table without a header"


@dataclass(frozen=True)
class Shape:
    """How a table is to be read.

    Attributes:
        layout: What it is called, for the user.
        form: The form of the file.
        header: Whether its first row names the columns.
        texts: The columns of the texts.
        label: The column of the label, if there is one.
        index: The column that numbers the rows, if there is one.
    """

    layout: str
    form: Form
    header: bool
    texts: tuple[str, ...]
    label: str | None
    index: str | None = None

    @property
    def columns(self) -> list[str]:
        """All columns to be read."""
        return [name for name in (self.index, *self.texts, self.label) if name is not None]

    def __str__(self) -> str:
        header = "" if self.header else ", no header"
        labels = "no labels" if self.label is None else f"labels in {self.label!r}"
        return f"layout {self.layout}{header}: texts in {_list(self.texts)}, {labels}"


def recognise(path: Path, settings: TaskSettings, task: Task) -> Shape:
    """Tell where the texts and labels of a table are: as the settings say, else by its header or its columns.

    Raises:
        DataError: The table has no layout that is known, or one of another kind of task, or lacks a column.
        ProfileError: The settings name a layout that does not exist.
    """
    if settings.layout not in ("auto", *_NAMES):
        what = f"there is no layout {settings.layout!r}"
        raise ProfileError(what, key="task.layout", hint=f"auto, {', '.join(_NAMES)}")
    form = form_of(path)
    if form == "txt":
        return _lines(path, settings, task)
    if form in ("jsonl", "parquet"):
        rows, first = None, list(read_table(path, bad_rows=settings.bad_rows).columns)
    else:
        rows, first = _sample(path, form)
    if settings.text_columns:
        return _own(path, form, first, settings)
    if rows and not settings.label_column and (headless := _headless(form, rows, settings, task)):
        return headless
    return _by_header(path, form, first, settings, task)


def _lines(path: Path, settings: TaskSettings, task: Task) -> Shape:
    """Take plain lines for texts, or for a table without a header if they look like one."""
    with open_bytes(path) as stream:
        tabs = b"\t" in stream.readline()
    if tabs:
        rows, first = _sample(path, "tsv")
        if settings.text_columns:
            return _own(path, "tsv", first, settings)
        if headless := _headless("tsv", rows, settings, task):
            return headless
        if task.kind == "pair" and rows.num_columns == 2:
            return Shape("of two texts a line", "tsv", False, ("c0", "c1"), None)
    if task.kind == "pair":
        raise DataError("a line of a pair task holds two texts with a tab between them", file=path, row=1)
    return Shape("of one text a line", "txt", False, ("sentence",), None)


def _own(path: Path, form: Form, first: Sequence[str], settings: TaskSettings) -> Shape:
    """Take the columns that the user names, or numbers where there is no header."""
    wanted = [*settings.text_columns, *filter(None, [settings.label_column])]
    numbers = form in ("tsv", "csv") and all(re.fullmatch(r"c\d+", name) for name in wanted)
    header = not numbers or set(wanted) <= set(first)
    columns = first if header else numbered(len(first))
    for name in settings.text_columns:
        if name not in columns:
            raise DataError(f"there is no column {name!r}", file=path, key=name, hint=f"there are {_list(columns)}")
    label = _present((settings.label_column or "label",), columns)
    return Shape("of your own", form, header, settings.text_columns, label, _present(_INDEX, columns))


def _headless(form: Form, rows: pa.RecordBatch, settings: TaskSettings, task: Task) -> Shape | None:
    """Find the layout without a header in whose label column most values are labels, the first one among them."""
    found: list[tuple[float, Layout]] = []
    for layout in _HEADLESS:
        if layout.width == rows.num_columns and layout.kind == task.kind and _fits(settings, layout):
            valid = _valid(rows[layout.labels[0]], settings, task)
            if valid[0].as_py():
                found.append((pc.mean(valid).as_py(), layout))
    if not found:
        return None
    best = max(found, key=lambda pair: pair[0])[1]
    index = "c0" if best.width == 10 else None
    return Shape(best.names[0], form, False, best.texts, best.labels[0], index)


def _by_header(path: Path, form: Form, columns: Sequence[str], settings: TaskSettings, task: Task) -> Shape:
    """Find the columns by the names that are known."""
    known = [each for each in _NAMED if _fits(settings, each) and set(each.texts) <= set(columns)]
    if not known:
        layout = "known layout" if settings.layout == "auto" else f"table of layout {settings.layout}"
        raise DataError(f"no {layout}: its first row is {_list(columns)}", file=path, row=1, hint=_HINT)
    labelled = next((layout for layout in known if set(layout.labels) & set(columns)), None)
    best = labelled or known[0]
    if best.kind != task.kind:
        what = f"a table of {'pairs' if best.kind == 'pair' else 'single texts'}, and task.kind is {task.kind}"
        raise DataError(f"{what}: its first row is {_list(columns)}", file=path, row=1, hint=_HINT)
    label = _present((settings.label_column,) if settings.label_column else best.labels, columns)
    return Shape(
        best.names[0] if labelled else "of a test table", form, True, best.texts, label, _present(_INDEX, columns)
    )


def _fits(settings: TaskSettings, layout: Layout) -> bool:
    return settings.layout == "auto" or settings.layout in layout.names


def _present(names: Sequence[str], columns: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _sample(path: Path, form: Form) -> tuple[pa.RecordBatch, list[str]]:
    """Return the first rows as if there were no header, and the fields of the very first."""
    rows = next(iter(read_table(path, header=False, bad_rows="skip", form=form)), None)
    if not rows:
        raise DataError("the table has no rows", file=path)
    return rows, [column[0].as_py() for column in rows.columns]


def _valid(values: pa.Array, settings: TaskSettings, task: Task) -> pa.BooleanArray:
    if task.is_score:
        return pc.match_substring_regex(values, r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
    known = [label for spelling in [*spellings(task), settings.drop_labels] for label in spelling]
    return pc.is_in(values, value_set=strings(known))


def _list(columns: Sequence[str]) -> str:
    return ", ".join(repr(name if len(name) <= 40 else name[:37] + "...") for name in columns)
