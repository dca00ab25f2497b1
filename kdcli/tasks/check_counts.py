"""Count what the texts and labels of a table are like, batch by batch: a row leaves 32 bytes behind, and no text.

Most texts are plain: printable ASCII, single spaces between the words, none in front. Fast expressions count these;
only the others go through regular expressions.
"""

from __future__ import annotations

from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tables.read import ROW_NUMBER, as_texts
from kdcli.tables.text import PIECE
from kdcli.tasks.check_report import Finding
from kdcli.tasks.detect import TableLayout
from kdcli.tasks.labels import (
    class_names,
    drop_rows,
    in_order,
    label_texts,
    parse_scores,
    split_sets,
    without_hidden,
)
from kdcli.tasks.split import SPACE, index_texts

NON_PRINTING = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x{a0}\x{ad}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}\x{feff}\x{fffd}]"
)
"""Controls but for TAB and LF, no-break and zero-width ones, those of direction, and the replacement character."""
_STRANGE = rf"[\s&&[^ ]]|{NON_PRINTING}|  |^ "
"""Non-printing characters, and all white space but single spaces behind a word."""
_AHEAD = 1
"""Batches that are read before the first of them is counted."""
_HELD = 16_384
"""Texts that are looked at together with regular expressions, which are slow to start."""
_BLANK = np.uint8(ord(" "))
_FACTORS = np.array([1, 0x9E3779B97F4A7C15], np.uint64)
"""Of the hashes of a pair's texts in their sum, so that their order counts."""


class TableCounts:
    """The findings in a table, counted batch by batch.

    ``words`` counts the texts of each column by their number of words, ``labels`` the labels as the table writes them
    (None: missing). ``keys`` hold of each row its number ``row``, a hash ``exact`` of its texts, a hash ``folded`` that
    ignores case and white space, and its ``label``: the score, or the label's hash; null where there is none.
    ``targets`` are the different labels of the rows without an empty text. After an ``error`` the counts are those of
    the rows before it.
    """

    def __init__(
        self, path: Path, layout: TableLayout, settings: TaskSettings, task: Task, reporter: Reporter, *, labelled: bool
    ) -> None:
        """Read a table once and count what is in it; without ``labelled`` no row is dropped, and -1 is no label."""
        self.path, self.layout, self.settings, self.task, self.labelled = path, layout, settings, task, labelled
        self.words = [np.zeros(0, np.int64) for _ in layout.texts]
        self.empty = self.edges = self.breaks = self.missing = self.wrong = Finding()
        self.characters: dict[str, Finding] = {}
        self.labels: dict[str | None, Finding] = {}
        self.scores: list[NDArray[np.float32]] = []
        self.first_wrong = ""
        self.dropped: Counter[str] = Counter()
        self.error: DataError | None = None
        self._names = class_names(path, layout.label, task, reporter) if layout.form == "parquet" else {}
        self._rows = 0
        self._keys: list[pl.DataFrame] = []
        self._aside: list[list[pl.DataFrame]] = [[] for _ in layout.texts]
        self._changes: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []
        self._blank: list[NDArray[np.int64]] = []
        # Only the predictions of a test table need an index.
        columns = [*layout.texts, *filter(None, [layout.label, None if labelled else layout.index])]
        reader = layout.open(path, columns, "skip")
        waiting: deque[tuple[NDArray[np.int64], pl.Series | None, Future[list[_Look]]]] = deque()
        # Polars and NumPy do not hold the interpreter's lock: a thread looks at texts while the next ones are read.
        with ThreadPoolExecutor(1) as threads, reporter.progress(path.name) as progress:
            try:
                for batch in reader.batches():
                    batch = as_texts(batch, layout.texts, path)
                    if layout.index in columns:
                        index_texts(batch[layout.index], path, needed=True)
                    rest, label = self._drop_rows(batch)
                    looks = threads.submit(_look, rest[list(layout.texts)])
                    waiting.append((rest[ROW_NUMBER].to_numpy(), label, looks))
                    if len(waiting) > _AHEAD:
                        progress.advance(self._add(*waiting.popleft()))
            except DataError as error:
                self.error = error
            while waiting:
                progress.advance(self._add(*waiting.popleft()))
        for note in reader.notes:
            reporter.info(f"{path.name}: {note}")
        self.bad_rows, self.first_bad_row = reader.skipped, reader.first_skipped
        self.keys, self.targets = self._finish()

    def _drop_rows(self, batch: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
        """Return the rows that are not dropped for their labels, and the labels."""
        if self.layout.label is None:
            return batch, None
        label = label_texts(batch[self.layout.label], self.path, self._names)
        batch, label, left_out = drop_rows(batch, label, self.settings.drop_labels, labelled=self.labelled)
        self.dropped.update(left_out)
        return batch, without_hidden(label, self.task, labelled=self.labelled)

    def _add(self, rows: NDArray[np.int64], label: pl.Series | None, looks: Future[list[_Look]]) -> int:
        """Count a batch, and put texts that may not be plain aside; return its rows."""
        exact, folded = np.zeros((2, len(rows)), np.uint64)
        for column, look in enumerate(looks.result()):
            plain, place = ~look.odd, np.flatnonzero(look.odd)
            self._add_words(column, look.words[plain])
            self.empty += find(rows, look.size == 0)
            self.edges += find(rows, look.edges & plain)
            self._blank.append(np.flatnonzero((look.words == 0) & plain) + self._rows)
            held = {"row": rows[place], "place": place + self._rows, "text": look.texts, "words": look.words[place]}
            held |= {"edges": look.edges[place], "folded": look.folded[place]}
            self._aside[column].append(pl.DataFrame(held, schema_overrides={"text": pl.String}))
            exact += look.exact * _FACTORS[column]
            folded += look.folded * _FACTORS[column]
            if sum(map(len, self._aside[column])) >= _HELD:
                self._count_aside(column)
        key = {"row": rows, "exact": exact, "folded": folded, "label": self._count_labels(rows, label)}
        self._keys.append(pl.DataFrame(key))
        self._rows += len(rows)
        return len(rows)

    def _finish(self) -> tuple[pl.DataFrame, int]:
        """Count the texts that are still aside; return the keys, with their hashes put right, and the targets."""
        for column in range(len(self._aside)):
            self._count_aside(column)
        label = pl.Float64 if self.task.is_score else pl.UInt64
        schema = {"row": pl.Int64, "exact": pl.UInt64, "folded": pl.UInt64, "label": label}
        keys = pl.concat(self._keys or [pl.DataFrame(schema=schema)])
        folded = keys["folded"].to_numpy().copy()
        for places, change in self._changes:
            folded[places] += change
        worded = np.ones(len(keys), bool)
        worded[np.concatenate(self._blank or [np.zeros(0, np.int64)])] = False
        return keys.with_columns(folded=folded), keys["label"].filter(worded).drop_nulls().n_unique()

    def _count_aside(self, column: int) -> None:
        """Count the texts of a column that were put aside; plain ones among them were counted well."""
        if not self._aside[column]:
            return
        text = pl.col("text")
        held = pl.concat(self._aside[column]).with_columns(strange=text.str.contains(_STRANGE))
        self._aside[column] = []
        normal = text.str.replace_all(f"{SPACE}+", " ").str.strip_chars(" ")
        strange = held.filter("strange").with_columns(
            words=pl.when(normal == "").then(0).otherwise(normal.str.count_matches(" ", literal=True) + 1),
            edges=text.str.contains(f"^{SPACE}|{SPACE}$"),
            breaks=text.str.contains(r"[\t\n\r]"),
            change=normal.str.to_lowercase().hash() - pl.col("folded"),
        )
        for found in (strange, held.filter(~pl.col("strange"))):
            self._add_words(column, found["words"].to_numpy())
            self.edges += find(found["row"].to_numpy(), found["edges"].to_numpy())
            self._blank.append(found.filter(words=0)["place"].to_numpy())
        self.breaks += find(strange["row"].to_numpy(), strange["breaks"].to_numpy())
        self._changes.append((strange["place"].to_numpy(), strange["change"].to_numpy() * _FACTORS[column]))
        each = strange.select("row", one=text.str.extract_all(NON_PRINTING)).explode("one").drop_nulls()
        for one, count, row in each.group_by("one").agg(pl.len(), pl.col("row").min()).iter_rows():
            self.characters[one] = self.characters.get(one, Finding()) + Finding(count, row)

    def _add_words(self, column: int, words: NDArray[np.integer[Any]]) -> None:
        counts = np.bincount(words, minlength=len(self.words[column]))
        counts[: len(self.words[column])] += self.words[column]
        self.words[column] = counts

    def _count_labels(self, rows: NDArray[np.int64], labels: pl.Series | None) -> pl.Series:
        """Count labels, or check scores; return a number for each, null where there is none."""
        if labels is None:
            return pl.repeat(None, len(rows), dtype=pl.Float64 if self.task.is_score else pl.UInt64, eager=True)
        if not self.task.is_score:
            each = pl.DataFrame({"row": rows, "label": labels})
            if self.task.multi_label:
                sets = split_sets(labels)
                sets = pl.select(pl.when(sets.list.len() == 0).then([""]).otherwise(sets)).to_series()
                each = each.with_columns(label=sets).explode("label")
                labels = in_order(labels)
            for label, count, first in each.group_by("label").agg(pl.len(), pl.col("row").min()).iter_rows():
                self.labels[label] = self.labels.get(label, Finding()) + Finding(count, first)
            return labels.hash().set(labels.is_null(), None)
        scores, wrong = parse_scores(labels, self.task)
        missing = labels.is_null().to_numpy()
        valid, wrong = ~wrong, wrong & ~missing
        if wrong.any():
            self.first_wrong = self.first_wrong or str(labels[int(wrong.argmax())])
        self.missing += find(rows, missing)
        self.wrong += find(rows, wrong)
        self.scores.append(scores[valid])
        return pl.Series(np.where(valid, scores, np.nan), dtype=pl.Float64).fill_nan(None)


def find(rows: NDArray[np.int64], where: NDArray[np.bool_]) -> Finding:
    """Return how often ``where`` is true, and the first row with it."""
    there = rows[where]
    return Finding(len(there), int(there.min())) if len(there) else Finding()


class _Look(NamedTuple):
    """A first look at the texts of a column: their bytes, hashes and words, whether a space ends them, or are odd."""

    size: NDArray[np.uint32]
    exact: NDArray[np.uint64]
    folded: NDArray[np.uint64]
    words: NDArray[np.int64]
    edges: NDArray[np.bool_]
    odd: NDArray[np.bool_]
    texts: list[str]  # the odd ones: a series would keep all texts of the batch in memory


def _look(texts: pl.DataFrame) -> list[_Look]:
    """Look at the texts of each column, at all their bytes at once; of odd texts words and edges may be wrong."""
    text = pl.all()
    found = texts.select(
        text.str.len_bytes().name.suffix(" size"),
        text.hash().name.suffix(" exact"),
        text.str.strip_suffix(" ").str.to_lowercase().hash().name.suffix(" folded"),
    )
    return [
        _look_at_bytes(column, *(found[f"{name} {what}"].to_numpy() for what in ("size", "exact", "folded")))
        for name, column in zip(texts.columns, texts, strict=True)
    ]


def _look_at_bytes(
    texts: pl.Series, size: NDArray[np.uint32], exact: NDArray[np.uint64], folded: NDArray[np.uint64]
) -> _Look:
    data = texts.cast(pl.Binary).cast(pl.List(pl.UInt8)).explode(empty_as_null=False).to_numpy()
    ends, there = np.cumsum(size, dtype=np.int64), size > 0
    spaces, others = _bits(data)
    # A space behind a space is odd, also one that begins a text.
    others |= spaces & (spaces << np.uint64(1) | np.append(np.uint64(0), spaces[:-1] >> np.uint64(63)))
    begins, edges = (there & _is_set(spaces, place) for place in (ends - size, ends - 1))
    words = np.diff(_rank(spaces, ends), prepend=0) + there - edges
    odd = (np.diff(_rank(others, ends), prepend=0) > 0) | begins
    return _Look(size, exact, folded, words, edges, odd, texts.filter(pl.Series(odd)).to_list())


def _bits(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return which bytes are spaces and which are no printable ASCII, a bit each: ``[2, bytes / 64 + 1]``."""
    bits = np.zeros((2, len(data) // 64 + 1), np.uint64)
    for begin in range(0, len(data), PIECE):
        part = data[begin : begin + PIECE] - _BLANK  # below the space it wraps around
        for row, true in zip(bits.view(np.uint8), (part == 0, part > ord("~") - _BLANK), strict=True):
            row[begin // 8 : (begin + len(part) + 7) // 8] = np.packbits(true, bitorder="little")
    return bits


def _is_set(bits: NDArray[np.uint64], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    there: NDArray[np.bool_] = (bits[places >> 6] >> (places & 63).astype(np.uint64) & np.uint64(1)).astype(bool)
    return there


def _rank(bits: NDArray[np.uint64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many bits are set before each end."""
    counts = np.bitwise_count(bits)
    before = np.cumsum(counts, dtype=np.int64) - counts
    word, below = ends >> 6, (np.uint64(1) << (ends & 63).astype(np.uint64)) - np.uint64(1)
    rank: NDArray[np.int64] = before[word] + np.bitwise_count(bits[word] & below)
    return rank
