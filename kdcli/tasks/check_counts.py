"""Count what the texts and labels of a table are like, batch by batch: a row leaves 32 bytes behind, and no text.

Most texts are plain: printable ASCII, single spaces between the words, none in front. Fast expressions count these;
only the others go through regular expressions.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tables.read import ROW_NUMBER, check_texts
from kdcli.tasks.check_report import Finding
from kdcli.tasks.detect import TableLayout
from kdcli.tasks.labels import class_names, drop_rows, label_texts, parse_scores, without_hidden

NON_PRINTING = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x{a0}\x{ad}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}\x{feff}\x{fffd}]"
)
"""Controls but for TAB and LF, no-break and zero-width ones, those of direction, and the replacement character."""
_SPACE = r"[\s\x1c-\x1f]"
_STRANGE = rf"[\s&&[^ ]]|{NON_PRINTING}|  |^ "
"""Non-printing characters, and all white space but single spaces behind a word."""
_AHEAD = 1
"""Batches that are read before the first of them is counted."""
_HELD = 16_384
"""Texts that are looked at together with regular expressions, which are slow to start."""


class TableCounts:
    """The findings in a table, counted batch by batch.

    ``words`` counts the texts of each column by their number of words, ``labels`` the labels as the table writes them
    (None: missing). ``keys`` hold of each row its number ``row``, a hash ``exact`` of its texts, a hash ``folded`` that
    ignores case and white space, and its ``label``: the score, or the label's hash; null where there is none. After an
    ``error`` the counts are those of the rows before it.
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
        columns = [*layout.texts, *filter(None, [layout.label])]
        reader = layout.open(path, columns, "skip")
        waiting: deque[tuple[pl.DataFrame, pl.Series | None, list[Future[_Look]]]] = deque()
        # Polars and NumPy do not hold the interpreter's lock: threads look at texts while the next ones are read.
        with ThreadPoolExecutor(2) as threads, reporter.progress(path.name) as progress:
            try:
                for batch in reader.batches():
                    check_texts(batch, layout.texts, path)
                    rest, label = self._drop_rows(batch)
                    looks = [threads.submit(_look, rest[name], seed) for seed, name in enumerate(layout.texts, 1)]
                    waiting.append((rest, label, looks))
                    if len(waiting) > _AHEAD:
                        progress.advance(self._add(*waiting.popleft()))
            except DataError as error:
                self.error = error
            while waiting:
                progress.advance(self._add(*waiting.popleft()))
        for note in reader.notes:
            reporter.info(f"{path.name}: {note}")
        self.bad_rows, self.first_bad_row = reader.skipped, reader.first_skipped
        self.keys = self._finish()

    def _drop_rows(self, batch: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
        """Return the rows that are not dropped for their labels, and the labels."""
        if self.layout.label is None:
            return batch, None
        label = label_texts(batch[self.layout.label], self.path, self._names)
        batch, label, left_out = drop_rows(batch, label, self.settings.drop_labels, labelled=self.labelled)
        self.dropped.update(left_out)
        return batch, without_hidden(label, self.task, labelled=self.labelled)

    def _add(self, batch: pl.DataFrame, label: pl.Series | None, looks: Sequence[Future[_Look]]) -> int:
        """Count a batch, and put texts that may not be plain aside; return its rows."""
        rows = batch[ROW_NUMBER].to_numpy()
        exact, folded = np.zeros((2, len(batch)), np.uint64)
        for place, (name, future) in enumerate(zip(self.layout.texts, looks, strict=True)):
            look = future.result()
            aside = np.flatnonzero(look.odd)
            # As a list: a series would keep all texts of the batch in memory.
            held = {"row": rows[aside], "text": batch[name].gather(aside).to_list(), "words": look.words[aside]}
            held |= {"edges": look.edges[aside], "folded": look.folded[aside], "place": aside + self._rows}
            self._aside[place].append(pl.DataFrame(held, schema_overrides={"text": pl.String}))
            self._add_words(place, np.delete(look.words, aside))
            self.empty += find(rows, look.size == 0)
            self.edges += find(np.delete(rows, aside), np.delete(look.edges, aside))
            exact ^= look.exact
            folded ^= look.folded
            if sum(map(len, self._aside[place])) >= _HELD:
                self._count_aside(place)
        key = {"row": rows, "exact": exact, "folded": folded, "label": self._count_labels(rows, label)}
        self._keys.append(pl.DataFrame(key))
        self._rows += len(rows)
        return len(rows)

    def _finish(self) -> pl.DataFrame:
        """Count the texts that are still aside; return the keys, with their hashes put right."""
        for place in range(len(self._aside)):
            self._count_aside(place)
        label = pl.Float64 if self.task.is_score else pl.UInt64
        schema = {"row": pl.Int64, "exact": pl.UInt64, "folded": pl.UInt64, "label": label}
        keys = pl.concat(self._keys or [pl.DataFrame(schema=schema)])
        folded = keys["folded"].to_numpy().copy()
        for places, change in self._changes:
            folded[places] ^= change
        return keys.with_columns(folded=folded)

    def _count_aside(self, place: int) -> None:
        """Count the texts of a column that were put aside; plain ones among them were counted well."""
        if not self._aside[place]:
            return
        held, text = pl.concat(self._aside[place]), pl.col("text")
        self._aside[place] = []
        held = held.with_columns(strange=text.str.contains(_STRANGE))
        plain, held = held.filter(~pl.col("strange")), held.filter("strange")
        normal = text.str.replace_all(f"{_SPACE}+", " ").str.strip_chars(" ")
        found = held.select(
            words=pl.when(normal == "").then(0).otherwise(normal.str.count_matches(" ", literal=True) + 1),
            edges=text.str.contains(f"^{_SPACE}|{_SPACE}$"),
            breaks=text.str.contains(r"[\t\n\r]"),
            folded=normal.str.to_lowercase().hash(place + 1),
        )
        rows, (words, edges, breaks, folded) = held["row"].to_numpy(), (column.to_numpy() for column in found)
        for numbers, counts, ends in (
            (rows, words, edges),
            [plain[name].to_numpy() for name in ("row", "words", "edges")],
        ):
            self._add_words(place, counts)
            self.edges += find(numbers, ends)
        self.breaks += find(rows, breaks)
        self._changes.append((held["place"].to_numpy(), folded ^ held["folded"].to_numpy()))
        each = held.select("row", one=text.str.extract_all(NON_PRINTING)).explode("one").drop_nulls()
        for one, count, row in each.group_by("one").agg(pl.len(), pl.col("row").min()).iter_rows():
            self.characters[one] = self.characters.get(one, Finding()) + Finding(count, row)

    def _add_words(self, place: int, words: NDArray[np.integer[Any]]) -> None:
        old, new = self.words[place], np.bincount(words)
        longest = max(len(old), len(new))
        self.words[place] = np.pad(old, (0, longest - len(old))) + np.pad(new, (0, longest - len(new)))

    def _count_labels(self, rows: NDArray[np.int64], labels: pl.Series | None) -> pl.Series:
        """Count labels, or check scores; return a number for each, null where there is none."""
        if labels is None:
            return pl.repeat(None, len(rows), dtype=pl.Float64 if self.task.is_score else pl.UInt64, eager=True)
        if not self.task.is_score:
            for label, count in labels.value_counts().iter_rows():
                first = None if label in self.labels else int(rows[labels.eq_missing(label).arg_max()])
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


def _look(texts: pl.Series, seed: int) -> _Look:
    """Look at the texts of a column, all but the hashes at all their bytes at once; of odd texts words may be wrong."""
    text = pl.col(texts.name)
    found = texts.to_frame().select(
        size=text.str.len_bytes(),
        exact=text.hash(seed),  # with a seed for each column, the order of a pair counts
        folded=text.str.strip_suffix(" ").str.to_lowercase().hash(seed),
    )
    size, exact, folded = (column.to_numpy() for column in found.get_columns())
    # With a space on either side, every text has a byte before it, and empty ones have a byte too.
    data = np.full(int(size.sum()) + 2, ord(" "), np.uint8)
    data[1:-1] = np.frombuffer(texts.str.join("").cast(pl.Binary)[0], np.uint8)
    ends = np.cumsum(size, dtype=np.int64) + 1
    space = data == ord(" ")
    # Below the space the difference wraps around. A space behind a space is odd, also one that begins a text.
    data -= np.uint8(ord(" "))
    odd = data > ord("~") - ord(" ")
    odd[1:] |= space[1:] & space[:-1]
    there = size > 0
    edges = space[ends - 1] & there
    begins = space[ends - size] & there
    words = np.diff(_rank(space, ends), prepend=1) + there - edges
    return _Look(size, exact, folded, words, edges, (np.diff(_rank(odd, ends), prepend=0) > 0) | begins)


def _rank(true: NDArray[np.bool_], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many values are true before each end: 64 are one word, of which whole ones are counted once."""
    bits = np.packbits(true, bitorder="little")
    words = np.zeros(len(bits) // 8 + 1, np.uint64)
    words.view(np.uint8)[: len(bits)] = bits
    counts = np.bitwise_count(words)
    before = np.cumsum(counts, dtype=np.int64) - counts
    word, below = ends >> 6, (np.uint64(1) << (ends & 63).astype(np.uint64)) - np.uint64(1)
    rank: NDArray[np.int64] = before[word] + np.bitwise_count(words[word] & below)
    return rank
