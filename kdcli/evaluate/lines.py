"""Predictions for lines of text as they come: through a pipe, or typed."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from io import BufferedIOBase

import polars as pl

from kdcli.api import Reporter, Task
from kdcli.errors import DataError
from kdcli.evaluate.predict import Model, predict_texts
from kdcli.tables.text import check_utf8, whole_lines

NAME = "stdin"


def predict_lines(
    model: Model, stream: BufferedIOBase, reporter: Reporter, *, probabilities: bool = False
) -> Iterator[pl.DataFrame]:
    """Predict a label, or a score, for each line as soon as it is there; memory does not grow with their number.

    A line holds a text, or two with a tab between them, and ends at LF or CRLF. The index counts the lines from 0.

    Raises:
        DataError: There is no line, or one is not UTF-8, or no pair.
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
    for block in whole_lines(stream.read1):
        block = block if done else block.removeprefix(codecs.BOM_UTF8)
        check_utf8(block, NAME, done + 1)
        lines = [line.removesuffix("\r") for line in block.decode().split("\n")[:-1]]
        rows = [line.split("\t") if task.kind == "pair" else [line] for line in lines]
        for row, texts in enumerate(rows, done + 1):
            if len(texts) != len(task.columns):
                hint = f"{task.name} takes pairs; name a table with --input FILE"
                raise DataError("a pair is two texts with one tab between them", file=NAME, row=row, hint=hint)
            empty += [row] if "" in texts else []
            tabs += [row] if "\t" in texts[0] else []
        yield [list(column) for column in zip(*rows, strict=True)]
        done += len(lines)
    table = "with a tab in the text; if this is a table, name its file with --input"
    for odd, what in ((tabs, table), (empty, "with an empty text are predicted too")):
        if odd:
            reporter.warn(f"{NAME}: {len(odd)} rows (the first is row {odd[0]}) {what}")
