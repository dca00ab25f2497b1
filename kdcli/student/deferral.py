"""Which texts a student answers itself, so that it seldom answers otherwise than its teacher, with 95 % confidence.

The rule: a text is answered if its margin lies above a threshold and it is familiar, and is deferred otherwise.
The risk of a threshold: the share of all texts that are answered, and answered otherwise than by the teacher.

``calibrate`` counts such texts among n that neither training nor choice of the model has seen, and bounds the risk from
above by the binomial distribution (Clopper and Pearson 1934). It tests thresholds from the strictest on, at the same
level each, and stops at the first failure (fixed-sequence testing: Bauer 1991; Angelopoulos et al. 2021, "Learn then
Test", section 3). The risk can only grow as the threshold falls. So it does not matter that the margins of the same
texts are the candidates: if the chosen threshold breaks the target, then so few errors lie above the strictest one that
breaks it, and this happens with a probability of at most 5 % (Bates et al. 2021, "Distribution-free, risk-controlling
prediction sets", theorem 1). What is familiar is fixed on other texts.
"""

import json
from bisect import bisect_right
from dataclasses import asdict, dataclass
from math import ceil, inf, log
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.errors import DataError, first_line
from kdcli.tasks.answers import answers, as_classes, at_half, same, without_thresholds

CONFIDENCE = 0.95
_USUAL = 0.99  # the share of texts whose unknown words and length say what is familiar

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class WordCounts:
    """How many words each text has, a pair in both texts together, and what share of them the student does not know."""

    words: NDArray[np.int64]  # [texts]
    unknown: NDArray[np.float64]  # [texts], 0 to 1


@dataclass(frozen=True)
class Familiar:
    """The texts with no more unknown words, and no more words, than 99 % of some texts."""

    unknown: float  # the largest share of unknown words
    words: int  # the most words

    @classmethod
    def like(cls, counts: WordCounts) -> Self:
        """Return the limits that some texts set."""
        unknown, words = (np.quantile(each, _USUAL, method="higher") for each in (counts.unknown, counts.words))
        return cls(float(unknown), int(words))

    def includes(self, counts: WordCounts) -> Flags:
        """Return which texts are within the limits, ``bool [texts]``."""
        return (counts.unknown <= self.unknown) & (counts.words <= self.words)


@dataclass(frozen=True)
class Calibration:
    """What a student may answer, for any target.

    Entry k of the lists belongs to the lowest threshold above which k of the calibration texts, or none for k = 0, are
    answered otherwise than by the teacher.
    """

    texts: int  # the number of calibration texts
    agree: float  # the target that is meant where none is named
    familiar: Familiar
    margins: list[float]  # the threshold; the last entry, at which every familiar text is answered, is left out
    bounds: list[float]  # the upper bound of the risk
    answered: list[float]  # the share of the calibration texts that are answered
    accuracy: list[float] | None = None  # of the pair: the teacher answers the rest; None without gold labels
    teacher_accuracy: float | None = None
    format: Literal["kd.calibration/1"] = "kd.calibration/1"

    def __post_init__(self) -> None:
        """Refuse lists that do not fit together."""
        if not len(self.bounds) == len(self.answered) == len(self.margins) + 1:
            raise ValueError("its lists do not fit together")

    def errors(self, agree: float | None = None) -> int | None:
        """Return the most errors that meet a target, the entry to choose; None if no threshold meets it."""
        met = bisect_right(self.bounds, 1 - (self.agree if agree is None else agree))
        return met - 1 if met else None

    def threshold(self, agree: float | None = None) -> float:
        """Return the margin above which a text is answered; infinite where every text is deferred."""
        errors = self.errors(agree)
        if errors is None:
            return inf
        return self.margins[errors] if errors < len(self.margins) else -inf

    def defers(self, margin: Floats, agree: float | None = None) -> Flags:
        """Return which texts are deferred, ``bool [texts]``, by their margins ``[texts]``."""
        return ~(margin > self.threshold(agree))

    def save(self, path: Path) -> None:
        """Write the file as JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the file; None where there is none, and a ``DataError`` where it is damaged."""
        from pydantic import TypeAdapter, ValidationError

        if not path.exists():
            return None
        try:
            found = TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError as error:
            hint = "`kd run-all --only calibrate` makes it again; a student without this file defers nothing"
            raise DataError(f"this is not a calibration: {first_line(error)}", file=path, hint=hint) from error
        return found


def margins(logits: Floats, counts: WordCounts, task: Task, familiar: Familiar) -> Floats:
    """Return how sure a student is of each text, ``[texts]``: by how much the best logit exceeds the second.

    Of a multi-label task it is how far the least sure label is from its threshold. A single score says nothing about
    that: the fewer words are unknown, the surer it is. A text that is not familiar has minus infinity.
    """
    if task.is_score:
        margin = -counts.unknown
    else:
        best = np.partition(as_classes(at_half(logits, task), task), -2, axis=-1)
        margin = (best[..., -1] - best[..., -2]).reshape(len(logits), -1).min(axis=1)
    return np.where(familiar.includes(counts), margin, -inf)


def differs(student: Floats, teacher: Floats, task: Task, tolerance: float = 0.0) -> Flags:
    """Return which texts ``[texts]`` two models answer differently: another label, or scores further apart."""
    if task.is_score:
        ours, theirs = (logits[:, 0].clip(*task.score_range or (-inf, inf)) for logits in (student, teacher))
        return np.asarray(np.abs(ours - theirs) > tolerance)
    return ~same(answers(student, task), answers(teacher, without_thresholds(task)))


def upper_bound(errors: Any, texts: int) -> NDArray[np.float64]:
    """Return the one-sided upper bound of a probability after so many errors in n texts (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv  # for a calibration alone: prediction needs no SciPy

    errors = np.asarray(errors)
    return np.where(errors < texts, betaincinv(errors + 1, np.maximum(texts - errors, 1), CONFIDENCE), 1.0)


def texts_needed(agree: float) -> int:
    """Return the fewest calibration texts that can promise a target: so many without any error."""
    return ceil(log(1 - CONFIDENCE) / log(agree))


def calibrate(
    margin: Floats, wrong: Flags, *, agree: float, familiar: Familiar, right: Flags | None = None
) -> Calibration:
    """Calibrate a student on texts that neither its training nor its choice has seen.

    ``margin [texts]``, by ``margins``, says how sure it is, ``wrong [texts]`` whether it answers otherwise than the
    teacher, ``right [2, texts]`` whether teacher and student are right by gold labels. ``agree`` is the target where
    none is named; ``familiar`` comes from other texts.
    """
    texts, order = len(margin), np.argsort(-margin, kind="stable")
    falling, thresholds = -margin[order], np.append(margin[order][wrong[order] & (margin[order] > -inf)], -inf)
    answered = np.searchsorted(falling, -thresholds)  # those strictly above each threshold
    accuracy, of_teacher = None, None
    if right is not None:
        gained = np.append(0, np.cumsum(right[1][order].astype(int) - right[0][order]))
        accuracy, of_teacher = ((right[0].sum() + gained[answered]) / texts).tolist(), float(right[0].mean())
    bounds = upper_bound(np.arange(len(answered)), texts).tolist()
    shares = (answered / texts).tolist()
    return Calibration(texts, agree, familiar, thresholds[:-1].tolist(), bounds, shares, accuracy, of_teacher)


def cross_fit(margin: Floats, wrong: Flags, calibration: Calibration) -> tuple[float, float]:
    """Measure a calibration's target on texts that have not chosen the threshold: each half of them by the other's.

    Returns the share of the texts that are answered, and of those that are not answered otherwise than by the teacher.
    """
    rows = np.random.Generator(np.random.Philox(1)).permutation(len(margin))
    answered = np.zeros(len(rows), bool)
    for chosen, other in ((rows[::2], rows[1::2]), (rows[1::2], rows[::2])):
        half = calibrate(margin[chosen], wrong[chosen], agree=calibration.agree, familiar=calibration.familiar)
        answered[other] = ~half.defers(margin[other])
    return float(answered.mean()), float(1 - (answered & wrong).mean())
