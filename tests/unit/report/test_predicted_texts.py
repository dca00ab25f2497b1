from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_run import write_run
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from kdcli.api import Task
from kdcli.report import texts
from kdcli.report.texts import TablePredictions, read_predictions

THREE = Task("made", "single", ("a", "b", "c"), ("ay", "bee", "see"))
SCORE = Task("made", "single", (), score_range=(0.0, 5.0))


def made(task: Task, gold: list[float], teacher: object, student: object) -> TablePredictions:
    texts = pl.DataFrame({"sentence": [f"text {row}" for row in range(len(gold))]})
    of = {name: np.array(values, np.float32) for name, values in (("teacher", teacher), ("student", student))}
    return TablePredictions("dev", task, texts, np.array(gold), of)


def test_tables_are_apart_and_confusions_are_those_of_scikit_learn(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", labels=THREE.labels, tables=("dev_matched", "dev_mismatched"), rows=50)
    found = read_predictions(root / "predictions.parquet", THREE)
    assert [(table.table, len(table.gold)) for table in found] == [("dev_matched", 50), ("dev_mismatched", 50)]
    for table in found:
        for model, logits in table.logits.items():
            expected = confusion_matrix(table.gold, logits.argmax(1), labels=[0, 1, 2])
            assert table.confusion(model) == expected.tolist()
        assert round(50 * (1 - table.agreement)) == sum(table.right.values())


def test_where_they_part() -> None:
    teacher = [[4, 0, 0], [0, 2, 0], [0, 0, 3], [1, 0, 0]]
    student = [[3, 0, 0], [2, 0, 0], [9, 0, 0], [0, 2, 0]]
    found = made(THREE, [0, 1, 1, 1], teacher, student)
    assert found.agreement == 0.25
    assert found.right == {"teacher": 1, "student": 1, "neither": 1}
    assert [row["texts"] for row in found.disagreements] == [["text 2"], ["text 1"], ["text 3"]]
    widest = found.disagreements[0]
    assert [widest[name] for name in ("gold", "teacher", "student", "right")] == ["bee", "see", "ay", "neither"]
    p, q = softmax([0.0, 0, 3]), softmax([9.0, 0, 0])
    assert widest["sure"] == [pytest.approx(p.max()), pytest.approx(q.max())]
    # The total variation is the most that the two differ on any set of labels.
    assert widest["size"] == pytest.approx(
        max(abs(p[list(s)].sum() - q[list(s)].sum()) for s in ([0], [1], [2])), abs=1e-6
    )
    assert [row["right"] for row in found.disagreements] == ["neither", "teacher", "student"]


def test_of_scores_all_are_compared() -> None:
    found = made(SCORE, [1.0, 2.0, 5.0], [[1.5], [2.0], [4.0]], [[1.0], [5.0], [3.0]])
    assert sum(found.right.values()) == 3
    assert [(part["texts"][0], part["size"], part["right"]) for part in found.disagreements] == [
        ("text 1", 3.0, "teacher"),
        ("text 2", 1.0, "teacher"),
        ("text 0", 0.5, "student"),
    ]
    assert found.disagreements[0]["sure"] is None and found.disagreements[0]["student"] == "5"
    assert found.agreement == pytest.approx(np.corrcoef([1.5, 2, 4], [1, 5, 3])[0, 1])


def test_scores_go_no_further_than_the_range(tmp_path: Path) -> None:
    (dev,) = read_predictions(write_run(tmp_path / "run", labels=()) / "predictions.parquet", SCORE)
    assert all(logits.min() >= 0 and logits.max() <= 5 for logits in dev.logits.values())


def test_no_more_than_the_widest_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MOST", 2)
    found = made(THREE, [0] * 4, [[2, 0, 0]] * 4, [[0, 1, 0], [0, 3, 0], [0, 2, 0], [2, 0, 0]])
    assert [row["texts"][0] for row in found.disagreements] == ["text 1", "text 2"]
    assert sum(found.right.values()) == 3


def test_errors_that_both_make_the_surest_first() -> None:
    teacher = [[4, 0, 0], [0, 2, 0], [0, 0, 3], [1, 0, 0], [9, 0, 0]]
    student = [[3, 0, 0], [2, 0, 0], [9, 0, 0], [0, 2, 0], [0, 4, 0]]
    found = made(THREE, [1, 2, 1, 1, 0], teacher, student)
    expected = {}
    for row, (gold, one, other) in enumerate(zip([1, 2, 1, 1, 0], teacher, student, strict=True)):
        if gold not in (int(np.argmax(one)), int(np.argmax(other))):
            expected[f"text {row}"] = min(softmax(np.float64(one)).max(), softmax(np.float64(other)).max())
    assert set(expected) == {"text 0", "text 1", "text 2"}
    assert {text["texts"][0]: text["size"] for text in found.shared_errors} == pytest.approx(expected)
    sizes = [text["size"] for text in found.shared_errors]
    assert sizes == sorted(sizes, reverse=True) and found.both_wrong == 3
    first = found.shared_errors[0]
    assert (first["texts"], first["right"]) == (["text 0"], "neither")
    assert (first["gold"], first["teacher"], first["student"]) == ("bee", "ay", "ay")


def test_of_scores_errors_are_shared_on_one_side_of_gold() -> None:
    found = made(SCORE, [1.0, 2.0, 5.0, 3.0], [[1.5], [1.0], [4.0], [4.0]], [[2.0], [4.0], [2.0], [3.0]])
    assert [(text["texts"][0], text["size"]) for text in found.shared_errors] == [("text 2", 1.0), ("text 0", 0.5)]
    assert found.shared_errors[0]["right"] == "teacher"
