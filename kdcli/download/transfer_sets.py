"""Transfer sets made by others: what their files are, and what ``kd`` can do with each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdcli.errors import DataError
from kdcli.tables.forms import form_of, is_gzip, open_bytes

_BLOCK = 1 << 20
_BESIDE = re.compile(r"readme|licen[cs]e|^\.|\.(md|py|sh|json|jsonl|parquet|pt|pkl|bin|html|pdf)$", re.IGNORECASE)
_TASKS = {"sst": "sst2", "cola": "cola", "mrpc": "mrpc", "sts": "stsb", "qqp": "qqp", "mnli": "mnli", "qnli": "qnli"}


@dataclass(frozen=True)
class Found:
    """A file among transfer sets.

    Attributes:
        path: Where it is in their folder.
        size: Its bytes.
        rows: Its lines, a header included; None where it is no file of lines.
        holds: Texts, texts with a teacher's logits, or something else.
    """

    path: Path
    size: int
    rows: int | None
    holds: Literal["texts", "logits", "other"]


def look(folder: Path, files: Sequence[Path]) -> list[Found]:
    """Tell what the files of a folder are, by their names and first lines.

    A file of lines whose name tells no form of a table gets one that does: ``.txt``, or with tabs ``.tsv``.
    """
    found = [_look(path) for path in files]
    return [Found(file.path.relative_to(folder), file.size, file.rows, file.holds) for file in found]


def next_commands(folder: Path, found: Sequence[Found]) -> Iterator[str]:
    """Give a command for the largest file of texts, and one for the largest with logits."""
    largest = {file.holds: file for file in sorted(found, key=lambda file: file.size)}
    for holds in ("texts", "logits"):
        if holds not in largest:
            continue
        path = folder / largest[holds].path
        task = next((task for part, task in _TASKS.items() if part in str(largest[holds].path).lower()), "sst2")
        start = f"--profile {task} --data-dir data/{task}"
        if holds == "texts":
            yield f"kd run-all {start} --set transfer.method=corpus --set 'transfer.corpus.files=[\"{path}\"]'"
        else:
            yield f"kd student {start} --input {path}"


def _look(path: Path) -> Found:
    size, other = path.stat().st_size, Found(path, path.stat().st_size, None, "other")
    if _BESIDE.search(path.name) or "__MACOSX" in path.parts:
        return other
    try:
        first, rows = _lines(path)
    except DataError:
        return other
    try:
        form_of(path)
    except DataError:
        renamed = path.with_name(path.name + (".tsv" if "\t" in first else ".txt"))
        if is_gzip(path) or renamed.exists():
            return other
        path = path.rename(renamed)
    return Found(path, size, rows, "logits" if re.search(r"(^|\t)logits_0(\t|\r?\n)", first) else "texts")


def _lines(path: Path) -> tuple[str, int]:
    """Return the first line of a file and the number of lines.

    Raises:
        DataError: These are no lines of text.
    """
    with open_bytes(path) as stream:
        last = stream.readline(_BLOCK)
        try:
            first = last.decode()
        except UnicodeDecodeError as error:
            raise DataError("not UTF-8", file=path, row=1) from error
        if "\0" in first or not first.endswith("\n"):
            raise DataError("no lines of text", file=path, row=1)
        rows = 1
        while block := stream.read(_BLOCK):
            rows += block.count(b"\n")
            last = block
        return first, rows + (not last.endswith(b"\n"))
