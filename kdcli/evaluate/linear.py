"""TF-IDF and a linear model on the teacher's answers: what a student has to beat, in seconds."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from kdcli.api import QuietReporter, Task
from kdcli.student.dataset import open_joined
from kdcli.tasks.answers import answers

MOST = 50_000  # the most rows it learns from: the first, so the task's own texts come before fabricated ones
_BETWEEN = " [SEP] "
_UNSEEN = 5.0  # how far the log-odds of classes that it has not seen lie below all others


@dataclass(frozen=True)
class Linear:
    """A linear model of the words and word pairs of a text."""

    task: Task
    pipeline: Pipeline
    parameters_without_embeddings: int = 0

    @property
    def parameters(self) -> int:
        """The number of its weights."""
        model = self.pipeline[-1]
        models = getattr(model, "estimators_", [model])  # one a label where each is a yes or no of its own
        return sum(int(one.coef_.size + np.size(one.intercept_)) for one in models if hasattr(one, "coef_"))

    @property
    def megabytes(self) -> float:
        """The size of its weights in float32 and of its vocabulary, in 10^6 bytes."""
        words = self.pipeline[0].vocabulary_
        return (4 * (self.parameters + len(words)) + sum(len(word.encode()) for word in words)) / 1e6

    def logits(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return the log-odds of the classes, or the scores, ``float32 [texts, task.outputs]``."""
        texts = list(map(_BETWEEN.join, zip(*columns, strict=True)))
        if self.task.is_score:
            return np.asarray(self.pipeline.predict(texts), np.float32)[:, None]
        found = np.asarray(self.pipeline.decision_function(texts), np.float32)
        if self.task.multi_label:
            return found
        found = np.stack([-found / 2, found / 2], 1) if found.ndim == 1 else found
        odds = np.full((len(found), self.task.outputs), found.min(initial=0) - _UNSEEN, np.float32)
        odds[:, self.pipeline.classes_] = found
        return odds


def train_linear(joined: Path, task: Task) -> Linear | None:
    """Train on the first rows of a joined set; see ``fit_linear``."""
    columns: list[list[str]] = [[] for _ in task.columns]
    targets: list[NDArray[Any]] = []
    for texts, logits, *_ in open_joined(joined, task, QuietReporter()).batches():
        for column, series in zip(columns, texts, strict=True):
            column += series.head(MOST - len(column)).to_list()
        targets.append(answers(logits, task))
        if len(columns[0]) >= MOST:
            break
    return fit_linear(columns, np.concatenate(targets)[: len(columns[0])], task)


def fit_linear(columns: Sequence[Sequence[str]], wanted: NDArray[Any], task: Task) -> Linear | None:
    """Train on texts and their ``tasks.answers.answers``; None where these are all alike, or no word stands twice."""
    if len(np.unique(wanted, axis=0)) < 2:
        return None
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=min(2, len(wanted) // 10), sublinear_tf=True)
    model = Ridge() if task.is_score else LogisticRegression(C=10.0, max_iter=200)
    pipeline = make_pipeline(words, OneVsRestClassifier(model) if task.multi_label else model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a label that all texts have, or none: its answer is constant
        try:
            return Linear(task, pipeline.fit(list(map(_BETWEEN.join, zip(*columns, strict=True))), wanted))
        except ValueError:  # no word is left
            return None
