"""How far a classifier's probabilities can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

BINS = 15
"""As many as Guo et al. 2017 use."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose confidence lies above ``low``, up to ``high``.

    Attributes:
        low: The lower limit, left out.
        high: The upper limit, taken in.
        rows: How many there are.
        confidence: Their mean confidence; 0 where there are none.
        accuracy: The share of them that is right; 0 where there are none.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How well confidence (the probability of the answer) and accuracy agree.

    Attributes:
        ece: The expected calibration error, 0 to 1.
        confidence: The mean confidence.
        accuracy: The share of rows that is right.
        bins: What a reliability diagram shows.
    """

    ece: float
    confidence: float
    accuracy: float
    bins: Sequence[ReliabilityBin]


def calibration(logits: NDArray[np.floating[Any]], gold: NDArray[np.integer[Any]], bins: int = BINS) -> Calibration:
    """Compare confidence with accuracy, in bins of equal width (Guo et al. 2017, section 2).

    ECE is the sum over the bins B of |B| / n * |accuracy(B) - confidence(B)|; bin m of M holds the rows
    whose confidence, the highest softmax probability, lies in ((m - 1) / M, m / M].

    Args:
        logits: ``[rows, classes]``, one row at least.
        gold: Class ids, ``[rows]``.
        bins: The number of bins, M.
    """
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence, right = probabilities.max(1), logits.argmax(1) == gold
    limits = np.linspace(0, 1, bins + 1)
    # Rounding may carry a probability to just above 1.
    which = np.clip(np.searchsorted(limits, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    means = [np.bincount(which, values, bins) / np.maximum(counts, 1) for values in (confidence, right)]
    ece = float((counts * np.abs(means[0] - means[1])).sum() / len(gold))
    rows = zip(limits[:-1].tolist(), limits[1:].tolist(), counts.tolist(), *(m.tolist() for m in means), strict=True)
    return Calibration(ece, float(confidence.mean()), float(right.mean()), [ReliabilityBin(*row) for row in rows])
