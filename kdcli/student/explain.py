"""Which words made a student decide so: each is masked in turn (occlusion: Zeiler and Fergus 2014; Li et al. 2016).

The student has learned to read ``MASK``, so a text with a masked word is nothing foreign to it. The effect of a word is
what the answer's logit, and its probability, lose when the word is masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from kdcli.api import Task
from kdcli.errors import UsageError
from kdcli.student.vocabulary import CELLS, UNKNOWN, Texts, word_type
from kdcli.tasks.answers import probabilities

Logits = NDArray[np.float32]
Compute = Callable[[Sequence[Texts]], Logits]
"""Each text column to logits ``[texts, outputs]``."""


@dataclass(frozen=True)
class Effect:
    """The effect of a word, or of two neighbours: positive where they speak for the answer."""

    text: str  # as it is written; of two neighbours with all that stands between them
    column: int  # 0, or 1 in the second text of a pair
    begin: int  # its first character, and the one behind its last, in the text
    end: int
    logit: float  # what the logit (of a score: the score) loses when it is masked
    probability: float | None  # what the probability loses; None of a score


@dataclass(frozen=True)
class Explanation:
    """An answer for a text, or a pair, and the effect of each word on it."""

    texts: tuple[str, ...]
    label: str  # the label that is explained; empty for a score
    logit: float  # the label's, or the score
    probability: float | None  # None for a score
    words: tuple[Effect, ...]  # of all texts, in their order; words behind the student's max_length have no effect
    pairs: tuple[Effect, ...]  # of two neighbours together

    def marked(self) -> list[list[tuple[str, float]]]:
        """Cut each text into words and what stands between them, each with its effect, relative to the largest one.

        The effects are between -1 and 1, and 0 for what is no word.
        """
        most = max((abs(word.logit) for word in self.words), default=0.0) or 1.0
        found: list[list[tuple[str, float]]] = []
        for column, text in enumerate(self.texts):
            pieces, end = [], 0
            for word in self.words:
                if word.column == column:
                    pieces += [(text[end : word.begin], 0.0), (word.text, word.logit / most)]
                    end = word.end
            pieces.append((text[end:], 0.0))
            found.append([(piece, effect) for piece, effect in pieces if piece])
        return found


@dataclass(frozen=True)
class _Words:
    """A text as the tokenizer reads it."""

    ids: list[int]  # the pieces of all words
    places: list[int]  # where each word begins in ``ids``, and where the last ends
    spans: list[tuple[int, int]]  # the characters of each word

    def masked(self, begin: int, end: int, longest: int) -> list[int]:
        """Return ids with ``MASK`` in the place of each of some words."""
        before, after = self.ids[: self.places[begin]], self.ids[self.places[end] :]
        return [*before, *[UNKNOWN] * (end - begin), *after][:longest] or [UNKNOWN]


def explain_texts(
    columns: Sequence[Sequence[str]],
    task: Task,
    tokenizer: Tokenizer,
    longest: int,
    compute: Compute,
    *,
    label: str | None = None,
    pairs: bool = True,
) -> list[Explanation]:
    """Explain the answers for texts.

    Args:
        columns: The text columns.
        task: The student's.
        tokenizer: The student's.
        longest: The student's ``max_length``.
        compute: The student. It gets the masked texts of all texts in batches of ``CELLS`` words: a bound on memory.
        label: The label to explain, by default the most probable one.
        pairs: Whether neighbours are masked together, too.

    Raises:
        UsageError: The task has no such label.
    """
    chosen = _number_of(label, task)
    read = [_read(tokenizer, column) for column in columns]
    rows = [list(row) for row in zip(*read, strict=True)]
    jobs = [_jobs(row, longest, pairs) for row in rows]
    variants = (
        [words.masked(*((begin, end) if column == place else (0, 0)), longest) for place, words in enumerate(row)]
        for row, found in zip(rows, jobs, strict=True)
        for column, begin, end in [(0, 0, 0), *found]
    )
    logits = _computed(variants, compute, word_type(tokenizer.get_vocab_size()), task.outputs)
    ends = list(accumulate(len(found) + 1 for found in jobs))
    return [
        _explanation(texts, row, found, logits[end - len(found) - 1 : end], task, chosen)
        for texts, row, found, end in zip(zip(*columns, strict=True), rows, jobs, ends, strict=True)
    ]


def _number_of(label: str | None, task: Task) -> int | None:
    """Return the output of a label, or of its readable name; None for none."""
    if label is None:
        return None
    for known in (task.labels, task.names):
        if label in known:
            return known.index(label)
    hint = f"its labels are {', '.join(task.labels)}" if task.labels else "it predicts scores: name no label"
    raise UsageError(f"the student has no label {label!r}", hint=hint)


def _read(tokenizer: Tokenizer, texts: Sequence[str]) -> list[_Words]:
    found = []
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        pieces = zip(encoding.word_ids, encoding.offsets, strict=True)
        words = [[span for _, span in group] for _, group in groupby(pieces, itemgetter(0))]
        places = [0, *accumulate(map(len, words))]
        found.append(_Words(encoding.ids, places, [(word[0][0], word[-1][1]) for word in words]))
    return found


def _jobs(row: Sequence[_Words], longest: int, pairs: bool) -> list[tuple[int, int, int]]:
    """List what to mask: a column, the first word, and the one behind the last; each word, then each pair.

    A word that begins behind the longest text is not read.
    """
    return [
        (column, begin, begin + size)
        for size in ((1, 2) if pairs else (1,))
        for column, words in enumerate(row)
        for begin in range(len(words.spans) - size + 1)
        if words.places[begin] < longest
    ]


def _computed(variants: Iterator[list[list[int]]], compute: Compute, dtype: np.dtype, outputs: int) -> Logits:
    """Compute the logits of texts, as many at once as make ``CELLS`` words."""
    found: list[Logits] = [np.empty((0, outputs), np.float32)]
    waiting: list[list[list[int]]] = []
    words = 0
    for variant in variants:
        waiting.append(variant)
        words += max(map(len, variant))
        if words >= CELLS:
            found.append(compute(_as_texts(waiting, dtype)))
            waiting, words = [], 0
    if waiting:
        found.append(compute(_as_texts(waiting, dtype)))
    return np.concatenate(found)


def _as_texts(rows: Sequence[Sequence[list[int]]], dtype: np.dtype) -> list[Texts]:
    texts = []
    for column in zip(*rows, strict=True):
        offsets = np.array([0, *accumulate(map(len, column))], np.int64)
        texts.append(Texts(np.fromiter((word for ids in column for word in ids), dtype, offsets[-1]), offsets))
    return texts


def _explanation(
    texts: tuple[str, ...],
    row: Sequence[_Words],
    jobs: Sequence[tuple[int, int, int]],
    logits: Logits,
    task: Task,
    chosen: int | None,
) -> Explanation:
    """Compare the logits of a text, the first row, with those of its masked forms."""
    output = int(logits[0].argmax()) if chosen is None else chosen
    values = logits[:, output].astype(np.float64)
    shares = None if task.is_score else probabilities(logits, task)[:, output]
    lost = (values[0] - values[1:]).tolist()
    lost_shares = [None] * len(jobs) if shares is None else (shares[0] - shares[1:]).tolist()
    effects = {job: pair for job, *pair in zip(jobs, lost, lost_shares, strict=True)}

    def effect(column: int, begin: int, end: int) -> Effect:
        first, last = row[column].spans[begin][0], row[column].spans[end - 1][1]
        nothing = 0.0, None if shares is None else 0.0
        return Effect(texts[column][first:last], column, first, last, *effects.get((column, begin, end), nothing))

    words = [effect(column, at, at + 1) for column, found in enumerate(row) for at in range(len(found.spans))]
    pairs = [effect(*job) for job in jobs if job[2] - job[1] == 2]
    label, sure = ("", None) if shares is None else (task.labels[output], float(shares[0]))
    return Explanation(texts, label, float(values[0]), sure, tuple(words), tuple(pairs))
