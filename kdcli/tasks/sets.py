"""Transfer sets that ``kd`` did not write: tables whose text columns have other names, and plain lines.

The forms are those of d-bert, the code released with the papers: its tools print one text a line, or two with a tab
between them, and its joined tables have the columns of the task's GLUE tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kdcli.api import Reporter, Task
from kdcli.errors import DataError
from kdcli.tables.forms import Form, Numbers, form_of, open_bytes, shown
from kdcli.tables.read import TableReader, read_table

_TEXTS = {
    "single": (("sentence",),),
    "pair": (
        ("sentence1", "sentence2"),
        ("question1", "question2"),
        ("question", "sentence"),
        ("premise", "hypothesis"),
        ("#1 String", "#2 String"),
    ),
}
"""What the text columns of a set may be called, those of ``kd`` first."""

_END = r"(\s*(<\|endoftext\|>|<eos>))+\s*$"
_BETWEEN = r" *(\t|<eos>) *"


@dataclass(frozen=True)
class TextSet:
    """An open set of texts, which can be read again and again.

    Attributes:
        reader: The table.
        task: The task.
        texts: The columns of the texts; none where each line of the file is a text, or a pair.
    """

    reader: TableReader
    task: Task
    texts: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return self.reader.path

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, by the names that they have in the file; of plain lines the task's."""
        return self.reader.columns if self.texts else self.task.columns

    def rows(self) -> Iterator[tuple[Numbers, list[pa.Array], pa.RecordBatch]]:
        """Give the rows in batches: their numbers in the file, the task's text columns, and all that the file has.

        Raises:
            DataError: A row cannot be read, or a line of a pair task is none.
        """
        for numbers, batch in self.reader.numbered():
            if self.texts:
                yield numbers, [batch[name].cast(pa.string()) for name in self.texts], batch
            elif self.task.kind == "single":
                yield numbers, [without_marks(batch.column(0))], batch
            else:
                yield numbers, self._pairs(batch.column(0), numbers), batch

    def _pairs(self, lines: pa.Array, numbers: Numbers) -> list[pa.Array]:
        sides = pc.split_pattern(with_tabs(lines), "\t")
        wrong = pc.index(pc.equal(pc.list_value_length(sides), 2), False).as_py()
        if wrong >= 0:
            what = f"a pair is two texts with one tab between them: {shown(lines[wrong].as_py())}"
            hint = "mend the line, or make a set without such lines: kd transfer corpus --input FILE"
            raise DataError(what, file=self.path, row=int(numbers[wrong]), hint=hint)
        return [pc.list_element(sides, side) for side in (0, 1)]


def open_set(path: Path, task: Task, reporter: Reporter, *, texts_alone: bool = False) -> TextSet:
    """Open a table of texts: by its header, or as plain lines where there is none.

    Args:
        path: A table with the task's text columns as ``kd`` or GLUE names them; or lines (``.txt``, ``.tsv``) with
            one text each, or two with a tab (or ``<eos>``) between them.
        task: The task.
        reporter: Told how a file is taken that ``kd`` has not written.
        texts_alone: Leave the other columns of the file unread.

    Raises:
        DataError: The file cannot be read, or has other columns.
    """
    form = form_of_set(path, task)
    reader = read_table(path, form=form)
    if form == "txt":
        reporter.info(f"{path.name}: {'one text' if task.kind == 'single' else 'two texts'} a line, no header")
        return TextSet(reader, task, ())
    texts = text_columns(reader.columns, task)
    if texts is None:
        lacking = next(name for name in task.columns if name not in reader.columns)
        hint = f"the columns are {', '.join(reader.columns)}; a file of plain lines, without a header, is a .txt"
        raise DataError(f"there is no column {lacking!r}", file=path, key=lacking, hint=hint)
    if texts != task.columns:
        reporter.info(f"{path.name}: texts in {' and '.join(texts)}")
    if texts_alone:
        reader = read_table(path, form=form, columns=texts)
    return TextSet(reader, task, texts)


def text_columns(columns: Sequence[str], task: Task) -> tuple[str, ...] | None:
    """Return which columns hold the texts of a task, by their names; None where they are not there."""
    return next((names for names in _TEXTS[task.kind] if set(names) <= set(columns)), None)


def form_of_set(path: Path, task: Task) -> Form:
    """Tell the form of a set from its suffix and, of a ``.txt`` or ``.tsv``, from its first line.

    Returns:
        ``txt`` for plain lines without a header, also in a ``.tsv``; ``tsv`` for a ``.txt`` that has a header.

    Raises:
        DataError: The file is missing or empty, or its suffix is none of a table.
    """
    form = form_of(path)
    if form not in ("txt", "tsv"):
        return form
    with open_bytes(path) as stream:
        first = stream.readline().decode("utf-8", "replace").rstrip("\r\n")
    if text_columns(first.split("\t"), task):
        return "tsv"
    texts = with_tabs(pa.array([first]))[0].as_py().split("\t")
    # Of a .tsv, single words are rather the names of columns.
    plain = len(texts) == len(task.columns) and any(" " in text for text in texts)
    return "txt" if plain else form


def without_marks(texts: pa.Array) -> pa.Array:
    """Take off the end-of-text marks that d-bert's samplers print behind a text; other texts stay as they are."""
    return pc.replace_substring_regex(texts, _END, "")


def with_tabs(pairs: pa.Array) -> pa.Array:
    """Take off such marks, and put one bare tab where a tab or Transformer-XL's ``<eos>`` stands between two texts."""
    return pc.replace_substring_regex(without_marks(pairs), _BETWEEN, "\t")
