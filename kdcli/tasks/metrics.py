"""The metrics of GLUE, of rare classes and of sets of labels, for all rows and for many resamples of the rows at once.

The bootstrap (Efron and Tibshirani 1993) draws rows with replacement. A resample of classified rows matters only by
how often each combination of gold label and answers occurs in it, and these counts are multinomial: a thousand
resamples cost the same for a thousand rows and for a million.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

from kdcli.api import Task
from kdcli.config.table import metrics_of
from kdcli.tasks.answers import Outputs, answers, label_matrix, same

RESAMPLES = 1000
_AT_ONCE = 1 << 22
"""Most numbers in a block of resamples."""

Floats = NDArray[np.float64]
Values = dict[str, Floats]
"""By metric, its value in each resample, ``float64 [resamples]``."""


def score(task: Task, outputs: NDArray[np.floating[Any]], gold: NDArray[Any]) -> dict[str, float]:
    """Score the outputs of a model by all metrics that fit the task, ``task.metric`` among them.

    F1 is that of ``task.positive`` where there are two labels, by default the second as GLUE has it for MRPC and QQP,
    and the macro average where there are more. A metric that has no value (the correlation with a constant) is 0. All
    are as scikit-learn defines them; the subset accuracy is its accuracy of whole sets of labels.

    Args:
        task: The task.
        outputs: Logits, ``[rows, task.outputs]``.
        gold: The class ids ``int64 [rows]``, the scores ``float32 [rows]``, or of a multi-label task whether a row has
            a label, ``bool [rows, labels]``.

    Returns:
        The values of ``metrics_of`` the task. None is in percent.

    Raises:
        ValueError: There are no rows, or not as many outputs as gold.
    """
    if len(gold) == 0 or outputs.shape != (len(gold), task.outputs):
        raise ValueError(f"outputs {outputs.shape} for {len(gold)} gold rows and {task.outputs} outputs each")
    if task.is_score:
        predicted = outputs[:, 0].astype(np.float64)
        return {
            "pearson": _correlation(stats.pearsonr, predicted, gold),
            "spearman": _correlation(stats.spearmanr, predicted, gold),
        }
    answer = answers(outputs, task)
    macro = float(metrics.f1_score(gold, answer, zero_division=0, average="macro"))
    if task.multi_label:
        micro, subset = metrics.f1_score(gold, answer, zero_division=0, average="micro"), same(gold, answer).mean()
        return {"micro_f1": float(micro), "macro_f1": macro, "subset_accuracy": float(subset)}
    f1 = (
        float(metrics.f1_score(gold, answer, zero_division=0, pos_label=_positive(task)))
        if task.outputs == 2
        else macro
    )
    with warnings.catch_warnings():
        # scikit-learn warns where there is one class only, or a class that no row has; the values are those wanted.
        warnings.simplefilter("ignore", UserWarning)
        mcc, balanced = metrics.matthews_corrcoef(gold, answer), metrics.balanced_accuracy_score(gold, answer)
    accuracy = float(metrics.accuracy_score(gold, answer))
    return {"accuracy": accuracy, "f1": f1, "mcc": float(mcc), "macro_f1": macro, "balanced_accuracy": float(balanced)}


def metric_title(task: Task, metric: str) -> str:
    """Return a metric's name for people: it says which F1 it is, that of one label of two or the macro average."""
    if metric != "f1":
        return metric.replace("_", " ")
    return "macro f1" if task.outputs > 2 else f"f1 of {(task.names or task.labels)[_positive(task)]}"


def _positive(task: Task) -> int:
    """Return the number of the label that F1 is about."""
    return task.labels.index(task.positive) if task.positive in task.labels else 1


def _correlation(measure: Any, predicted: NDArray[np.float64], gold: NDArray[Any]) -> float:
    if len(gold) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        value = float(measure(predicted, gold.astype(np.float64)).statistic)
    return value if np.isfinite(value) else 0.0


def resampled(
    task: Task, outputs: Sequence[Outputs], gold: NDArray[Any], *, seed: int = 1, resamples: int = RESAMPLES
) -> list[Values]:
    """Score models on resamples of the rows, drawn with replacement; the same resamples for all models.

    The metrics are those of ``score``.

    Args:
        task: The task.
        outputs: Of each model, ``[rows, task.outputs]``.
        gold: As for ``score``.
        seed: Seed of the resamples.
        resamples: Their number.
    """
    random = np.random.Generator(np.random.Philox(seed))
    if task.is_score:
        return _resampled_scores([output[:, 0] for output in outputs], gold, random, resamples)
    columns = [gold, *(answers(output, task) for output in outputs)]
    keys = [np.packbits(column, axis=1) if task.multi_label else column[:, None] for column in columns]
    _, places, counts = np.unique(np.concatenate(keys, 1), axis=0, return_index=True, return_counts=True)
    gold_cells, *cells = (label_matrix(column[places], task).astype(np.int64) for column in columns)  # [cells, labels]
    values: list[Values] = [{name: np.empty(0) for name in metrics_of(True, task.multi_label)} for _ in outputs]
    block = max(1, _AT_ONCE // len(counts))
    for begin in range(0, resamples, block):
        drawn = random.multinomial(len(gold), counts / len(gold), min(block, resamples - begin))  # [resamples, cells]
        gold_counts = drawn @ gold_cells  # [resamples, labels]
        for of_model, answer in zip(values, cells, strict=True):
            found = drawn @ (answer & gold_cells), gold_counts, drawn @ answer
            subset = drawn @ (answer == gold_cells).all(1) / len(gold)
            scored = _of_sets(*found, subset) if task.multi_label else _from_counts(*found, _positive(task))
            of_model |= {name: np.append(of_model[name], value) for name, value in scored.items()}
    return values


def _of_sets(right: NDArray[np.int64], gold: NDArray[np.int64], answered: NDArray[np.int64], subset: Floats) -> Values:
    """Score sets of labels by the true positives and the margins of each label, ``int64 [resamples, labels]``."""
    micro = _quotient(2 * right.sum(1), (gold + answered).sum(1))
    return {"micro_f1": micro, "macro_f1": _f1(right, gold + answered).mean(1), "subset_accuracy": subset}


def _f1(right: NDArray[np.int64], both: NDArray[np.int64]) -> Floats:
    found: Floats = np.divide(2 * right, both, out=np.zeros(right.shape), where=both > 0)
    return found


def _from_counts(
    right: NDArray[np.int64], gold: NDArray[np.int64], answered: NDArray[np.int64], positive: int
) -> Values:
    """Score confusion matrices by their diagonals and margins, each ``int64 [resamples, classes]``."""
    rows = gold.sum(1).astype(np.float64)
    hits = right.sum(1)
    occurs = gold + answered > 0
    f1 = _f1(right, gold + answered)
    macro = f1.sum(1) / occurs.sum(1)
    recall = np.divide(right, gold, out=np.zeros(right.shape), where=gold > 0)
    # Gorodkin's R_K (2004), which is the usual MCC where there are two classes.
    together = hits * rows - (gold.astype(np.float64) * answered).sum(1)
    spreads = [rows**2 - (counts.astype(np.float64) ** 2).sum(1) for counts in (gold, answered)]
    return {
        "accuracy": hits / rows,
        "f1": f1[:, positive] if gold.shape[1] == 2 else macro,
        "mcc": _quotient(together, np.sqrt(spreads[0] * spreads[1])),
        "macro_f1": macro,
        "balanced_accuracy": recall.sum(1) / (gold > 0).sum(1),
    }


def _resampled_scores(
    predicted: Sequence[Outputs], gold: NDArray[Any], random: np.random.Generator, resamples: int
) -> list[Values]:
    columns = [column.astype(np.float64) for column in (gold, *predicted)]
    found: list[dict[str, list[Floats]]] = [{"pearson": [], "spearman": []} for _ in predicted]
    block = max(1, _AT_ONCE // len(gold))
    for begin in range(0, resamples, block):
        rows = random.integers(0, len(gold), (min(block, resamples - begin), len(gold)))
        truth, *others = (column[rows] for column in columns)  # [block, rows]
        ranks = stats.rankdata(truth, axis=1)
        for of_model, other in zip(found, others, strict=True):
            of_model["pearson"].append(_correlations(truth, other))
            of_model["spearman"].append(_correlations(ranks, stats.rankdata(other, axis=1)))
    return [{name: np.concatenate(blocks) for name, blocks in of_model.items()} for of_model in found]


def _correlations(first: Floats, second: Floats) -> Floats:
    """Return Pearson's correlation of each row of two arrays; 0 where one of them is constant."""
    constant = (np.ptp(first, axis=1) == 0) | (np.ptp(second, axis=1) == 0)
    first = first - first.mean(1, keepdims=True)
    second = second - second.mean(1, keepdims=True)
    spread = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.where(constant, 0.0, _quotient((first * second).sum(1), spread))


def _quotient(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    shares: Floats = np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
    return shares
