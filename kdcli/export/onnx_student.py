"""An exported student, ready to predict: onnxruntime in place of torch."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import DataError, MissingError, first_line
from kdcli.student.student import Student, task_of
from kdcli.student.vocabulary import Columns, load_tokenizer

FORMAT = "kd.onnx/1"
MODEL, INT8 = "model.onnx", "model.int8.onnx"
BATCH = 16
"""Texts that go through a graph at once: more of them overflow the processor's caches, and it takes longer."""


class Session:
    """A graph, ready to run on the CPU; with 0 threads, onnxruntime chooses their number."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        onnxruntime = need("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors alone: the export has shown the warnings
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own kinds have no common one
            what = f"onnxruntime cannot read this graph: {first_line(error)}"
            raise DataError(what, file=file, hint="`kd export onnx` writes it again") from error

    def __call__(self, words: Columns, lengths: Columns) -> NDArray[np.float32]:
        """Return logits, ``float32 [batch, outputs]``, of words ``[batch, time]`` and lengths ``[batch]``."""
        inputs: dict[str, NDArray[np.int64]] = {}
        for number, ids, counts in zip(("",) if len(words) == 1 else ("1", "2"), words, lengths, strict=True):
            inputs |= {f"words{number}": ids.astype(np.int64), f"lengths{number}": counts.astype(np.int64)}
        logits: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return logits


def load_onnx(folder: str | Path, file: str = MODEL, threads: int = 0) -> Student:
    """Load an exported student.

    Raises:
        DataError: The folder is not one that ``kd export onnx`` has written.
        MissingError: onnxruntime is not installed.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if config["format"] != FORMAT:
            raise ValueError(f"its format is {config['format']!r}, and {FORMAT!r} is expected")
        task = task_of(config)
    except (OSError, LookupError, TypeError, ValueError) as error:
        hint = "name the folder that `kd export onnx` has written"
        raise DataError(f"this is not a folder of an exported student: {error}", file=folder, hint=hint) from error
    session = Session(folder / file, threads)
    return Student(task, config, {}, load_tokenizer(folder), {}, compute=session, batch_rows=BATCH)


def need(library: str) -> Any:
    """Import onnx or onnxruntime; a ``MissingError`` holds the line that installs it."""
    try:
        return import_module(library)
    except ImportError as error:
        raise MissingError(f"ONNX needs the library {library}", hint="pip install 'kdcli[onnx]'") from error
