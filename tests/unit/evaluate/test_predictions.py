"""Single predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax as reference

from kdcli.api import Task
from kdcli.errors import UsageError
from kdcli.evaluate.predict import predict_texts, prediction_schema

CLASSES = Task("nli", "single", ("entailment", "neutral", "contradiction"))
SCORE = Task("stsb", "single", (), score_range=(0.0, 5.0), metric="pearson")


class Fixed:
    """A model with fixed logits."""

    def __init__(self, task: Task, logits: Sequence[Sequence[float]]) -> None:
        self.task = task
        self.answers = np.array(logits, np.float32)

    def logits(self, columns: Sequence[Sequence[str]]) -> np.ndarray:
        return self.answers


def made(model: Fixed, **how: bool) -> dict[str, list[object]]:
    index = pl.Series([str(row) for row in range(len(model.answers))])
    return predict_texts(model, index, [["a text"] * len(model.answers)], **how).to_dict(as_series=False)


def test_the_label_of_the_highest_logit_and_its_probability() -> None:
    model = Fixed(CLASSES, [[0, 1, 0.5], [3, -1, 2]])
    assert made(model) == {"index": ["0", "1"], "prediction": ["neutral", "entailment"]}
    found = made(model, probabilities=True)
    assert list(found) == ["index", "prediction", *(f"probability_{label}" for label in CLASSES.labels)]
    expected = reference(model.answers.astype(np.float64), axis=1).astype(np.float32)
    np.testing.assert_array_equal([found[f"probability_{label}"] for label in CLASSES.labels], expected.T)


@pytest.mark.parametrize(
    ("score_range", "expected"),
    [(None, [-0.25, 3.140625, 12]), ((0.0, 5.0), [0, 3.140625, 5]), ((-1.0, 0.125), [-0.25, 0.125, 0.125])],
)
def test_a_score_goes_no_further_than_its_range(score_range: tuple[float, float] | None, expected: list[float]) -> None:
    model = Fixed(Task("score", "single", (), score_range=score_range, metric="pearson"), [[-0.25], [3.140625], [12]])
    assert made(model)["prediction"] == expected
    assert model.answers[2, 0] == 12  # the logits stay what they are


def test_scores_have_no_probabilities() -> None:
    with pytest.raises(UsageError):
        prediction_schema(Fixed(SCORE, []), probabilities=True)


def test_a_row_without_words_has_an_empty_prediction_unless_a_label_must_stand() -> None:
    model = Fixed(CLASSES, [[0, 1, 0.5]] * 3)
    index = pl.Series(["0", "1", "2"])
    found = predict_texts(model, index, [["a", " ", ""], ["b", "c", "\t"]], probabilities=True)
    assert found["prediction"].to_list() == ["neutral", "neutral", None]
    assert found["index"].to_list() == ["0", "1", "2"]
    assert found["probability_neutral"].null_count() == 1
    model.answers_all = True  # type: ignore[attr-defined]
    assert predict_texts(model, index, [["a", " ", ""], ["b", "c", "\t"]])["prediction"].null_count() == 0
