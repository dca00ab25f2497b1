"""The logits file: a teacher's logits, each row under the hash of its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.files import atomic

FORMAT = "kd.logits/1"
_DTYPES: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "U64": np.dtype("<u8")}


@dataclass(frozen=True)
class Logits:
    """Logits of texts.

    Attributes:
        logits: ``float32 [N, outputs]``, in the order of the task's labels; memory-mapped where the file allows it.
        hashes: ``uint64 [N]``, the hash of each row's texts; None: row *i* belongs to row *i* of the transfer set.
        metadata: What the file says of itself.
    """

    logits: NDArray[np.float32]
    hashes: NDArray[np.uint64] | None
    metadata: Mapping[str, Any]

    def rows(self, hashes: NDArray[np.uint64], start: int) -> NDArray[np.int64]:
        """Return which row of the logits belongs to each text; -1 where there is none.

        Args:
            hashes: ``uint64 [texts]``, the hashes of the texts.
            start: The number of the first of them in the transfer set, counted from 0.
        """
        if self.hashes is None:
            return np.arange(start, start + len(hashes), dtype=np.int64)
        ordered, order = self._ordered
        if not len(ordered):
            return np.full(len(hashes), -1, np.int64)
        place = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
        return np.where(ordered[place] == hashes, order[place], -1)

    @cached_property
    def _ordered(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        assert self.hashes is not None
        order = np.argsort(self.hashes, kind="stable")
        return self.hashes[order], order


def write_logits(
    path: Path, logits: NDArray[np.float32], hashes: NDArray[np.uint64], metadata: Mapping[str, Any]
) -> None:
    """Write a logits file, whole or not at all.

    Args:
        path: The file, ``.safetensors``.
        logits: ``float32 [N, outputs]``.
        hashes: ``uint64 [N]``.
        metadata: JSON values: ``labels`` in order (empty for a score), and where the logits come from.
    """
    with atomic(path) as temporary:
        save_tensors(temporary, {"logits": logits, "row_hash": hashes}, {"format": FORMAT, **metadata})


def save_tensors(path: Path, tensors: dict[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write arrays and JSON metadata as a safetensors file; equal input gives equal bytes."""
    # One entry: some versions of the library write several in random order.
    save_file(tensors, path, metadata={"kd": json.dumps(metadata)})


def read_logits(path: Path, task: Task) -> Logits:
    """Open a logits file.

    Raises:
        DataError: It is no logits file, is cut short, or is for other labels.
    """
    tensors, metadata = open_tensors(path)
    if metadata.get("format") != FORMAT or set(tensors) != {"logits", "row_hash"}:
        raise DataError(f"this is no logits file ({FORMAT})", file=path, hint="`kd teacher export` writes one")
    labels = metadata.get("labels", [])
    if labels != list(task.labels):
        what = f"the logits are for {_named(labels)}, and the task has {_named(task.labels)}"
        raise DataError(what, file=path, hint="export them again for this task")
    logits, hashes = tensors["logits"], tensors["row_hash"]
    if logits.shape != (len(hashes), task.outputs) or hashes.ndim != 1:
        what = f"logits {list(logits.shape)} and row_hash {list(hashes.shape)} do not belong together"
        raise DataError(what, file=path)
    return Logits(logits, hashes, metadata)


def open_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Map a file of ``save_tensors`` into memory: its arrays by name, and its metadata.

    Raises:
        DataError: It is missing, is cut short, or is not of this kind.
    """
    if not path.is_file():
        raise DataError("there is no such file", file=path)
    try:
        with safe_open(path, framework="numpy") as file:  # checks the header and the size of the file
            metadata = json.loads((file.metadata() or {}).get("kd", "{}"))
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(size))
        header.pop("__metadata__", None)
        return {name: _mapped(path, 8 + size, entry) for name, entry in header.items()}, metadata
    except (SafetensorError, ValueError, KeyError) as error:
        what = f"the file is cut short, or is no safetensors file of kd: {error}"
        raise DataError(what, file=path, hint="make it again") from error


def _mapped(path: Path, start: int, entry: Mapping[str, Any]) -> NDArray[Any]:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    if 0 in shape:  # nothing to map, and an empty map is an error
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", start + entry["data_offsets"][0], shape)


def _named(labels: Any) -> str:
    return f"labels {', '.join(map(str, labels))}" if labels else "a score"
