"""Tables as the arrays that a student is trained and evaluated on; the joined set's are memory-mapped from disk."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import DTypeLike, NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from kdcli.api import MASK, UNKNOWN, Progress, QuietReporter, Reporter, Task
from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError
from kdcli.files import atomic
from kdcli.student.vectors import Vectors, make_vectors, pieces_with_vectors, save_vectors, words_with_vectors
from kdcli.student.vocabulary import (
    TextEncoder,
    Texts,
    save_tokenizer,
    train_vocabulary,
    vocabulary,
    word_type,
)
from kdcli.tables.read import ROW_NUMBER, TableReader, read_table
from kdcli.tasks.answers import answers, centred
from kdcli.tasks.labels import encode_labels, label_texts, respell, spelling_of
from kdcli.tasks.text_set import STATES, text_columns


@dataclass(frozen=True)
class Examples:
    """Rows to train or evaluate a student on."""

    texts: tuple[Texts, ...]  # one for each text column
    logits: NDArray[np.float32] | None = None  # the teacher's, ``float32 [rows, task.outputs]``, or None
    labels: NDArray[Any] | None = None  # class ids ``int64 [rows]`` or scores ``float32 [rows]``, or None
    states: NDArray[np.float16] | None = None  # the teacher's representations, ``float16 [rows, size]``, or None

    def __len__(self) -> int:
        return len(self.texts[0].lengths)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """The words of each row's longest text, ``int32 [rows]``."""
        return np.asarray(np.maximum.reduce([texts.lengths for texts in self.texts]), np.int32)

    def digest(self) -> str:
        """Return a hash of all arrays (hex digits)."""
        digest = blake2b(digest_size=16)
        arrays = [array for texts in self.texts for array in (texts.words, texts.offsets)]
        others = (array for array in (self.logits, self.states, self.labels) if array is not None)
        for array in [*arrays, *others]:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class EncodeResult:
    """The result of encoding the joined set."""

    rows: int
    words: int  # the words of its rows, as far as texts are kept
    unknown: float  # the share of these words that have no id
    vocabulary: int  # the number of words with an id
    labelled: bool  # whether every row has a label
    vectors: str  # the source of the word vectors; empty for random ones
    found: int  # words of the vocabulary that have a vector there
    representation: int = 0  # the size of the teacher's representations; 0 if there are none


def encode(
    *,
    joined: Path,
    task: Task,
    settings: StudentSettings,
    seed: int,
    device: str = "cpu",
    encoder: str = "",
    output: Path,
    reporter: Reporter = QuietReporter(),
) -> EncodeResult:
    """Turn the joined set into a folder of arrays, with its vocabulary and, if asked for, word vectors.

    The set, see ``open_joined``, is read twice as a stream; memory does not grow with its rows. ``encoder`` is the file
    or encoder that ``settings.vectors`` stands for; words without a vector get one by the seed. A wrong value, texts
    without any word, or a file without their vectors are a ``DataError``.
    """
    table = open_joined(joined, task, reporter)
    source = settings.vectors and (encoder or settings.vectors)
    texts = table.texts_alone(reporter)
    tokenizer, vectors = make_words(texts, settings, source, seed=seed, device=device, reporter=reporter)
    with atomic(output) as folder:
        folder.mkdir()
        save_tokenizer(tokenizer, folder)
        if vectors:
            save_vectors(vectors, folder)
        with reporter.progress("encode") as progress:
            counts = _write_arrays(folder, table, TextEncoder(tokenizer, settings.max_length), progress)
        source, found = (vectors.source, vectors.found) if vectors else ("", 0)
        more: dict[str, Any] = {"vocabulary": tokenizer.get_vocab_size(), "found": found, "representation": table.size}
        result = EncodeResult(**counts, **more, vectors=source)
        (folder / "encoded.json").write_text(json.dumps(asdict(result), indent=1) + "\n", "utf-8")
    return result


def make_words(
    texts: Iterable[pl.Series], settings: StudentSettings, source: str, *, seed: int, device: str, reporter: Reporter
) -> tuple[Tokenizer, Vectors | None]:
    """Make a vocabulary of texts, and its word vectors from a file or an encoder; without a source there are none."""
    cut: dict[str, Any] = settings.model_dump(include={"max_size", "min_freq", "lowercase"})
    cut["more"] = words_with_vectors(source, reporter) if source else ()
    cut["pieces"] = pieces_with_vectors(source, reporter) if source and settings.word_pieces else ()
    tokenizer = train_vocabulary(texts, **cut)
    if settings.word_pieces and not isinstance(tokenizer.model, WordPiece):
        what = f"{source} has no pieces of words" if source else "without word vectors there are no pieces of words"
        reporter.info(f"{what}: a word outside the vocabulary is read as {MASK}")
    how: dict[str, Any] = {"source": source, "dimension": settings.dimension, "seed": seed, "device": device}
    return tokenizer, make_vectors(vocabulary(tokenizer), **how, reporter=reporter) if source else None


def load_examples(folder: Path, task: Task) -> Examples:
    """Map the arrays that ``encode`` has written into memory; another folder is a ``DataError``."""

    def array(name: str, dtype: DTypeLike, *shape: int) -> NDArray[Any]:
        return np.asarray(np.memmap(folder / name, dtype, "r")).reshape(shape)

    try:
        result = EncodeResult(**json.loads((folder / "encoded.json").read_text("utf-8")))
        words = word_type(result.vocabulary)
        texts = tuple(
            Texts(array(f"{column}.words", words, -1), array(f"{column}.offsets", np.int64, result.rows + 1))
            for column in task.columns
        )
        logits = array("logits", np.float32, result.rows, task.outputs)
        kind = np.bool_ if task.multi_label else np.float32 if task.is_score else np.int64
        columns = [task.outputs] if task.multi_label else []
        labels = array("labels", kind, result.rows, *columns) if result.labelled else None
        states = array(STATES, np.float16, result.rows, result.representation) if result.representation else None
        if any(text.offsets[-1] != len(text.words) for text in texts):
            raise ValueError("the words do not fit the offsets")
    except (OSError, TypeError, ValueError) as error:
        what = f"this is no encoded joined set of task {task.name}: {error}"
        raise DataError(what, file=folder, hint="encode the joined set again") from error
    return Examples(texts, logits, labels, states)


def encode_table(table: pl.DataFrame, tokenizer: Tokenizer, task: Task, max_length: int) -> Examples:
    """Turn a table in memory into examples without logits; without labels where the column is missing or all null."""
    encoder = TextEncoder(tokenizer, max_length)
    texts = tuple(encoder.encode(table[column]) for column in task.columns)
    labelled = "label" in table.columns and table["label"].null_count() < len(table)
    return Examples(texts, labels=encode_labels(table["label"], task, file="the table") if labelled else None)


@dataclass(frozen=True)
class JoinedSet:
    """An open joined set, with the names of its columns."""

    reader: TableReader
    task: Task
    texts: tuple[str, ...]
    logits: tuple[str, ...]  # the columns of the logits, in the order of the task's labels
    label: str | None
    size: int  # of the teacher's representations; 0 if there are none
    fabricated: bool  # whether its rows count as fabricated: without a label column the teacher's choice is their label

    def batches(
        self,
    ) -> Iterator[tuple[list[pl.Series], NDArray[np.float32], NDArray[Any] | None, NDArray[np.float16] | None]]:
        """Give the rows in batches: texts, logits (centred), labels if all rows have one, representations if any."""
        for batch in self.reader.batches():
            logits = centred(np.stack([self._floats(batch, name) for name in self.logits], axis=1), self.task)
            states = batch[STATES].to_numpy().astype(np.float16) if self.size else None
            yield [batch[name] for name in self.texts], logits, self._labels(batch, logits), states

    def texts_alone(self, reporter: Reporter) -> Iterator[pl.Series]:
        """Give the text columns in pieces, for a vocabulary."""
        with reporter.progress("vocabulary") as progress:
            for batch in read_table(self.reader.path, columns=self.texts).batches():
                yield from (batch[name] for name in self.texts)
                progress.advance(len(batch))

    def _labels(self, batch: pl.DataFrame, logits: NDArray[np.float32]) -> NDArray[Any] | None:
        if self.label is None:
            return answers(logits, self.task) if self.fabricated else None
        labels = label_texts(batch[self.label], self.reader.path)
        if labels.null_count() or (not self.task.multi_label and (labels == "").any()):
            return None
        if self.task.is_score:  # a teacher's score may lie outside the task's range
            return self._floats(batch, self.label)
        labels = respell(labels, spelling_of(labels, self.task), self.task)
        return encode_labels(labels, self.task, file=self.reader.path, rows=batch[ROW_NUMBER])

    def _floats(self, batch: pl.DataFrame, name: str) -> NDArray[np.float32]:
        floats = batch[name].cast(pl.Float32, strict=False).fill_null(np.nan).to_numpy()
        wrong = np.flatnonzero(~np.isfinite(floats))
        if len(wrong):
            what, row = f"{name} must be a finite number, not {batch[name][int(wrong[0])]!r}", batch[ROW_NUMBER]
            raise DataError(what, file=self.reader.path, row=row[int(wrong[0])], key=name)
        return floats


def open_joined(path: Path, task: Task, reporter: Reporter) -> JoinedSet:
    """Open a joined set by its header.

    d-bert's tables have the text columns of GLUE's, a score in the column ``score``, no ``source``, and in ``label``
    the number of the teacher's choice, or no such column (QQP's ``is_duplicate`` is 0 in every row). A missing column,
    or more logits than the task has labels, is a ``DataError``.
    """
    columns = read_table(path).columns
    texts = text_columns(columns, task) or task.columns
    logits = tuple(f"logits_{number}" for number in range(task.outputs))
    if task.is_score and "logits_0" not in columns and "score" in columns:
        logits = ("score",)
    for name in (*texts, *logits):
        if name not in columns:
            hint = f"`kd join` writes such a table; the columns of this one are {', '.join(columns)}"
            raise DataError(f"there is no column {name!r}", file=path, key=name, hint=hint)
    if f"logits_{task.outputs}" in columns:
        what = f"there are more logits than the {task.outputs} of task {task.name}"
        raise DataError(what, file=path, hint="task.labels must name the classes of this table")
    label = "label" if "label" in columns else None
    fabricated = "source" not in columns
    if fabricated:
        labels = "in 'label'" if label else "the teacher's choice"
        found = ", ".join(map(repr, (*texts, *logits)))
        reporter.info(f"{path.name}: texts and logits in {found}, labels {labels}; all its rows count as fabricated")
    states = [STATES] if STATES in columns else []
    kind = pl.scan_parquet(path).collect_schema()[STATES] if states else None  # only Parquet can hold them
    size = kind.shape[0] if isinstance(kind, pl.Array) else 0
    reader = read_table(path, columns=[*texts, *logits, *([label] if label else []), *states])
    return JoinedSet(reader, task, texts, logits, label, size, fabricated)


def _write_arrays(folder: Path, table: JoinedSet, encoder: TextEncoder, progress: Progress) -> Mapping[str, Any]:
    """Write the arrays piece by piece, and return their counts: the first fields of ``EncodeResult``."""
    rows = unknown = labelled = 0
    words = dict.fromkeys(table.task.columns, 0)
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}

        def write(name: str, array: NDArray[Any]) -> None:
            if name not in files:
                files[name] = stack.enter_context((folder / name).open("wb"))
            files[name].write(np.ascontiguousarray(array).data)

        for columns, logits, labels, states in table.batches():
            for name, column in zip(words, columns, strict=True):
                texts = encoder.encode(column)
                write(f"{name}.words", texts.words)
                write(f"{name}.offsets", texts.offsets[1 if rows else 0 :] + words[name])
                words[name] += len(texts.words)
                masks = column.str.count_matches(MASK, literal=True).sum()
                unknown += int((texts.words == UNKNOWN).sum()) - int(masks)
            write("logits", logits)
            if states is not None:
                write(STATES, states)
            if labels is not None:
                write("labels", labels)
                labelled += len(labels)
            rows += len(logits)
            progress.advance(len(logits))
    if labelled < rows:
        (folder / "labels").unlink(missing_ok=True)
    every = sum(words.values())
    return {"rows": rows, "words": every, "unknown": max(unknown, 0) / every, "labelled": labelled == rows}
