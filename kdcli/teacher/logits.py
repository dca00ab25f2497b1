"""The logits file: a teacher's logits, each row with the hash of its text; and which logit is which label's."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.files import atomic
from kdcli.tables.text_hash import text_hash, text_hash_v1
from kdcli.tasks.answers import answers as answers_of, written
from kdcli.tasks.text_set import STATES

FORMAT = "kd.logits/2"
HashTexts = Callable[[Sequence[pl.Series]], NDArray[np.uint64]]
Piece = tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.floating[Any]] | None]
"""Rows of a logits file: hashes by ``text_hash`` ``[n]``, logits ``[n, outputs]``, representations ``[n, size]``."""
KINDS: Mapping[str, np.dtype[Any]] = {"row_hash": np.dtype("<u8"), "logits": np.dtype("<f4"), STATES: np.dtype("<f2")}
HASHES: Mapping[Any, HashTexts] = {FORMAT: text_hash, "kd.logits/1": text_hash_v1}
"""How each format hashes the texts of a row."""


@dataclass(frozen=True)
class Logits:
    """Logits of texts."""

    logits: NDArray[np.float32]  # [N, outputs], in the order of the task's labels
    hashes: NDArray[np.uint64] | None  # [N], of each row's texts; None: row i belongs to row i of the transfer set
    metadata: Mapping[str, Any]
    hash_texts: HashTexts = text_hash
    states: NDArray[np.float16] | None = None  # the teacher's representations ``[N, size]``, where they were exported

    def rows(self, texts: Sequence[pl.Series], start: int) -> NDArray[np.int64]:
        """Return the row of logits of each text, ``int64 [texts]``; -1 where there is none.

        ``texts`` are columns of the rows of the transfer set from number ``start`` on.
        """
        if self.hashes is None:
            return np.arange(start, start + len(texts[0]), dtype=np.int64)
        wanted = self.hash_texts(texts)
        if not len(self.hashes):
            return np.full(len(wanted), -1, np.int64)
        ordered, order = self._ordered
        place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        return np.where(ordered[place] == wanted, order[place], -1)

    def unanswered(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return for rows of logits whether the teacher has left the text without an answer, ``bool [texts]``."""
        return np.isnan(logits[:, 0]) & bool(self.metadata.get("unanswered"))

    @cached_property
    def _ordered(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        assert self.hashes is not None
        order = np.argsort(self.hashes, kind="stable")
        return self.hashes[order], order


def write_logits(path: Path, pieces: Iterable[Piece], rows: int, metadata: Mapping[str, Any]) -> None:
    """Write a logits file piece by piece, whole or not at all; equal input gives equal bytes.

    The pieces, one at least, have ``rows`` rows together. ``metadata`` holds JSON values: ``labels`` in order (empty
    for a score), and where the logits come from. The file is what ``safetensors`` itself would write.
    """
    pieces = iter(pieces)
    first = next(pieces)
    shapes = {name: [rows, *values.shape[1:]] for name, values in _arrays(first).items()}
    # One entry: some versions of the library write several in random order.
    header: dict[str, Any] = {"__metadata__": {"kd": json.dumps({"format": FORMAT, **metadata})}}
    end = 0
    for name, shape in shapes.items():
        kind, begin, end = KINDS[name], end, end + math.prod(shape) * KINDS[name].itemsize
        dtype = f"{kind.kind.upper()}{8 * kind.itemsize}"  # U64, F32, F16
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    place = {name: 8 + len(text) + header[name]["data_offsets"][0] for name in shapes}
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in chain([first], pieces):
            for name, values in _arrays(piece).items():
                file.seek(place[name])
                place[name] += file.write(values.tobytes())


def _arrays(piece: Piece) -> dict[str, NDArray[Any]]:
    """Return the arrays of a piece by name, in the order of the file: the larger numbers first."""
    named = zip(KINDS, piece, strict=True)
    return {name: values.astype(KINDS[name], copy=False) for name, values in named if values is not None}


def header_of(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the number of rows of a logits file that kd wrote, and its metadata."""
    with safe_open(path, framework="numpy") as file:
        return file.get_slice("row_hash").get_shape()[0], json.loads(file.metadata()["kd"])


def read_logits(path: Path, task: Task) -> Logits:
    """Read a logits file; another file, one cut short or for other labels is a ``DataError``."""
    if not path.is_file():
        raise DataError("there is no such file", file=path)
    try:
        with safe_open(path, framework="numpy") as file:  # checks the header and the size of the file
            metadata = json.loads((file.metadata() or {}).get("kd", "{}"))
            names = {"logits", "row_hash", STATES} & set(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:  # NumPy has no bfloat16 and no float8
        what = f"the file is cut short, or is not a safetensors file: {error}"
        raise DataError(what, file=path, hint="make it again") from error
    known = isinstance(metadata, dict) and metadata.get("format") in list(HASHES)
    if not known or not {"logits", "row_hash"} <= tensors.keys():
        raise DataError(f"this is not a logits file ({FORMAT})", file=path, hint="`kd teacher export` writes one")
    labels = metadata.get("labels", [])
    if labels != list(task.labels):
        sets = (labels if isinstance(labels, list) else [labels], task.labels)
        theirs, ours = (f"labels {', '.join(map(str, names))}" if names else "a score" for names in sets)
        what = f"the logits are for {theirs}, and the task has {ours}"
        raise DataError(what, file=path, hint="export them again for this task")
    if metadata.get("multi_label", False) != task.multi_label:
        what = "the logits are of one label a text" if task.multi_label else "the logits are of a multi-label teacher"
        raise DataError(what, file=path, key="task.multi_label", hint="export them again for this task")
    logits, hashes, states = tensors["logits"], tensors["row_hash"], tensors.get(STATES)
    wrong = [name for name, tensor in tensors.items() if tensor.dtype != KINDS[name]]
    fits = states is None or (states.ndim == 2 and len(states) == len(hashes))
    if wrong or hashes.ndim != 1 or logits.shape != (len(hashes), task.outputs) or not fits:
        found = ", ".join(f"{name} {tensor.dtype} {list(tensor.shape)}" for name, tensor in tensors.items())
        what, key = f"{found} do not belong into one logits file", wrong[0] if wrong else None
        raise DataError(what, file=path, key=key, hint="export them again")
    return Logits(logits, hashes, metadata, HASHES[metadata["format"]], states)


def with_answers(logits: Logits, table: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Return a table with the teacher's answers, its choices or scores, as ``label``; without the unanswered rows."""
    rows = logits.rows([table[name] for name in task.columns], 0)
    if (rows < 0).any():
        text = table[task.columns[0]][int(np.argmax(rows < 0))]
        raise DataError(f"there are no logits for the text {text[:80]!r}", hint="export them again: --force")
    found = logits.logits[rows]
    there = ~logits.unanswered(found)
    return table.filter(there).with_columns(labels_of(found[there], task))


def labels_of(logits: NDArray[np.float32], task: Task) -> pl.Series:
    """Return logits ``[rows, outputs]`` as labels: the most probable class, a set of labels, or the score, as text.

    A score is the shortest number that reads back as the same float32.
    """
    chosen = answers_of(logits, task)
    if task.is_score:
        return pl.Series("label", np.ascontiguousarray(chosen)).cast(pl.String).str.replace(r"\.0$", "")
    return pl.Series("label", written(chosen, task.labels), pl.String)


def logit_columns(logits: NDArray[np.float32]) -> list[pl.Series]:
    """Return the columns ``logits_0``, ``logits_1``, ... of a table."""
    return [pl.Series(f"logits_{number}", np.ascontiguousarray(column)) for number, column in enumerate(logits.T)]


def state_column(states: NDArray[np.floating[Any]] | None) -> list[pl.Series]:
    """Return representations ``[rows, size]`` as a column of float16 arrays; no column where there are none."""
    if states is None or not states.shape[1]:
        return []
    return [pl.Series(STATES, states.astype(np.float16), pl.Array(pl.Float16, states.shape[1]))]


def label_positions(names: Sequence[str], task: Task) -> list[int] | None:
    """Return for each label of the task its position in ``names``; None unless each is there exactly once.

    The names may be the labels or their readable names, as written, else without regard to case, ``_`` and ``-``.
    """
    for fold in (str.strip, _fold):
        found, *ours = ([fold(name) for name in some] for some in (names, task.labels, task.names))
        for wanted in ours:
            if wanted and len(set(wanted)) == len(wanted) and all(found.count(name) == 1 for name in wanted):
                return [found.index(name) for name in wanted]
    return None


def _fold(name: str) -> str:
    return re.sub(r"(?<=\S)[\s_-]+(?=\S)", " ", name.strip()).casefold()
