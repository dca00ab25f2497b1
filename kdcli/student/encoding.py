"""Tables as the arrays that a student is trained and evaluated on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer

from kdcli.api import MASK, Progress, QuietReporter, Reporter, Task
from kdcli.data.files import atomic
from kdcli.data.tables import TableReader, read_table
from kdcli.errors import DataError
from kdcli.profile.schema import StudentSettings
from kdcli.student.examples import Examples, ExampleWriter, load_examples
from kdcli.student.vocabulary import (
    SPECIAL,
    TextEncoder,
    Texts,
    load_tokenizer,
    save_tokenizer,
    train_vocabulary,
    vocabulary,
    word_type,
)
from kdcli.student.word_vectors import Vectors, load_vectors, make_vectors, save_vectors
from kdcli.tasks.layouts import encode_labels

__all__ = [
    "EncodeResult",
    "Examples",
    "Vectors",
    "encode",
    "encode_table",
    "load_examples",
    "load_tokenizer",
    "load_vectors",
]

ROWS = 65_536


@dataclass(frozen=True)
class EncodeResult:
    """What became of the joined set.

    Attributes:
        rows: Its rows.
        words: Their words, as far as texts are kept.
        unknown: The share of these words that have no id.
        vocabulary: Words that have one, the special ones included.
        labelled: Whether every row has a label.
        vectors: What the word vectors were made from; empty for random ones.
        found: Words of the vocabulary that have a vector there.
    """

    rows: int
    words: int
    unknown: float
    vocabulary: int
    labelled: bool
    vectors: str
    found: int


def encode(
    *,
    joined: Path,
    task: Task,
    settings: StudentSettings,
    seed: int,
    device: str = "cpu",
    encoder: str = "",
    output: Path,
    reporter: Reporter | None = None,
) -> EncodeResult:
    """Turn the joined set into a folder of arrays, with its vocabulary and, if asked for, word vectors.

    The set is read twice as a stream; memory does not grow with its rows.

    Args:
        joined: A table with the task's text columns, ``logits_0`` and so on, and (optionally) ``label``.
        task: The task.
        settings: The student's settings.
        seed: Seed of the vectors of words that have none.
        device: Where an encoder runs.
        encoder: What ``settings.vectors`` stands for: a vector file, or an encoder's folder or hub name.
        output: The folder to write.
        reporter: Shows the progress.

    Raises:
        DataError: A column is missing, a logit is no finite number, a label is not the task's, there is no word, or
            none has a vector in the file.
    """
    reporter = reporter or QuietReporter()
    table = _open(joined, task)
    with reporter.progress("vocabulary") as progress:
        tokenizer = train_vocabulary(
            _texts(table, task, progress),
            max_size=settings.max_size,
            min_freq=settings.min_freq,
            lowercase=settings.lowercase,
        )
    vectors = None
    if settings.vectors:
        vectors = make_vectors(
            vocabulary(tokenizer),
            source=encoder or settings.vectors,
            dimension=settings.dimension,
            seed=seed,
            device=device,
            reporter=reporter,
        )
    with atomic(output) as folder:
        folder.mkdir()
        save_tokenizer(tokenizer, folder)
        if vectors:
            save_vectors(vectors, folder)
        result = _write_arrays(folder, table, task, tokenizer, settings.max_length, vectors, reporter)
        (folder / "encoded.json").write_text(json.dumps(asdict(result), indent=1) + "\n", "utf-8")
    return result


def encode_table(
    table: pa.Table, tokenizer: Tokenizer, task: Task, max_length: int, *, file: str | Path = "the table"
) -> Examples:
    """Turn a table in memory into examples without logits.

    Args:
        table: ``task.columns``, and ``label``; without it, or if it is all null, the examples have no labels.
        tokenizer: The student's.
        task: The task.
        max_length: The most words that are kept of a text.
        file: What messages call the table.

    Raises:
        DataError: A label is missing, or not the task's.
    """
    encoder, texts = TextEncoder(tokenizer, max_length), []
    for column in task.columns:
        pieces = [
            encoder.encode(chunk.slice(begin, ROWS))
            for chunk in table[column].chunks
            for begin in range(0, len(chunk), ROWS)
        ]
        lengths = np.concatenate([np.zeros(1, np.int64), *(piece.lengths for piece in pieces)])
        words = np.concatenate([np.zeros(0, word_type(tokenizer)), *(piece.words for piece in pieces)])
        texts.append(Texts(words, np.cumsum(lengths)))
    labelled = "label" in table.column_names and table["label"].null_count < len(table)
    return Examples(tuple(texts), labels=encode_labels(table["label"], task, file=file) if labelled else None)


def _open(joined: Path, task: Task) -> TableReader:
    there = read_table(joined).columns
    logits = [f"logits_{number}" for number in range(task.outputs)]
    for name in (*task.columns, *logits):
        if name not in there:
            hint = f"`kd join` makes such a table; the columns of this one are {', '.join(there)}"
            raise DataError(f"there is no column {name!r}", file=joined, key=name, hint=hint)
    if f"logits_{task.outputs}" in there:
        what = f"there are more logits than the {task.outputs} of task {task.name}"
        raise DataError(what, file=joined, hint="task.labels must name the classes of this table")
    return read_table(joined, columns=[*task.columns, *logits, *(["label"] if "label" in there else [])])


def _texts(table: TableReader, task: Task, progress: Progress) -> Iterator[pa.Array]:
    for batch in table:
        for column in task.columns:
            yield batch[column]
        progress.advance(batch.num_rows)


def _write_arrays(
    folder: Path,
    table: TableReader,
    task: Task,
    tokenizer: Tokenizer,
    max_length: int,
    vectors: Vectors | None,
    reporter: Reporter,
) -> EncodeResult:
    unknown = SPECIAL.index(MASK)
    encoder = TextEncoder(tokenizer, max_length)
    words = unknowns = 0
    with (
        ExampleWriter(folder, task, word_type(tokenizer)) as writer,
        reporter.progress("encode") as progress,
    ):
        for numbers, batch in table.numbered():
            texts = [encoder.encode(batch[column]) for column in task.columns]
            writer.write(texts, _logits(batch, numbers, task, table.path), _labels(batch, numbers, task, table.path))
            words += sum(len(text.words) for text in texts)
            unknowns += sum(int((text.words == unknown).sum()) for text in texts)
            unknowns -= sum(pc.sum(pc.count_substring(batch[column], MASK)).as_py() or 0 for column in task.columns)
            progress.advance(batch.num_rows)
    return EncodeResult(
        writer.rows,
        words,
        max(unknowns, 0) / words,
        tokenizer.get_vocab_size(),
        writer.labelled,
        vectors.source if vectors else "",
        vectors.found if vectors else 0,
    )


def _logits(batch: pa.RecordBatch, numbers: NDArray[np.int64], task: Task, path: Path) -> NDArray[np.float32]:
    names = [f"logits_{number}" for number in range(task.outputs)]
    return np.stack([_floats(batch, name, numbers, path) for name in names], axis=1)


def _labels(batch: pa.RecordBatch, numbers: NDArray[np.int64], task: Task, path: Path) -> NDArray[Any] | None:
    """Encode the labels if all rows have one."""
    if "label" not in batch.schema.names or pc.any(pc.is_in(batch["label"].cast(pa.string()), _NO_LABEL)).as_py():
        return None
    if task.is_score:  # a teacher's score may lie outside of the task's range
        return _floats(batch, "label", numbers, path)
    return encode_labels(batch["label"], task, file=path, rows=numbers)


def _floats(batch: pa.RecordBatch, name: str, numbers: NDArray[np.int64], path: Path) -> NDArray[np.float32]:
    try:
        values = batch[name].cast(pa.float32())
    except pa.ArrowInvalid:
        values = pa.array([_number(value) for value in batch[name].to_pylist()], pa.float32())
    floats: NDArray[np.float32] = pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~np.isfinite(floats))
    if len(wrong):
        what = f"{name} must be a finite number, not {batch[name][int(wrong[0])].as_py()!r}"
        raise DataError(what, file=path, row=int(numbers[wrong[0]]), key=name)
    return floats


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


_NO_LABEL = pa.array([None, ""], pa.string())
