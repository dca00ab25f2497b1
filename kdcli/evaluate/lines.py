"""Predictions for lines of text as they come in: through a pipe, or typed."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from kdcli.api import Reporter, Task
from kdcli.errors import DataError
from kdcli.evaluate.predictions import Model, predictions
from kdcli.tables.strings import strings

NAME = "stdin"
BLOCK = 1 << 20
"""Bytes taken at once, where so many are there."""


class Stream(Protocol):
    """A stream of bytes that gives what is there without waiting for more."""

    def read1(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, as soon as there are any; none at the end."""


def predict_lines(
    model: Model, stream: Stream, reporter: Reporter, *, probabilities: bool = False
) -> Iterator[pa.RecordBatch]:
    """Predict a label, or a score, for each line as soon as it is there; memory does not grow with their number.

    Args:
        model: A student or a teacher.
        stream: A text a line, or two with a tab between them; lines end at LF or CRLF.
        reporter: Told of what is odd.
        probabilities: Give that of each label too.

    Returns:
        The columns of ``schema_of``; the lines are counted from 0.

    Raises:
        DataError: There is no line, or one is not UTF-8, or no pair; those before it are predicted.
    """
    done = 0
    for columns in read_lines(stream, model.task, reporter):
        rows = len(columns[0])
        index = strings([str(number) for number in range(done, done + rows)])
        yield predictions(model, index, columns, probabilities=probabilities)
        done += rows
    if not done:
        hint = "pipe lines of text into it, or name a table with --input FILE"
        raise DataError("there is no line to predict", file=NAME, hint=hint)


def read_lines(stream: Stream, task: Task, reporter: Reporter) -> Iterator[list[list[str]]]:
    """Give the lines that are there as soon as they are, as the text columns of the task.

    Raises:
        DataError: A line is not UTF-8, or no pair; those before it are given.
    """
    row = 1
    empty, tabs = _Odd(), _Odd()
    for lines in _whole_lines(stream):
        wrong, texts = None, []
        for number, line in enumerate(lines, row):
            try:
                texts.append(_texts(line, task, number))
            except DataError as error:
                wrong = error
                break
            empty.count(number, "" in texts[-1])
            tabs.count(number, task.kind == "single" and b"\t" in line)
        if texts:
            yield [list(column) for column in zip(*texts, strict=True)]
        if wrong:
            raise wrong
        row += len(lines)
    if tabs.rows:
        reporter.warn(f"{NAME}: {tabs} with a tab in the text; if this is a table, name its file with --input")
    if empty.rows:
        reporter.warn(f"{NAME}: {empty} with an empty text are predicted too")


@dataclass
class _Odd:
    """Rows with something odd about them: how many, and the first."""

    rows: int = 0
    first: int = 0

    def count(self, row: int, odd: bool) -> None:
        if odd:
            self.first = self.first or row
            self.rows += 1

    def __str__(self) -> str:
        return f"{self.rows} rows (the first is row {self.first})"


def _whole_lines(stream: Stream) -> Iterator[list[bytes]]:
    """Give the lines that have ended, and at last one that has not; without their ends and a byte order mark."""
    held: list[bytes] = []
    mark = codecs.BOM_UTF8
    while block := stream.read1(BLOCK):
        head, end, rest = block.rpartition(b"\n")
        if end:
            whole = b"".join([*held, head]).removeprefix(mark)
            yield [line.removesuffix(b"\r") for line in whole.split(b"\n")]
            held, mark = [], b""
        held.append(rest)
    if last := b"".join(held).removeprefix(mark):
        yield [last]


def _texts(line: bytes, task: Task, row: int) -> list[str]:
    """Return the texts of a line, one or two.

    Raises:
        DataError: It is not UTF-8, or no pair.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        what = f"not UTF-8: byte {error.start + 1} of the row is 0x{line[error.start]:02x}"
        hint = "convert the texts on their way: iconv -f ENCODING -t UTF-8"
        raise DataError(what, file=NAME, row=row, hint=hint) from None
    if task.kind == "single":
        return [text]
    texts = text.split("\t")
    if len(texts) != 2:
        hint = f"{task.name} takes pairs; a table is named with --input FILE"
        raise DataError("a pair is two texts with one tab between them", file=NAME, row=row, hint=hint)
    return texts
