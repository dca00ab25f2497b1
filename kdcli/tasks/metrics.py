"""The metrics of GLUE."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

from kdcli.api import Task


def score(task: Task, outputs: NDArray[np.floating[Any]], gold: NDArray[Any]) -> dict[str, float]:
    """Score the outputs of a model by all metrics that fit the task, ``task.metric`` among them.

    F1 is that of the second label where there are two, as GLUE has it for MRPC and QQP, and the macro average where
    there are more. A metric that has no value (the correlation with a constant) is 0.

    Args:
        task: The task.
        outputs: Logits, ``[rows, task.outputs]``; of classes the highest is the answer.
        gold: The class ids ``int64 [rows]``, or the scores ``float32 [rows]``.

    Returns:
        accuracy, f1 and mcc of classes; pearson and spearman of scores. None is in percent.

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
    answer = outputs.argmax(1)
    average = {"average": "binary", "pos_label": 1} if task.outputs == 2 else {"average": "macro"}
    return {
        "accuracy": float(metrics.accuracy_score(gold, answer)),
        "f1": float(metrics.f1_score(gold, answer, zero_division=0, **average)),
        "mcc": _mcc(gold, answer),
    }


def _correlation(measure: Any, predicted: NDArray[np.float64], gold: NDArray[Any]) -> float:
    if len(gold) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        value = float(measure(predicted, gold.astype(np.float64)).statistic)
    return value if np.isfinite(value) else 0.0


def _mcc(gold: NDArray[Any], answer: NDArray[Any]) -> float:
    with warnings.catch_warnings():
        # scikit-learn warns where there is one class only; the value, 0, is the one wanted.
        warnings.simplefilter("ignore", UserWarning)
        return float(metrics.matthews_corrcoef(gold, answer))
