"""Which words made a student decide so: each is masked in turn (occlusion: Zeiler and Fergus 2014; Li et al. 2016).

The student has learned to read ``MASK``, so a text with a masked word is nothing foreign to it. The effect of a word is
what the answer's logit, and its probability, lose when the word is masked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from kdcli.api import MASK, Task
from kdcli.errors import UsageError
from kdcli.student.vocabulary import CELLS
from kdcli.tasks.answers import probabilities

Logits = NDArray[np.float32]
Place = tuple[int, list[tuple[int, int]]]
"""What is masked: words of a text column, by their first characters and those behind their last."""

_BEYOND = 400
"""So many pieces behind the last one that is read may be read when two words of up to 100 pieces are masked."""


@dataclass(frozen=True)
class Effect:
    """The effect of a word, or of two neighbours: positive where they speak for the answer."""

    text: str  # as it is written; of two neighbours with all that stands between them
    column: int  # 0, or 1 in the second text of a pair
    begin: int  # its first character in the text
    end: int  # the character behind its last
    logit: float  # what the logit (of a score: the score) loses when it is masked
    probability: float | None  # what the probability loses; None of a score


@dataclass(frozen=True)
class Explanation:
    """An answer for a text, or a pair, and the effect of each word that the student reads."""

    texts: tuple[str, ...]
    label: str  # the label that is explained; empty for a score
    logit: float  # the label's, or the score
    probability: float | None  # None for a score
    words: tuple[Effect, ...]
    pairs: tuple[Effect, ...]  # of two neighbours together

    def marked(self) -> list[list[tuple[str, float]]]:
        """Cut each text into words and the rest, each with its effect relative to the largest; the rest has 0."""
        most = max((abs(word.logit) for word in self.words), default=0.0) or 1.0
        found = []
        for column, text in enumerate(self.texts):
            pieces, end = [], 0
            for word in (word for word in self.words if word.column == column):
                pieces += [(text[end : word.begin], 0.0), (word.text, word.logit / most)]
                end = word.end
            found.append([piece for piece in (*pieces, (text[end:], 0.0)) if piece[0]])
        return found


def explain_texts(
    columns: Sequence[Sequence[str]],
    task: Task,
    tokenizer: Tokenizer,
    longest: int,
    logits: Callable[[list[list[str]]], Logits],
    *,
    label: str | None = None,
    pairs: bool = True,
) -> list[Explanation]:
    """Explain the answers for texts, which are read up to ``longest`` words; see ``Student.explain``."""
    named = [names.index(label) for names in (task.labels, task.names) if label in names]
    if label is not None and not named:
        hint = f"its labels are {', '.join(task.labels)}" if task.labels else "it predicts scores: name no label"
        raise UsageError(f"the student has no label {label!r}", hint=hint)
    rows = list(zip(*columns, strict=True))
    read = zip(*(_read(tokenizer, texts, longest) for texts in columns), strict=True)
    texts, words = zip(*(zip(*row, strict=True) for row in read), strict=True) if rows else ((), ())
    places = [_places(row, 1 + pairs) for row in words]
    masked = (_masked(row, place) for row, found in zip(texts, places, strict=True) for place in [(0, []), *found])
    size = max(1, CELLS // (longest + _BEYOND))
    parts = iter(lambda: list(islice(masked, size)), [])
    computed = [logits(list(map(list, zip(*part, strict=True)))) for part in parts]
    ends = list(accumulate(len(found) + 1 for found in places))
    by_text = np.split(np.concatenate(computed), ends[:-1]) if computed else []
    return [_explanation(*found, task, *named[:1]) for found in zip(rows, places, by_text, strict=True)]


def _read(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> list[tuple[str, list[tuple[int, int]]]]:
    """Return of each text as much as may be read, and the words in it that are."""
    found = []
    for text, encoding in zip(texts, tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
        words = dict.fromkeys(word for word in encoding.word_ids[:longest] if word is not None)
        end = encoding.offsets[longest + _BEYOND][0] if len(encoding) > longest + _BEYOND else len(text)
        found.append((text[:end], [span for word in words if (span := encoding.word_to_chars(word))]))
    return found


def _places(row: Sequence[list[tuple[int, int]]], most: int) -> list[Place]:
    """List what to mask of a row: up to ``most`` neighbouring words at once."""
    return [
        (column, words[begin : begin + size])
        for column, words in enumerate(row)
        for begin in range(len(words))
        for size in range(1, min(most, len(words) - begin) + 1)
    ]


def _masked(row: Sequence[str], place: Place) -> list[str]:
    changed, (column, words) = list(row), place
    for begin, end in reversed(words):
        changed[column] = f"{changed[column][:begin]}{MASK}{changed[column][end:]}"
    return changed


def _explanation(
    texts: tuple[str, ...], places: Sequence[Place], logits: Logits, task: Task, output: int | None = None
) -> Explanation:
    """Compare the logits of a text, the first row, with those of its masked forms; by default of the best output."""
    output = int(logits[0].argmax()) if output is None else output
    values = logits[:, output].astype(np.float64).tolist()
    shares = probabilities(logits, task)[:, output].tolist() if task.labels else None
    effects: tuple[list[Effect], list[Effect]] = [], []
    for number, (column, words) in enumerate(places, 1):
        begin, end = words[0][0], words[-1][1]
        lost = None if shares is None else shares[0] - shares[number]
        effect = Effect(texts[column][begin:end], column, begin, end, values[0] - values[number], lost)
        effects[len(words) - 1].append(effect)
    label, share = (task.labels[output], shares[0]) if shares else ("", None)
    return Explanation(texts, label, values[0], share, *map(tuple, effects))
