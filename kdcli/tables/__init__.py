"""Tables: read, write, hash. The only place that knows file formats.

Here are lines of text, in blocks or as soon as they come: without Polars, so that a student predicts with little else.
"""

import codecs
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path

from kdcli.api import Reporter, Task
from kdcli.errors import DataError

SEPARATOR = "|"
"""What stands between the labels of a text in a multi-label table; an empty text is no label at all."""
STDIN = "stdin"
BLOCK = 3 << 20  # bytes of text that are read and parsed at once


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


def read_lines(stream: BufferedIOBase, task: Task, reporter: Reporter) -> Iterator[list[list[str]]]:
    """Yield the lines that are there as soon as they are, as the text columns of the task."""
    done = 0
    empty: list[int] = []
    tabs: list[int] = []
    for block in whole_lines(stream.read1):
        block = block if done else block.removeprefix(codecs.BOM_UTF8)
        check_utf8(block, STDIN, done + 1)
        lines = [line.removesuffix("\r") for line in block.decode().split("\n")[:-1]]
        rows = [line.split("\t") if task.kind == "pair" else [line] for line in lines]
        for row, texts in enumerate(rows, done + 1):
            if len(texts) != len(task.columns):
                hint = f"{task.name} takes pairs; name a table with --input FILE"
                raise DataError("a pair is two texts with one tab between them", file=STDIN, row=row, hint=hint)
            empty += [row] if "" in texts else []
            tabs += [row] if "\t" in texts[0] else []
        yield [list(column) for column in zip(*rows, strict=True)]
        done += len(lines)
    table = "with a tab in the text; if this is a table, name its file with --input"
    for odd, what in ((tabs, table), (empty, "with an empty text")):
        if odd:
            reporter.warn(f"{STDIN}: {len(odd)} rows (the first is row {odd[0]}) {what}")
