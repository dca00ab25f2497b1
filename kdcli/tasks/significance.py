"""Whether one model is better than another on the same rows, or only luckier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from kdcli.api import Task
from kdcli.tasks.bootstrap import RESAMPLES, resampled
from kdcli.tasks.metrics import score

LEVEL = 0.05
"""Below it a difference is called significant."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Difference:
    """How a metric of two models differs.

    Attributes:
        difference: That of the first model, less that of the second.
        low: The lower end of its 95 % interval.
        high: The upper end.
        p: How often a difference as large, of either sign, comes by chance where the models are equally good.
        test: Where ``p`` comes from.
    """

    difference: float
    low: float
    high: float
    p: float
    test: Literal["McNemar's exact test", "paired bootstrap"]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows.

    Attributes:
        first: The name of one.
        second: The name of the other.
        metrics: By metric.
        only_first_right: The rows that the first alone classifies rightly; None for scores.
        only_second_right: Those that the second alone does; None for scores.
    """

    first: str
    second: str
    metrics: dict[str, Difference]
    only_first_right: int | None
    only_second_right: int | None


def compare_models(
    task: Task,
    first: tuple[str, NDArray[np.floating[Any]]],
    second: tuple[str, NDArray[np.floating[Any]]],
    gold: NDArray[Any],
    *,
    seed: int = 1,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Test whether two models differ, metric by metric.

    Accuracy: McNemar's exact test on the rows that one model alone has right. Others: the paired bootstrap of
    Berg-Kirkpatrick et al. 2012 (section 2), two-sided. All intervals are percentiles of the bootstrap.

    Args:
        task: The task.
        first: A model's name and outputs, ``[rows, task.outputs]``.
        second: The other's.
        gold: The class ids ``int64 [rows]``, or the scores ``float32 [rows]``.
        seed: Seed of the resamples.
        resamples: How many to draw.
    """
    found = [score(task, outputs, gold) for _, outputs in (first, second)]
    drawn = resampled(task, [first[1], second[1]], gold, seed=seed, resamples=resamples)
    metrics = {
        metric: _by_bootstrap(found[0][metric] - found[1][metric], drawn[0][metric] - drawn[1][metric])
        for metric in found[0]
    }
    if task.is_score:
        return Comparison(first[0], second[0], metrics, None, None)
    right, other_right = (outputs.argmax(1) == gold for _, outputs in (first, second))
    alone, other_alone = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    bootstrapped = metrics["accuracy"]
    metrics["accuracy"] = Difference(
        bootstrapped.difference,
        bootstrapped.low,
        bootstrapped.high,
        mcnemar(alone, other_alone),
        "McNemar's exact test",
    )
    return Comparison(first[0], second[0], metrics, alone, other_alone)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p value of McNemar's exact test.

    If the models were equally good, either would be the one that is right on such a row with probability 1/2.

    Args:
        only_first: Rows that the first model alone has right.
        only_second: Rows that the second alone has right.
    """
    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def _by_bootstrap(difference: float, drawn: NDArray[np.float64]) -> Difference:
    # Resamples scatter about the difference found; moved to scatter about 0, they show what chance alone does.
    as_large = np.abs(drawn - difference) >= abs(difference) - _ROUNDING
    p = (1 + int(as_large.sum())) / (1 + len(drawn))
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return Difference(difference, low, high, p, "paired bootstrap")
