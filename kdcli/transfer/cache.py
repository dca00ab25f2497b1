"""The task's texts as a generator learns them: one text a line, in three files (Tang, Lu, Lin 2019, "Cache")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kdcli.api import Corpus, QuietReporter, Reporter, Task
from kdcli.errors import DataError, ProfileError
from kdcli.files import atomic
from kdcli.tasks.split import SPLITS
from kdcli.transfer.cleaning import one_line


@dataclass(frozen=True)
class CacheResult:
    """What was cached.

    Attributes:
        train: Texts to learn from.
        dev: Texts that choose among checkpoints.
        test: Texts of the test set.
        blank: Rows left out, because they (or one text of a pair) are blank.
        characters: Characters of all texts.
        words: Words of all texts.
    """

    train: int
    dev: int
    test: int
    blank: int
    characters: int
    words: int


def cache(
    *,
    splits: Mapping[str, pa.Table],
    task: Task,
    labels: Sequence[str] = (),
    output: Path,
    reporter: Reporter | None = None,
) -> CacheResult:
    """Write the texts of ``train``, ``dev`` and ``test`` into a folder, one a line and without labels.

    Tabs and line ends inside a text become spaces; the two texts of a pair stand around the only tab of their line.

    Args:
        splits: The tables: the task's text columns, and ``label``.
        task: The task.
        labels: Take the rows of these labels only, where a split has labels; empty = all.
        output: The folder to write.
        reporter: Told of rows that are left out.

    Raises:
        DataError: A split that is needed has no texts (with these labels).
        ProfileError: The task has no such label.
    """
    reporter = reporter or QuietReporter()
    if unknown := [label for label in labels if label not in task.labels]:
        hint = f"its labels are {', '.join(task.labels) or 'none: it has scores'}"
        raise ProfileError(f"the task has no label {unknown[0]!r}", key="transfer.heavy.labels", hint=hint)
    texts = {name: _texts(splits[name], task, labels) if name in splits else [] for name in SPLITS}
    kept = {name: [text for text in lines if text] for name, lines in texts.items()}
    for name in ("train", "dev"):
        if not kept[name]:
            of, key = (f" of label {' or '.join(labels)}", "transfer.heavy.labels") if labels else ("", None)
            hint = "a generator learns from the train texts, and the dev texts choose among its checkpoints"
            raise DataError(f"the {name} set has no texts{of}", key=key, hint=hint)
    blank = sum(len(lines) - len(kept[name]) for name, lines in texts.items())
    if blank:
        reporter.warn(f"{blank} rows have a blank text and are left out of the cache")
    with atomic(output) as temporary:
        temporary.mkdir()
        for name, lines in kept.items():
            (temporary / f"{name}.txt").write_bytes("".join(f"{line}\n" for line in lines).encode())
    everything = [text for lines in kept.values() for text in lines]
    sizes = {name: len(lines) for name, lines in kept.items()}
    return CacheResult(
        **sizes, blank=blank, characters=sum(map(len, everything)), words=sum(len(text.split()) for text in everything)
    )


def read_corpus(folder: Path, task: Task) -> Corpus:
    """Read what ``cache`` wrote.

    Raises:
        DataError: The folder holds something else, or the texts of a task of another kind.
    """
    try:
        texts = {name: _lines(folder / f"{name}.txt", tabs=len(task.columns) - 1) for name in SPLITS}
    except (OSError, ValueError) as error:
        hint = "`kd transfer heavy --only cache --force` makes it again"
        raise DataError(f"this is no cache of {task.kind} texts: {error}", file=folder, hint=hint) from error
    return Corpus(task.kind, **texts)


def _lines(path: Path, tabs: int) -> list[str]:
    *lines, rest = path.read_bytes().decode().split("\n")
    wrong = next((number for number, line in enumerate(lines, 1) if not line or line.count("\t") != tabs), None)
    if rest or wrong:
        raise ValueError(f"line {wrong or len(lines) + 1} of {path.name} is none")
    return lines


def _texts(table: pa.Table, task: Task, labels: Sequence[str]) -> list[str]:
    if labels and table["label"].null_count < len(table):
        table = table.filter(pc.is_in(table["label"].cast(pa.string()), pa.array(labels)))
    columns = [[one_line(text or "") for text in table[name].to_pylist()] for name in task.columns]
    return ["\t".join(row) if all(row) else "" for row in zip(*columns, strict=True)]
