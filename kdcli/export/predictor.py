"""The program in a file of ``kd export binary``: the output of ``kd predict`` for lines, by one student.

It needs what the student's NumPy form needs: neither PyTorch nor Polars, nor the libraries of the command line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np

from kdcli import __version__
from kdcli.errors import DataError, KdError, UsageError, each
from kdcli.student.student import Student, load_student
from kdcli.tables.text_lines import STDIN, read_lines
from kdcli.tasks.answers import shown


def main(folder: Path, runs_on: str) -> int:
    """Predict as the command line says, with the student in a folder, and return the exit code."""
    parser = argparse.ArgumentParser(description="Predict a label, or a score, for each line of text.")
    parser.add_argument("-i", "--input", metavar="FILE", help="lines of text (default: stdin)")
    parser.add_argument("--probabilities", action="store_true", help="the probability of each label too")
    parser.add_argument("-V", "--version", action="version", version=f"kd {__version__} for {runs_on}")
    given = parser.parse_args()
    try:
        code = next(folder.parent.glob("code/*.py"), None)
        student = load_student(folder, code=code)
        if given.probabilities and student.task.is_score:
            raise UsageError("this student predicts scores, which have no probabilities")
        with Path(given.input).open("rb") if given.input else nullcontext(sys.stdin.buffer) as stream:
            for text in predicted(student, stream, given.input or STDIN, probabilities=given.probabilities):
                sys.stdout.buffer.write(text.encode())
                sys.stdout.buffer.flush()
    except BrokenPipeError:  # nobody reads it any more, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return _fail(DataError(f"this file cannot be read: {error.strerror}", file=error.filename))
    except KdError as error:
        return _fail(error)
    return 0


def predicted(student: Student, stream: Any, name: str, *, probabilities: bool = False) -> Iterator[str]:
    """Yield the rows of ``kd predict`` for the lines of a stream as soon as they are there, as TSV."""
    task, done = student.task, 0
    names = [f"probability_{label}" for label in task.labels if probabilities]
    for columns in read_lines(stream, task, cast(Any, _Warnings()), name):
        found = shown(student.logits(columns), task, shares=probabilities)
        texts = list(zip(*([_cell(value) for value in column] for column in found.values()), strict=True))
        rows = zip(texts, *columns, strict=True)
        kept = [row if any(map(str.strip, cells)) else [""] * len(row) for row, *cells in rows]
        head = "" if done else "\t".join(["index", "prediction", *names]) + "\n"
        yield head + "".join("\t".join([str(index), *row]) + "\n" for index, row in enumerate(kept, done))
        done += len(kept)
    if not done:
        hint = "pipe lines of text into it, or name a file with --input FILE"
        raise DataError("there is no line to predict", file=name, hint=hint)


def _cell(value: Any) -> str:
    """Write a value as Polars does."""
    if isinstance(value, str):
        return value
    if value == 0 or 1e-6 <= abs(value) < 1e13:
        return np.format_float_positional(value, trim="0")
    return np.format_float_scientific(value, trim="-", exp_digits=1)


def _fail(error: KdError) -> int:
    for one in each(error):
        sys.stderr.write(f"error: {one}\n" + (f"hint: {one.hint}\n" if one.hint else ""))
    return error.exit_code


class _Warnings:
    """The reporter of ``read_lines``: warnings alone."""

    def warn(self, message: str) -> None:
        sys.stderr.write(f"warning: {message}\n")
