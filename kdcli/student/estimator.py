"""What scikit-learn wants of a student: labels in the order of their names, and the tags of a fitted estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.api import Task
from kdcli.tasks.answers import at_half


def classes(task: Task) -> NDArray[np.str_]:
    """Return the labels, sorted; scores have none, which scikit-learn asks of by ``hasattr``."""
    if task.is_score:
        raise AttributeError("a student of scores has no classes")
    return np.array(sorted(task.labels))


def by_class(values: NDArray[Any], task: Task) -> NDArray[Any]:
    """Return the columns of labels, ``[texts, labels]``, in the order of ``classes``."""
    return values[:, np.argsort(task.labels)]


def decisions(logits: NDArray[np.float32], task: Task) -> NDArray[np.float64]:
    """Return the logits of ``classes``; see ``Student.decision_function``."""
    found = by_class(at_half(logits.astype(np.float64), task), task)
    return found[:, 1] - found[:, 0] if found.shape[1] == 2 and not task.multi_label else found


def tags(task: Task) -> Any:
    """Return the tags of scikit-learn's estimators: it reads texts, and needs no ``fit``."""
    from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

    return Tags(
        estimator_type="regressor" if task.is_score else "classifier",
        target_tags=TargetTags(required=False, one_d_labels=not task.multi_label),
        classifier_tags=None if task.is_score else ClassifierTags(multi_label=task.multi_label),
        regressor_tags=RegressorTags() if task.is_score else None,
        input_tags=InputTags(one_d_array=True, two_d_array=task.kind == "pair", string=True),
        no_validation=True,
        requires_fit=False,
    )
