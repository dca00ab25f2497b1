"""Predictions for lines of text as they come: through a pipe, or typed."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from io import BufferedIOBase

import polars as pl

from kdcli.api import Reporter, Task
from kdcli.errors import DataError
from kdcli.evaluate.predict import Model, predict_texts
from kdcli.tables.text import BLOCK, check_utf8, whole_lines

NAME = "stdin"


def predict_lines(
    model: Model, stream: BufferedIOBase, reporter: Reporter, *, probabilities: bool = False
) -> Iterator[pl.DataFrame]:
    """Predict a label, or a score, for each line as soon as it is there; memory does not grow with their number.

    A line holds a text, or two with a tab between them, and ends at LF or CRLF. The index counts the lines from 0.

    Raises:
        DataError: There is no line, or one is not UTF-8, or no pair; the lines before it are predicted.
    """
    done = 0
    for columns in read_lines(stream, model.task, reporter):
        rows = len(columns[0])
        index = pl.int_range(done, done + rows, eager=True).cast(pl.String)
        yield predict_texts(model, index, columns, probabilities=probabilities)
        done += rows
    if not done:
        hint = "pipe lines of text into it, or name a table with --input FILE"
        raise DataError("there is no line to predict", file=NAME, hint=hint)


def read_lines(stream: BufferedIOBase, task: Task, reporter: Reporter) -> Iterator[list[list[str]]]:
    """Yield the lines that are there as soon as they are, as the text columns of the task."""
    done = 0
    empty: list[int] = []
    tabs: list[int] = []
    for block in whole_lines(_after_mark(stream)):
        lines = block.split(b"\n")[:-1]
        wrong, texts = None, []
        for row, line in enumerate(lines, done + 1):
            try:
                texts.append(_texts(line, task, row))
            except DataError as error:
                wrong = error
                break
            if "" in texts[-1]:
                empty.append(row)
            if task.kind == "single" and b"\t" in line:
                tabs.append(row)
        if texts:
            yield [list(column) for column in zip(*texts, strict=True)]
        if wrong:
            raise wrong
        done += len(lines)
    table = "with a tab in the text; if this is a table, name its file with --input"
    for rows, what in ((tabs, table), (empty, "with an empty text are predicted too")):
        if rows:
            reporter.warn(f"{NAME}: {len(rows)} rows (the first is row {rows[0]}) {what}")


def _after_mark(stream: BufferedIOBase) -> Callable[[int], bytes]:
    """Return a function that reads what is there, without a byte order mark."""
    head, mark = b"", codecs.BOM_UTF8
    while head != mark and mark.startswith(head) and (more := stream.read1(BLOCK)):
        head += more
    heads = [head.removeprefix(mark)]
    return lambda size: (heads.pop() if heads else b"") or stream.read1(size)


def _texts(line: bytes, task: Task, row: int) -> list[str]:
    """Return the texts of a line, one or two."""
    line = line.removesuffix(b"\r")
    check_utf8(line, NAME, row)
    if task.kind == "single":
        return [line.decode()]
    texts = line.decode().split("\t")
    if len(texts) != 2:
        hint = f"{task.name} takes pairs; name a table with --input FILE"
        raise DataError("a pair is two texts with one tab between them", file=NAME, row=row, hint=hint)
    return texts
