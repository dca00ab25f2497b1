"""Sets of texts: kd's own tables, tables with other text columns, and plain lines.

The other forms are those of d-bert, the code released with the papers: its tools print one text a line, or two with a
tab between them, and its joined tables have the columns of the task's GLUE tables.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from kdcli.api import Reporter, Task
from kdcli.errors import DataError
from kdcli.tables.parquet import stream
from kdcli.tables.read import ROW_NUMBER, Form, as_texts, form_of, read_table, shown
from kdcli.tasks.glue import LAYOUTS

STATES = "representation"
"""The column of a joined set, and the tensor of a logits file, that holds the teacher's representations."""
_END = r"(\s*(<\|endoftext\|>|<eos>))+\s*$"
_BETWEEN = r" *(\t|<eos>) *"


def open_texts(path: Path, task: Task, reporter: Reporter) -> pl.LazyFrame:
    """Open a table of texts by its header, or as plain lines where there is none.

    A table has the task's text columns as ``kd`` or GLUE names them; lines (``.txt``, ``.tsv``) hold one text each, or
    two with a tab (or ``<eos>``) between them. The reporter gets a line if ``kd`` has not written the file.
    The frame has ``task.columns``, all other columns under the names of the file, and ``ROW_NUMBER``, in the order of
    the file. A row that cannot be read, a null text or a line of a pair task that is no pair is a ``DataError`` when it
    is collected.
    """
    form = form_of_set(path, task)
    if form == "txt":
        read_table(path, form=form)
        reporter.info(f"{path.name}: {'one text' if task.kind == 'single' else 'two texts'} a line, no header")
        schema: dict[str, pl.DataType] = {name: pl.String() for name in task.columns}
        return _lazy(path, form, task, {}, schema)
    reader = read_table(path, form=form)
    for note in reader.notes:
        reporter.info(f"{path.name}: {note}")
    texts = text_columns(reader.columns, task)
    if texts is None:
        lacking = next(name for name in task.columns if name not in reader.columns)
        hint = f"the columns are {', '.join(reader.columns)}; a file of plain lines, without a header, is a .txt"
        raise DataError(f"there is no column {lacking!r}", file=path, key=lacking, hint=hint)
    if texts != task.columns:
        reporter.info(f"{path.name}: texts in {' and '.join(texts)}")
    names = dict(zip(texts, task.columns, strict=True))
    # Of QNLI's columns `question, sentence` the second has a name of its own; other columns give way to the texts.
    there = [name for name in reader.columns if name in names or name not in task.columns]
    own = {name: names.get(name, name) for name in there}
    schema = {new: pl.String() if name in names else reader.schema[name] for name, new in own.items()}
    return _lazy(path, form, task, own, schema)


def text_columns(columns: Sequence[str], task: Task) -> tuple[str, ...] | None:
    """Return the columns that hold the texts of a task, named as kd or GLUE (pairs) does; None where none do."""
    pairs = [layout.texts for layout in LAYOUTS if layout.kind == task.kind == "pair"]
    return next((names for names in (task.columns, *pairs) if set(names) <= set(columns)), None)


def form_of_set(path: Path, task: Task) -> Form:
    """Return the form of a set by its suffix and, of a ``.txt`` or ``.tsv``, by its first line.

    It is ``txt`` for plain lines without a header, also in a ``.tsv``; ``tsv`` for a ``.txt`` that has a header.
    """
    form = form_of(path)
    if form not in ("txt", "tsv"):
        return form
    lines = next(iter(read_table(path, form="txt").batches()))
    first = str(lines[0, 0])
    if text_columns(first.split("\t"), task):
        return "tsv"
    texts = pl.select(with_tabs(pl.lit(first))).item().split("\t")
    # In a .tsv, single words are more likely the names of columns.
    plain = len(texts) == len(task.columns) and any(" " in text for text in texts)
    return "txt" if plain else form


def without_marks(texts: pl.Expr) -> pl.Expr:
    """Remove the end-of-text marks that d-bert's samplers print behind a text."""
    return texts.str.replace(_END, "")


def with_tabs(pairs: pl.Expr) -> pl.Expr:
    """Remove such marks, and put one bare tab where a tab or Transformer-XL's ``<eos>`` stands between two texts."""
    return without_marks(pairs).str.replace_all(_BETWEEN, "\t")


def _lazy(path: Path, form: Form, task: Task, names: dict[str, str], schema: dict[str, pl.DataType]) -> pl.LazyFrame:
    """Return a lazy frame that reads the file when it is collected; ``names`` maps the file's columns to its own."""

    def batches(columns: list[str] | None) -> Iterator[pl.DataFrame]:
        wanted = [name for name, new in names.items() if columns is None or new in columns]
        for batch in read_table(path, form=form, columns=wanted or None).batches():
            frame = batch.rename(names, strict=False) if names else _from_lines(batch, task, path)
            yield as_texts(frame, [name for name in task.columns if name in frame.columns], path)

    return stream(batches, {**schema, ROW_NUMBER: pl.Int64()})


def _from_lines(batch: pl.DataFrame, task: Task, path: Path) -> pl.DataFrame:
    line = pl.col(batch.columns[0])
    if task.kind == "single":
        return batch.select(without_marks(line).alias(task.columns[0]), ROW_NUMBER)
    sides = batch.select(with_tabs(line).str.split("\t").alias("sides"), ROW_NUMBER)
    wrong = sides.filter(pl.col("sides").list.len() != 2)
    if len(wrong):
        row = wrong[0, ROW_NUMBER]
        text = batch.filter(pl.col(ROW_NUMBER) == row)[0, 0]
        what = f"a pair is two texts with one tab between them: {shown(text)}"
        hint = "correct the line, or make a set without such lines: kd transfer corpus --input FILE"
        raise DataError(what, file=path, row=row, hint=hint)
    columns = [pl.col("sides").list.get(side).alias(name) for side, name in enumerate(task.columns)]
    return sides.select(*columns, ROW_NUMBER)
