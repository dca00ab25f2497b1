"""Predictions for lines of text as they come: through a pipe, or typed."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase

import polars as pl

from kdcli.api import Reporter
from kdcli.errors import DataError
from kdcli.evaluate.predict import Model, predict_texts
from kdcli.tables.text_lines import STDIN, read_lines


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
        raise DataError("there is no line to predict", file=STDIN, hint=hint)
