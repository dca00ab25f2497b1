from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.pipeline.predict import named, predict

SCORE = Task("stsb", "pair", (), score_range=(0.0, 5.0), metric="pearson")
CLASSES = Task("nli", "pair", ("entailment", "neutral", "contradiction"))


class Lengths:
    """A model whose output is the number of words of the first text, less those of the second, as many times as the
    task has outputs."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def logits(self, columns: Sequence[Sequence[str]]) -> np.ndarray:
        first, second = ([len(text.split()) for text in texts] for texts in columns)
        difference = np.subtract(first, second)[:, None]
        return (difference * np.arange(1, self.task.outputs + 1)).astype(np.float32)


def table(folder: Path, rows: Sequence[str]) -> Path:
    path = folder / "test.tsv"
    path.write_text("".join(f"{row}\n" for row in ("index\tsentence1\tsentence2", *rows)), "utf-8")
    return path


def test_scores_are_clipped_into_their_range(tmp_path: Path) -> None:
    path = table(tmp_path, ["7\ta b c\tx", "8\ta b c d e f g\tx", "9\ta\tx y"])
    found = predict(Lengths(SCORE), path)
    assert found.to_pydict() == {"index": ["7", "8", "9"], "prediction": ["2", "5", "0"]}


def test_classes_are_named(tmp_path: Path) -> None:
    found = predict(Lengths(CLASSES), table(tmp_path, ["0\ta b\tx", "1\ta\tx y"]))
    assert found["prediction"].to_pylist() == ["contradiction", "entailment"]


@pytest.mark.parametrize(
    ("score_range", "expected"),
    [(None, ["-0.25", "3.14159", "12"]), ((0.0, 5.0), ["0", "3.14159", "5"]), ((-1.0, 0.1), ["-0.25", "0.1", "0.1"])],
)
def test_a_score_is_written_no_further_than_its_range(
    score_range: tuple[float, float] | None, expected: list[str]
) -> None:
    task = Task("score", "single", (), score_range=score_range, metric="pearson")
    logits = np.array([[-0.25], [3.14159265], [12]], np.float32)
    assert named(logits, task) == expected
    assert logits[2, 0] == 12  # the logits stay what they are


def test_more_rows_than_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdcli.pipeline.predict.ROWS", 2)
    rows = [f"{row}\t{'a ' * (row + 1)}b\tx" for row in range(5)]
    assert predict(Lengths(SCORE), table(tmp_path, rows))["prediction"].to_pylist() == ["1", "2", "3", "4", "5"]


def test_a_table_of_another_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("sentence\ngood\n", "utf-8")
    with pytest.raises(DataError):
        predict(Lengths(SCORE), tmp_path / "a.tsv")
