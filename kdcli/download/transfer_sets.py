"""Transfer sets of other authors: what their files hold, and commands that take them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdcli.download.sources import SourceFile
from kdcli.errors import DataError
from kdcli.tables.forms import form_of, is_gzip, open_bytes

_BLOCK = 1 << 20
_BESIDE = re.compile(r"readme|licen[cs]e|^\.|\.(md|py|sh|json|jsonl|parquet|pt|pkl|bin|html|pdf)$", re.IGNORECASE)
_TASKS = {"sst": "sst2", "cola": "cola", "mrpc": "mrpc", "sts": "stsb", "qqp": "qqp", "mnli": "mnli", "qnli": "qnli"}


def describe(folder: Path, files: Sequence[Path]) -> list[SourceFile]:
    """Describe unpacked files by their names and first lines.

    A file of lines without the suffix of a table gets one: ``.tsv`` if there are tabs, else ``.txt``.
    """
    return [_describe(folder, path) for path in files]


def next_commands(folder: Path, files: Sequence[SourceFile]) -> Iterator[str]:
    """Yield a command for the largest file of texts, and one for the largest with logits."""
    largest = {file.holds: file for file in sorted(files, key=lambda file: file.size)}
    for holds in ("texts", "logits"):
        if holds not in largest:
            continue
        path = folder / largest[holds].path
        task = next((task for part, task in _TASKS.items() if part in largest[holds].path.lower()), "sst2")
        start = f"--profile {task} --data-dir data/{task}"
        if holds == "texts":
            yield f"kd run-all {start} --set transfer.method=corpus --set 'transfer.corpus.files=[\"{path}\"]'"
        else:
            yield f"kd student {start} --input {path}"


def _describe(folder: Path, path: Path) -> SourceFile:
    lines = None
    if not _BESIDE.search(path.name) and "__MACOSX" not in path.parts:
        lines = _lines(path)
    if lines:
        try:
            form_of(path)
        except DataError:
            renamed = path.with_name(path.name + (".tsv" if "\t" in lines[0] else ".txt"))
            lines = None if is_gzip(path) or renamed.exists() else lines
            path = path.rename(renamed) if lines else path
    name, size = path.relative_to(folder).as_posix(), path.stat().st_size
    if lines is None:
        return SourceFile(name, size, None, "other")
    return SourceFile(name, size, lines[1], "logits" if re.search(r"(^|\t)logits_0(\t|\r?\n)", lines[0]) else "texts")


def _lines(path: Path) -> tuple[str, int] | None:
    """Return the first line of a file and the number of lines; None if it does not hold lines of text."""
    try:
        with open_bytes(path) as stream:
            last = stream.readline(_BLOCK)
            first, rows = last.decode(), 1
            if "\0" in first or not first.endswith("\n"):
                return None
            while block := stream.read(_BLOCK):
                rows += block.count(b"\n")
                last = block
            return first, rows + (not last.endswith(b"\n"))
    except (DataError, UnicodeDecodeError):
        return None
