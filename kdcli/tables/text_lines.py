"""Lines of text, in blocks or as soon as they come; it needs no Polars, so that a student predicts with little else."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path

from kdcli.api import Reporter, Task
from kdcli.errors import DataError

STDIN = "stdin"
BLOCK = 3 << 20
"""Bytes of text that are read and parsed at once."""


def check_utf8(data: bytes, path: str | Path, row: int) -> None:
    """Check that whole lines are UTF-8; ``row`` is the number of the first."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.start - data.rfind(b"\n", 0, error.start)
        row += data.count(b"\n", 0, error.start)
        what = f"not UTF-8: byte {byte} of the row is 0x{data[error.start]:02x}"
        hint = "convert the file: iconv -f ENCODING -t UTF-8 FILE > NEW"
        raise DataError(what, file=path, row=row, hint=hint) from None


def whole_lines(read: Callable[[int], bytes], before: bytes = b"") -> Iterator[bytes]:
    """Cut what a function reads into blocks of whole lines, each after ``before``; the last line gets a line end."""
    held = [before]
    while data := read(BLOCK):
        if cut := data.rfind(b"\n") + 1:
            yield b"".join([*held, memoryview(data)[:cut]])
            held = [before]
        held.append(data[cut:])
    last = b"".join(held)
    if len(last) > len(before):
        yield last + (b"\r\n" if last.endswith(b"\r") else b"\n")  # a lone CR at the end of the file is text


def read_lines(stream: BufferedIOBase, task: Task, reporter: Reporter, name: str = STDIN) -> Iterator[list[list[str]]]:
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
            reporter.warn(f"{STDIN}: {len(rows)} rows (the first is row {rows[0]}) {what}")


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
    check_utf8(line, STDIN, row)
    if task.kind == "single":
        return [line.decode()]
    texts = line.decode().split("\t")
    if len(texts) != 2:
        hint = f"{task.name} takes pairs; name a table with --input FILE"
        raise DataError("a pair is two texts with one tab between them", file=STDIN, row=row, hint=hint)
    return texts
