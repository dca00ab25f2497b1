"""Count what the texts and labels of a table are like, batch by batch: a row leaves 32 bytes behind, and no text.

Most texts are plain: printable ASCII, single spaces between the words, none in front. Fast expressions count these;
only the others go through regular expressions.
"""

from __future__ import annotations

from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tables.read import ROW_NUMBER, check_texts, read_table
from kdcli.tasks.check_report import Finding
from kdcli.tasks.detect import TableLayout
from kdcli.tasks.labels import label_texts, parse_scores, without_hidden

NON_PRINTING = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x{a0}\x{ad}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}\x{feff}\x{fffd}]"
)
"""Controls but for TAB and LF, no-break and zero-width ones, those of direction, and the replacement character."""
_SPACE = r"[\s\x1c-\x1f]"
_STRANGE = rf"[\s&&[^ ]]|{NON_PRINTING}|  |^ "
"""Non-printing characters, and all white space but single spaces behind a word."""
_AHEAD = 2
"""Batches that are read before the first of them is counted."""
_HELD = 16_384
"""Strange texts that are counted together: regular expressions are slow to start."""


@dataclass
class Counts:
    """The findings in a table.

    Attributes:
        words: For each text column, the number of texts by their number of words.
        empty: Texts without any character.
        edges: Texts that begin or end with white space.
        breaks: Texts with a tab or a line end.
        characters: The non-printing characters.
        labels: Each label as the table writes it, None for a missing one; empty for scores.
        scores: The valid scores.
        missing: Rows without a score.
        wrong: Scores that are no number in the task's range.
        first_wrong: The first of these.
        dropped: The number of rows dropped for their labels, by label.
        keys: Of each row its number ``row``, a hash ``exact`` of its texts, a hash ``folded`` that ignores case and
            white space, and its ``label``: the score, or the label's hash; null where there is none.
        bad_rows: Rows that cannot be read.
        first_bad_row: Where the first of these is, and what is wrong with it.
        error: The error that ended the reading; the counts are those of the rows before it.
    """

    words: list[NDArray[np.int64]]
    empty: Finding = field(default_factory=Finding)
    edges: Finding = field(default_factory=Finding)
    breaks: Finding = field(default_factory=Finding)
    characters: dict[str, Finding] = field(default_factory=dict)
    labels: dict[str | None, Finding] = field(default_factory=dict)
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    missing: Finding = field(default_factory=Finding)
    wrong: Finding = field(default_factory=Finding)
    first_wrong: str = ""
    dropped: Counter[str] = field(default_factory=Counter)
    keys: pl.DataFrame = field(default_factory=pl.DataFrame)
    bad_rows: int = 0
    first_bad_row: str = ""
    error: DataError | None = None


def count_table(
    path: Path, layout: TableLayout, settings: TaskSettings, task: Task, reporter: Reporter, *, labelled: bool
) -> Counts:
    """Read a table once and count what is in it.

    Args:
        path: The table.
        layout: How to read it.
        settings: Which labels are dropped.
        task: The task.
        reporter: Shows the progress.
        labelled: Whether each row should have a label; otherwise none is dropped, and -1 is a hidden label.

    Raises:
        DataError: The file cannot be opened as such a table, or its label column holds no labels.
    """
    columns = [*layout.texts, *filter(None, [layout.label])]
    reader = read_table(path, header=layout.header, columns=columns, bad_rows="skip", form=layout.form)
    counter = _Counter(path, layout, settings, task, labelled)
    # Polars and NumPy do not hold the interpreter's lock: one batch is counted while the next ones are read.
    with ThreadPoolExecutor(1) as thread, reporter.progress(path.name) as progress:
        waiting: deque[Future[int]] = deque()
        try:
            for batch in reader.batches():
                check_texts(batch, layout.texts, path)
                waiting.append(thread.submit(counter.add, batch))
                if len(waiting) == _AHEAD:
                    progress.advance(waiting.popleft().result())
        except DataError as error:
            counter.counts.error = error
        for future in waiting:
            progress.advance(future.result())
    counts = counter.finish()
    counts.bad_rows, counts.first_bad_row = reader.skipped, reader.first_skipped
    return counts


class _Counter:
    """Counts the batches of one table."""

    def __init__(self, path: Path, layout: TableLayout, settings: TaskSettings, task: Task, labelled: bool) -> None:
        self.counts = Counts([np.zeros(0, np.int64) for _ in layout.texts])
        self.path, self.layout, self.settings, self.task, self.labelled = path, layout, settings, task, labelled
        self.rows = 0
        self.keys: list[pl.DataFrame] = []
        self.strange: list[list[pl.DataFrame]] = [[] for _ in layout.texts]
        self.mended: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []

    def add(self, batch: pl.DataFrame) -> int:
        """Count a batch; return its rows, without those that are dropped."""
        column = self.layout.label
        label = None if column is None else label_texts(batch[column], self.path)
        if label is not None and self.settings.drop_labels:
            dropped = label.is_in(self.settings.drop_labels).fill_null(False)
            if self.labelled:
                self.counts.dropped.update(label.filter(dropped))
                batch, label = batch.filter(~dropped), label.filter(~dropped)
            else:
                label = label.set(dropped, None)
        if label is not None:
            label = without_hidden(label, self.task, labelled=self.labelled)
        rows = batch[ROW_NUMBER].to_numpy()
        exact, folded = self._count_texts(batch, rows)
        key = {"row": rows, "exact": exact, "folded": folded, "label": self._count_labels(rows, label)}
        self.keys.append(pl.DataFrame(key))
        self.rows += len(rows)
        return len(rows)

    def finish(self) -> Counts:
        """Return what was counted."""
        for place in range(len(self.strange)):
            self._count_strange(place)
        label = pl.Float64 if self.task.is_score else pl.UInt64
        schema = {"row": pl.Int64, "exact": pl.UInt64, "folded": pl.UInt64, "label": label}
        self.counts.keys = pl.concat(self.keys) if self.keys else pl.DataFrame(schema=schema)
        if self.mended:
            folded = self.counts.keys["folded"].to_numpy().copy()
            for places, change in self.mended:
                folded[places] ^= change
            self.counts.keys = self.counts.keys.with_columns(folded=folded)
        return self.counts

    def _count_texts(self, batch: pl.DataFrame, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Count plain texts, and put strange ones aside; return two hashes of each row, ``[2, rows]``."""
        hashes = np.zeros((2, len(batch)), np.uint64)
        for place, name in enumerate(self.layout.texts):
            text, seed = pl.col(name), place + 1  # with a seed for each column, the order of a pair counts
            look = batch.select(
                size=text.str.len_bytes(),
                odd=(text.str.len_bytes() != text.str.len_chars())
                | text.str.contains("  ", literal=True)
                | text.str.starts_with(" "),
                edges=text.str.ends_with(" "),
                exact=text.hash(seed),
                folded=text.str.strip_chars_end(" ").str.to_lowercase().hash(seed),
            )
            size, odd, edges, exact, folded = (column.to_numpy() for column in look.get_columns())
            spaces, controls = _count_bytes(batch[name], size)
            where = np.flatnonzero(odd | controls)
            where = where[batch[name].gather(where).str.contains(_STRANGE).to_numpy()]
            if len(where):
                # As a list: a series would keep all texts of the batch in memory.
                held = {"row": rows[where], "text": batch[name].gather(where).to_list(), "folded": folded[where]}
                self.strange[place].append(pl.DataFrame(held | {"place": where + self.rows}))
            plain = np.ones(len(rows), bool)
            plain[where] = False
            self.counts.empty += find(rows, size == 0)
            self.counts.edges += find(rows, edges & plain)
            self._add_words(place, np.where(size == 0, 0, spaces + 1 - edges)[plain])
            hashes ^= np.stack([exact, folded])
            if sum(map(len, self.strange[place])) >= _HELD:
                self._count_strange(place)
        return hashes

    def _count_strange(self, place: int) -> None:
        """Count the texts of a column that were put aside."""
        if not self.strange[place]:
            return
        held, text = pl.concat(self.strange[place]), pl.col("text")
        self.strange[place] = []
        rows = held["row"].to_numpy()
        normal = text.str.replace_all(f"{_SPACE}+", " ").str.strip_chars(" ")
        found = held.select(
            words=pl.when(normal == "").then(0).otherwise(normal.str.count_matches(" ", literal=True) + 1),
            edges=text.str.contains(f"^{_SPACE}|{_SPACE}$"),
            breaks=text.str.contains(r"[\t\n\r]"),
            folded=normal.str.to_lowercase().hash(place + 1),
        )
        self._add_words(place, found["words"].to_numpy())
        self.counts.edges += find(rows, found["edges"].to_numpy())
        self.counts.breaks += find(rows, found["breaks"].to_numpy())
        self.mended.append((held["place"].to_numpy(), found["folded"].to_numpy() ^ held["folded"].to_numpy()))
        each = held.select("row", one=text.str.extract_all(NON_PRINTING)).explode("one").drop_nulls()
        for one, count, row in each.group_by("one").agg(pl.len(), pl.col("row").min()).iter_rows():
            self.counts.characters[one] = self.counts.characters.get(one, Finding()) + Finding(count, row)

    def _add_words(self, place: int, words: NDArray[np.integer[Any]]) -> None:
        old, new = self.counts.words[place], np.bincount(words)
        longest = max(len(old), len(new))
        self.counts.words[place] = np.pad(old, (0, longest - len(old))) + np.pad(new, (0, longest - len(new)))

    def _count_labels(self, rows: NDArray[np.int64], labels: pl.Series | None) -> pl.Series:
        """Count labels, or check scores; return a number for each, null where there is none."""
        counts = self.counts
        if labels is None:
            return pl.repeat(None, len(rows), dtype=pl.Float64 if self.task.is_score else pl.UInt64, eager=True)
        if not self.task.is_score:
            for label, count in labels.value_counts().iter_rows():
                first = None if label in counts.labels else int(rows[labels.eq_missing(label).arg_max()])
                counts.labels[label] = counts.labels.get(label, Finding()) + Finding(count, first)
            return labels.hash().set(labels.is_null(), None)
        scores, wrong = parse_scores(labels, self.task)
        missing = labels.is_null().to_numpy()
        wrong &= ~missing
        if wrong.any():
            counts.first_wrong = counts.first_wrong or str(labels[int(wrong.argmax())])
        counts.missing += find(rows, missing)
        counts.wrong += find(rows, wrong)
        valid = ~missing & ~wrong
        counts.scores.append(scores[valid])
        return pl.Series(np.where(valid, scores, np.nan), dtype=pl.Float64).fill_nan(None)


def find(rows: NDArray[np.int64], where: NDArray[np.bool_]) -> Finding:
    """Return how often ``where`` is true, and the first row with it."""
    there = rows[where]
    return Finding(len(there), int(there.min())) if len(there) else Finding()


def _count_bytes(texts: pl.Series, size: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Count the spaces of each text, and find those with ASCII controls, in all bytes of a batch at once."""
    data = np.frombuffer(texts.str.join("").cast(pl.Binary)[0], np.uint8)
    ends = np.cumsum(size, dtype=np.int64)
    controls = (data < ord(" ")) | (data == 127)
    found = np.diff(_rank(controls, ends), prepend=0) > 0 if controls.any() else np.zeros(len(size), bool)
    return np.diff(_rank(data == ord(" "), ends), prepend=0), found


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
