"""The metrics of GLUE, of rare classes and of sets of labels, for all rows and for many resamples of the rows at once.

The bootstrap (Efron and Tibshirani 1993) draws rows with replacement. A resample of classified rows matters only by
how often each combination of gold label and answers occurs in it, and these counts are multinomial: a thousand
resamples cost the same for a thousand rows and for a million.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdcli.api import Task
from kdcli.tasks.answers import Outputs, answers, label_matrix

RESAMPLES = 1000
_AT_ONCE = 1 << 22  # most numbers in a block of resamples

Floats = NDArray[np.float64]
Values = dict[str, Floats]  # by metric, its value in each resample, ``float64 [resamples]``


def score(task: Task, outputs: NDArray[np.floating[Any]], gold: NDArray[Any]) -> dict[str, float]:
    """Score the outputs of a model by all metrics that fit the task, ``task.metric`` among them.

    F1 is that of ``task.positive`` where there are two labels, by default the second as GLUE has it for MRPC and QQP,
    and the macro average where there are more. A metric that has no value (the correlation with a constant) is 0. All
    are as scikit-learn defines them; the subset accuracy is its accuracy of whole sets of labels.

    ``outputs`` are logits ``[rows, task.outputs]``. ``gold`` are class ids ``int64 [rows]``, scores ``float32 [rows]``,
    or of a multi-label task whether a row has a label, ``bool [rows, labels]``. No value is in percent. No rows, or not
    as many outputs as gold, are a ``ValueError``.
    """
    if len(gold) == 0 or outputs.shape != (len(gold), task.outputs):
        raise ValueError(f"outputs {outputs.shape} for {len(gold)} gold rows and {task.outputs} outputs each")
    if task.is_score:
        columns = (column[None].astype(np.float64) for column in (gold, outputs[:, 0]))
        return {name: float(value[0]) for name, value in _of_scores(*columns).items()}
    cells = (label_matrix(one, task) for one in (gold, answers(outputs, task)))
    values = _of_labels(task, np.ones((1, len(gold))), *cells)
    return {name: float(value[0]) for name, value in values.items()}


def metric_title(task: Task, metric: str) -> str:
    """Return a metric's name for people: it says which F1 it is, that of one label of two or the macro average."""
    if metric != "f1":
        return metric.replace("_", " ")
    return "macro f1" if task.outputs > 2 else f"f1 of {(task.names or task.labels)[_positive(task)]}"


def _positive(task: Task) -> int:
    return task.labels.index(task.positive) if task.positive in task.labels else 1


def resampled(
    task: Task, outputs: Sequence[Outputs], gold: NDArray[Any], *, seed: int = 1, resamples: int = RESAMPLES
) -> list[Values]:
    """Score models on resamples of the rows, drawn with replacement; the same resamples for all models.

    The metrics and ``gold`` are those of ``score``; ``outputs`` are ``[rows, task.outputs]`` of each model.
    """
    random = np.random.Generator(np.random.Philox(seed))
    if task.is_score:
        scores = [column.astype(np.float64) for column in (gold, *(output[:, 0] for output in outputs))]
        block, blocks = max(1, _AT_ONCE // len(gold)), []
        for begin in range(0, resamples, block):
            rows = random.integers(0, len(gold), (min(block, resamples - begin), len(gold)))
            truth, *others = (column[rows] for column in scores)  # [block, rows]
            blocks.append([_of_scores(truth, other) for other in others])
        return _joined(blocks)
    columns = [gold, *(answers(output, task) for output in outputs)]
    keys = [np.packbits(column, axis=1) if task.multi_label else column[:, None] for column in columns]
    _, places, counts = np.unique(np.concatenate(keys, 1), axis=0, return_index=True, return_counts=True)
    gold_cells, *cells = (label_matrix(column[places], task) for column in columns)  # [cells, labels]
    draws = resampled_counts(counts, random, resamples)
    return _joined([[_of_labels(task, drawn, gold_cells, answer) for answer in cells] for drawn in draws])


def resampled_counts(counts: NDArray[Any], random: np.random.Generator, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """Yield how often each kind of row is in resamples, ``[resamples, kinds]``; ``counts`` are those of all rows."""
    rows, block = int(counts.sum()), max(1, _AT_ONCE // len(counts))
    for begin in range(0, resamples, block):
        yield random.multinomial(rows, counts / rows, min(block, resamples - begin)).astype(np.float64)


def _joined(blocks: Sequence[Sequence[Values]]) -> list[Values]:
    """Put the values of each model in all blocks of resamples together."""
    return [
        {name: np.concatenate([block[name] for block in of_model]) for name in of_model[0]}
        for of_model in zip(*blocks, strict=True)
    ]


def _of_labels(task: Task, drawn: Floats, gold: NDArray[np.bool_], answer: NDArray[np.bool_]) -> Values:
    """Score labels in each resample.

    ``drawn`` says how often each row is drawn, ``[resamples, rows]``; ``gold`` and ``answer`` which labels it has, and
    which the model gives it, ``[rows, labels]``.
    """
    rows, whole = drawn.sum(1), drawn @ (answer == gold).all(1)
    right, wanted, said = (drawn @ one for one in (answer & gold, gold, answer))  # [resamples, labels]
    f1 = _quotient(2 * right, wanted + said)
    if task.multi_label:
        micro = _quotient(2 * right.sum(1), (wanted + said).sum(1))
        return {"micro_f1": micro, "macro_f1": f1.mean(1), "subset_accuracy": whole / rows}
    macro = f1.sum(1) / (wanted + said > 0).sum(1)
    # Gorodkin's R_K (2004), which is the usual MCC where there are two classes.
    together = whole * rows - (wanted * said).sum(1)
    spreads = [rows**2 - (counts**2).sum(1) for counts in (wanted, said)]
    return {
        "accuracy": whole / rows,
        "f1": f1[:, _positive(task)] if task.outputs == 2 else macro,
        "mcc": _quotient(together, np.sqrt(spreads[0] * spreads[1])),
        "macro_f1": macro,
        "balanced_accuracy": _quotient(right, wanted).sum(1) / (wanted > 0).sum(1),
    }


def _of_scores(gold: Floats, predicted: Floats) -> Values:
    """Correlate scores in each resample, ``[resamples, rows]``."""
    ranks = (stats.rankdata(scores, axis=1) for scores in (gold, predicted))
    return {"pearson": _correlations(gold, predicted), "spearman": _correlations(*ranks)}


def _correlations(first: Floats, second: Floats) -> Floats:
    """Return Pearson's correlation of each row of two arrays; 0 where one of them is constant."""
    constant = (np.ptp(first, axis=1) == 0) | (np.ptp(second, axis=1) == 0)
    first = first - first.mean(1, keepdims=True)
    second = second - second.mean(1, keepdims=True)
    spread = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.where(constant, 0.0, _quotient((first * second).sum(1), spread))


def _quotient(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    return np.asarray(np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0), np.float64)
