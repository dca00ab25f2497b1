"""Detect the layout of a table: which column holds the texts, the labels and the row index."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from kdcli.api import Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, ProfileError
from kdcli.tables.csv_file import Quoted, has_csv_quoting
from kdcli.tables.read import ROW_NUMBER, BadRowsMode, Form, TableReader, files_of, form_of, read_table
from kdcli.tables.text import check_columns
from kdcli.tasks.glue import HEADLESS, INDEX_COLUMNS, LAYOUT_NAMES, LAYOUTS, TASKS, Layout
from kdcli.tasks.labels import spellings

_HINT = (
    "name the columns with --text-col (--text2-col) and, where labels are read, --label-col; "
    "c0, c1, ... in a table without a header"
)
LINES = {"lines": False, "fasttext": True}  # layouts of a .txt, and whether its lines begin with labels
_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"


@dataclass(frozen=True)
class TableLayout:
    """How to read a table.

    ``index`` is the column that numbers the rows. ``quoted``, ``separator`` and ``labelled_lines`` are those of
    ``read_table``. A multi-label task has ``sets``: the labels of the columns with 0 or 1 that ``label`` is made of.
    """

    layout: str
    form: Form
    header: bool
    texts: tuple[str, ...]
    label: str | None
    index: str | None = None
    quoted: Quoted | None = None
    separator: str | None = None
    labelled_lines: bool | None = None
    sets: Mapping[str, str] | None = None

    @property
    def columns(self) -> list[str]:
        """All columns to read."""
        return [name for name in (self.index, *self.texts, self.label) if name is not None]

    def __str__(self) -> str:
        header = "" if self.header else ", no header"
        labels = "no labels" if self.label is None else f"labels in {_list(list(self.sets or [self.label]))}"
        quoted = ", quoted as in CSV" if self.quoted else ", no quoting" * (self.form == "csv" and self.quoted is False)
        return f"layout {self.layout}{header}{quoted}: texts in {_list(self.texts)}, {labels}"

    def open(self, path: Path, columns: Sequence[str] | None, bad_rows: BadRowsMode) -> TableReader:
        """Open the table; without ``columns`` all are read."""
        how: dict[str, Any] = {"quoted": self.quoted, "separator": self.separator, "labels": self.labelled_lines}
        if self.sets is not None and self.label is not None:
            how["sets"] = self.label, self.sets
        return read_table(path, header=self.header, columns=columns, bad_rows=bad_rows, form=self.form, **how)


def detect(path: Path, settings: TaskSettings, task: Task) -> TableLayout:
    """Find the text and label columns of a table: as the settings say, else by its header or its values.

    A table without a known layout, of another kind of task, or without a column that is named is a ``DataError``; a
    layout in the settings that does not exist is a ``ProfileError``.
    """
    if settings.layout not in ("auto", *LINES, *LAYOUT_NAMES):
        what = f"there is no layout {settings.layout!r}"
        raise ProfileError(what, key="task.layout", hint=f"auto, {', '.join([*LINES, *LAYOUT_NAMES])}")
    form = form_of(path)
    if form == "txt":
        return _with_sets(_plain_lines(path, settings, task), path, settings, task)
    quoting: dict[str, Quoted] = {"csv": True, "escaped": "escaped", "none": False}
    quoted = quoting.get(settings.quoting)
    if quoted is None and form == "tsv":
        quoted = is_quoted(path, settings.name)
    separator = None if settings.separator == "auto" else settings.separator
    how = {"quoted": quoted, "separator": separator}
    found = replace(_detect(path, form, settings, task, how), quoted=quoted, separator=separator)
    return _with_sets(found, path, settings, task)


def _with_sets(layout: TableLayout, path: Path, settings: TaskSettings, task: Task) -> TableLayout:
    """Find the columns with 0 or 1 of a multi-label task, where no column holds the labels."""
    if not task.multi_label:
        return layout
    columns = _by_name(layout.open(path, None, "skip").columns)
    named = settings.label_columns
    wanted = named or next((names for names in (task.labels, task.names) if names and set(names) <= set(columns)), ())
    if not set(wanted) & set(columns) or (layout.label is not None and not named):
        return replace(layout, sets={})
    check_columns(wanted, columns, path)
    sets = {columns[name]: label for name, label in zip(wanted, task.labels, strict=True)}
    return replace(layout, label="label", sets=sets)


def is_quoted(path: Path, task: str) -> bool:
    """Return whether a TSV has CSV's quoting; GLUE's have none, though some of their texts begin with a quote."""
    return task not in TASKS and all(map(has_csv_quoting, files_of(path)))


def _detect(path: Path, form: Form, settings: TaskSettings, task: Task, how: Mapping[str, Any]) -> TableLayout:
    if form in ("jsonl", "parquet"):
        rows, first = None, list(read_table(path, bad_rows=settings.bad_rows).columns)
    else:
        rows, first = _first_rows(path, form, **how)
    if settings.text_columns:
        return _from_settings(path, form, first, settings)
    ours = settings.label_column or task.multi_label  # of which there is no table without a header
    if rows is not None and not ours and (headless := _headless(form, rows, settings, task)):
        return headless
    return _from_header(path, form, first, settings, task)


def _plain_lines(path: Path, settings: TaskSettings, task: Task) -> TableLayout:
    """Read plain lines as texts, or as a table without a header if they look like one."""
    labelled = LINES.get(settings.layout)
    lines = next(iter(read_table(path, form="txt", bad_rows="skip", labels=labelled).batches()), None)
    if lines is not None and "\t" in lines[0, 0] and labelled is None:
        rows, first = _first_rows(path, "tsv")
        if settings.text_columns:
            return _from_settings(path, "tsv", first, settings)
        if headless := _headless("tsv", rows, settings, task):
            return headless
        if task.kind == "pair" and rows.width == 2:
            return TableLayout("of two texts a line", "tsv", False, ("c0", "c1"), None)
    if task.kind == "pair":
        raise DataError("a line of a pair task holds two texts with a tab between them", file=path, row=1)
    if labelled or (lines is not None and "label" in lines.columns):
        return TableLayout("of fastText's lines", "txt", False, ("sentence",), "label", labelled_lines=True)
    return TableLayout("of one text a line", "txt", False, ("sentence",), None, labelled_lines=False)


def _from_settings(path: Path, form: Form, first: Sequence[str], settings: TaskSettings) -> TableLayout:
    """Take the columns that the user names; c0, c1, ... are columns of a table without a header."""
    wanted = [*settings.text_columns, *filter(None, [settings.label_column])]
    numbers = form in ("tsv", "csv") and all(re.fullmatch(r"c\d+", name) for name in wanted)
    header = not numbers or set(wanted) <= set(first)
    columns = _by_name(first if header else [f"c{place}" for place in range(len(first))])
    check_columns(settings.text_columns, columns, path)
    texts = tuple(columns[name] for name in settings.text_columns)
    label = _first(columns, settings.label_column or "label")
    return TableLayout("of your own", form, header, texts, label, _first(columns, *INDEX_COLUMNS))


def _headless(form: Form, rows: pl.DataFrame, settings: TaskSettings, task: Task) -> TableLayout | None:
    """Find the layout without a header in whose label column most values are labels, the first one among them."""
    found: list[tuple[float, Layout]] = []
    for layout in HEADLESS:
        if layout.width == rows.width and layout.kind == task.kind and _fits(settings, layout):
            valid = _are_labels(rows[layout.labels[0]], settings, task)
            if valid[0]:
                found.append((float(valid.sum()), layout))
    if not found:
        return None
    best = max(found, key=lambda pair: pair[0])[1]
    index = "c0" if best.width == 10 else None
    return TableLayout(best.names[0], form, False, best.texts, best.labels[0], index)


def _from_header(path: Path, form: Form, first: Sequence[str], settings: TaskSettings, task: Task) -> TableLayout:
    columns = _by_name(first)
    known = [layout for layout in LAYOUTS if _fits(settings, layout) and all(name in columns for name in layout.texts)]
    if not known:
        layout = "known layout" if settings.layout == "auto" else f"table of layout {settings.layout}"
        raise DataError(f"no {layout}: its first row is {_list(first)}", file=path, row=1, hint=_HINT)
    labelled = next((layout for layout in known if _first(columns, *layout.labels)), None)
    best = labelled or known[0]
    if best.kind != task.kind:
        what = f"a table of {'pairs' if best.kind == 'pair' else 'single texts'}, and task.kind is {task.kind}"
        raise DataError(f"{what}: its first row is {_list(first)}", file=path, row=1, hint=_HINT)
    label = _first(columns, *([settings.label_column] if settings.label_column else best.labels))
    texts = tuple(columns[name] for name in best.texts)
    name = best.names[0] if labelled else "of a test table"
    return TableLayout(name, form, True, texts, label, _first(columns, *INDEX_COLUMNS))


def _by_name(columns: Sequence[str]) -> dict[str, str]:
    """Return the columns of a file by name; spaces around a name do not count."""
    return {name.strip(): name for name in columns} | {name: name for name in columns}


def _first(columns: Mapping[str, str], *names: str) -> str | None:
    return next((columns[name] for name in names if name in columns), None)


def _fits(settings: TaskSettings, layout: Layout) -> bool:
    return settings.layout == "auto" or settings.layout in layout.names


def _first_rows(path: Path, form: Form, **how: Any) -> tuple[pl.DataFrame, list[str]]:
    """Return the first rows as if there were no header, and the fields of the very first."""
    rows = next(iter(read_table(path, header=False, bad_rows="skip", form=form, **how).batches()), None)
    if rows is None or rows.is_empty():
        raise DataError("the table has no rows", file=path)
    rows = rows.drop(ROW_NUMBER).head(10_000)
    return rows, list(rows.row(0))


def _are_labels(values: pl.Series, settings: TaskSettings, task: Task) -> pl.Series:
    if task.is_score:
        return values.str.contains(_NUMBER)
    known = [label for spelling in [*spellings(task), settings.drop_labels] for label in spelling]
    return values.str.strip_chars(" ").is_in(known)


def _list(columns: Sequence[str]) -> str:
    return ", ".join(repr(name if len(name) <= 40 else name[:37] + "...") for name in columns)
