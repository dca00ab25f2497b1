"""Tables as the arrays that a student is trained and evaluated on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from kdcli.api import MASK, Progress, QuietReporter, Reporter, Task
from kdcli.config.schema import StudentSettings
from kdcli.files import atomic
from kdcli.student.examples import Examples, ExampleWriter, load_examples
from kdcli.student.joined import JoinedSet, open_joined
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
from kdcli.student.word_vectors import Vectors, load_vectors, make_vectors, save_vectors, words_with_vectors
from kdcli.tasks.labels import encode_labels

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
        joined: A table with the task's text columns, ``logits_0`` and so on, and (optionally) ``label``; or d-bert's.
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
    table = open_joined(joined, task, reporter)
    source = settings.vectors and (encoder or settings.vectors)
    with reporter.progress("vocabulary") as progress:
        tokenizer = train_vocabulary(
            _texts(table, progress),
            max_size=settings.max_size,
            min_freq=settings.min_freq,
            lowercase=settings.lowercase,
            more=words_with_vectors(source, reporter) if source else (),
        )
    vectors = None
    if source:
        vectors = make_vectors(
            vocabulary(tokenizer),
            source=source,
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
        result = _write_arrays(folder, table, tokenizer, settings.max_length, vectors, reporter)
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


def _texts(table: JoinedSet, progress: Progress) -> Iterator[pa.Array]:
    for columns in table.texts_alone():
        yield from columns
        progress.advance(len(columns[0]))


def _write_arrays(
    folder: Path,
    table: JoinedSet,
    tokenizer: Tokenizer,
    max_length: int,
    vectors: Vectors | None,
    reporter: Reporter,
) -> EncodeResult:
    unknown = SPECIAL.index(MASK)
    encoder = TextEncoder(tokenizer, max_length)
    words = unknowns = 0
    with (
        ExampleWriter(folder, table.task, word_type(tokenizer)) as writer,
        reporter.progress("encode") as progress,
    ):
        for columns, logits, labels in table.batches():
            texts = [encoder.encode(column) for column in columns]
            writer.write(texts, logits, labels)
            words += sum(len(text.words) for text in texts)
            unknowns += sum(int((text.words == unknown).sum()) for text in texts)
            unknowns -= sum(pc.sum(pc.count_substring(column, MASK)).as_py() or 0 for column in columns)
            progress.advance(len(logits))
    return EncodeResult(
        writer.rows,
        words,
        max(unknowns, 0) / words,
        tokenizer.get_vocab_size(),
        writer.labelled,
        vectors.source if vectors else "",
        vectors.found if vectors else 0,
    )
