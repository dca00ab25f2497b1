import json
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from made_run import write_run
from raising import raising
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from kdcli.api import QuietReporter, Task
from kdcli.errors import DataError
from kdcli.report import plots, texts
from kdcli.report.collect import Curve, collect, read_curves
from kdcli.report.texts import TablePredictions, read_predictions, survey
from kdcli.student.deferral import Calibration, Familiar


@pytest.fixture
def root(tmp_path):
    return write_run(tmp_path / "run")


def test_results_are_dataclasses_again_as_the_profile_says(root, monkeypatch):
    run = collect(root)
    assert run.made.keys() == {"lite", "heavy", "mix"}
    assert run.made["lite"].fabricated == 90 and run.made["lite"].examples[0]["rules"] == ["masked"]
    assert run.made["heavy"].novelty.equal_distinct_2 == pytest.approx(0.2)
    assert run.made["mix"].kept == {"lite": 90, "heavy": 40}
    assert run.results and run.results.rows[2].model == "student" and run.results.gap_closed["dev"]["accuracy"] == 0.75
    monkeypatch.setenv("KD_SEED", "99")
    assert collect(root).settings["seed"] == 7
    profile = root / "profile.toml"
    profile.write_text(profile.read_text().replace("lite+heavy", "lite"))
    assert "heavy" not in collect(root).made


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_that_is_no_run(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with raising(DataError, hint="kd run-all"):
        collect(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", "{}"),
        ("profile.toml", "[task"),
        ("profile.toml", '[task]\nlabels = ["one"]'),
        ("predictions.parquet", "no parquet"),
        ("join/joined.parquet", "no parquet"),
    ],
)
def test_a_damaged_file_is_named(root, name, content):
    (root / name).write_text(content)
    with raising(DataError, file=root / name):
        collect(root)


def written(path, *points):
    file = path / "metrics.jsonl"
    file.write_text("".join(f"{json.dumps({'time': 1.5, **point})}\n" for point in points))
    return file


def point(stage, step, **values):
    return {"stage": stage, "step": step, **values}


def test_curves_of_points_and_of_each_learning_rate(tmp_path):
    first = [point("student", step, loss=1.0) for step in (10, 20, 30)]
    again = [point("student", 30, loss=0.5), point("student", 40, loss=0.25)]
    file = written(tmp_path, *first, point("baseline", 5, loss=2.0), *again)
    assert read_curves(file, {}, {}) == [
        Curve("student", "", [10, 20, 30, 40], {"loss": [1.0, 1.0, 0.5, 0.25]}),
        Curve("baseline", "", [5], {"loss": [2.0]}),
    ]
    file = written(tmp_path, point("teacher", 1, loss=None, f1=0.5, lr=0.1), point("teacher", 2, loss=1.0, lr=0.1))
    file.write_text(file.read_text() + '{"stage": "teacher", "st')
    (curve,) = read_curves(file, {}, {})
    assert curve.values == {"loss": [None, 1.0], "f1": [0.5, None], "lr": [0.1, 0.1]}
    rates = [(peak, step) for peak in (2e-5, 5e-5, 1e-4) for step in (1, 2)]
    points = [point("teacher", step, f1=peak * 1e4, lr=peak / step, peak_lr=peak) for peak, step in rates]
    file = written(tmp_path, *points)
    found = read_curves(file, {}, {"grid": {"5e-05": 0.5, "0.0001": 1.0}})
    assert [(curve.label, curve.values) for curve in found] == [
        ("lr 5e-05", {"f1": [0.5, 0.5], "lr": [5e-5, 2.5e-5]}),
        ("lr 0.0001", {"f1": [1.0, 1.0], "lr": [1e-4, 5e-5]}),
    ]
    assert found[0].metrics == ["f1"]
    assert [curve.label for curve in read_curves(file, {}, {"grid": {"5e-05": 0.5}})] == [""]
    old = [point("generator", step, loss=1.0, lr=peak) for peak in (0.1, 0.2) for step in (1, 2)]
    file = written(tmp_path, *old, *(point("student", step, loss=2.0, lr=1 / step) for step in (1, 2)))
    found = read_curves(file, {}, {})
    assert [(curve.label, curve.steps) for curve in found] == [("lr 0.1", [1, 2]), ("lr 0.2", [1, 2]), ("", [1, 2])]
    assert found[2].values["lr"] == [1.0, 0.5]
    file = written(tmp_path, point("student", 99, loss=9.0), point("student-seed2", 7, loss=3.0))
    history = [{"update": 10, "epoch": 1.0, "loss": 1.0, "accuracy": 0.5}]
    first, second = read_curves(file, {"student": history}, {})
    assert first == Curve("student", "first seed", [10], {"loss": [1.0], "accuracy": [0.5]})
    assert first.metrics == ["accuracy"]
    assert second == Curve("student", "seed 2", [7], {"loss": [3.0]})


THREE = Task("made", "single", ("a", "b", "c"), ("ay", "bee", "see"))
SCORE = Task("made", "single", (), score_range=(0.0, 5.0))


def made(task, gold, teacher, student):
    texts = pl.DataFrame({"sentence": [f"text {row}" for row in range(len(gold))]})
    of = {name: np.array(values, np.float32) for name, values in (("teacher", teacher), ("student", student))}
    return TablePredictions("dev", task, texts, np.array(gold), of)


def test_tables_are_apart_and_confusions_are_those_of_scikit_learn(tmp_path):
    root = write_run(tmp_path / "run", labels=THREE.labels, tables=("dev_matched", "dev_mismatched"), rows=50)
    found = read_predictions(root / "predictions.parquet", THREE)
    assert [(table.table, len(table.gold)) for table in found] == [("dev_matched", 50), ("dev_mismatched", 50)]
    for table in found:
        for model, logits in table.logits.items():
            expected = confusion_matrix(table.gold, logits.argmax(1), labels=[0, 1, 2])
            assert table.confusion(model) == expected.tolist()
        assert round(50 * (1 - table.agreement)) == sum(table.right.values())


def test_where_they_part():
    teacher = [[4, 0, 0], [0, 2, 0], [0, 0, 3], [1, 0, 0]]
    student = [[3, 0, 0], [2, 0, 0], [9, 0, 0], [0, 2, 0]]
    found = made(THREE, [0, 1, 1, 1], teacher, student)
    assert (found.agreement, found.right) == (0.25, {"teacher": 1, "student": 1, "neither": 1})
    assert [row["texts"] for row in found.disagreements] == [["text 2"], ["text 1"], ["text 3"]]
    widest = found.disagreements[0]
    assert widest | {"gold": "bee", "teacher": "see", "student": "ay", "right": "neither"} == widest
    p, q = softmax([0.0, 0, 3]), softmax([9.0, 0, 0])
    assert widest["sure"] == [pytest.approx(p.max()), pytest.approx(q.max())]
    # The total variation is the most that the two differ on any set of labels: here of one.
    assert widest["size"] == pytest.approx(np.abs(p - q).max(), abs=1e-6)
    assert [row["right"] for row in found.disagreements] == ["neither", "teacher", "student"]


def test_scores_are_all_compared_within_their_range(tmp_path):
    found = made(SCORE, [1.0, 2.0, 5.0], [[1.5], [2.0], [4.0]], [[1.0], [5.0], [3.0]])
    assert sum(found.right.values()) == 3
    assert [(part["texts"][0], part["size"], part["right"]) for part in found.disagreements] == [
        ("text 1", 3.0, "teacher"),
        ("text 2", 1.0, "teacher"),
        ("text 0", 0.5, "student"),
    ]
    assert found.disagreements[0]["sure"] is None and found.disagreements[0]["student"] == "5"
    assert found.agreement == pytest.approx(np.corrcoef([1.5, 2, 4], [1, 5, 3])[0, 1])
    found = made(SCORE, [1.0, 2.0, 5.0, 3.0], [[1.5], [1.0], [4.0], [4.0]], [[2.0], [4.0], [2.0], [3.0]])
    assert [(text["texts"][0], text["size"]) for text in found.shared_errors] == [("text 2", 1.0), ("text 0", 0.5)]
    assert found.shared_errors[0]["right"] == "teacher"
    (dev,) = read_predictions(write_run(tmp_path / "run", labels=()) / "predictions.parquet", SCORE)
    assert all(logits.min() >= 0 and logits.max() <= 5 for logits in dev.logits.values())


def test_errors_that_both_make_the_surest_first_and_no_more_than_the_widest(monkeypatch):
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
    first = {"texts": ["text 0"], "right": "neither", "gold": "bee", "teacher": "ay", "student": "ay"}
    assert found.shared_errors[0] | first == found.shared_errors[0]
    monkeypatch.setattr(texts, "MOST", 2)
    found = made(THREE, [0] * 4, [[2, 0, 0]] * 4, [[0, 1, 0], [0, 3, 0], [0, 2, 0], [2, 0, 0]])
    assert [row["texts"][0] for row in found.disagreements] == ["text 1", "text 2"]
    assert sum(found.right.values()) == 3


CLASSES = Task("made", "single", ("no", "yes"))


def surveyed(path, task, seed=7):
    return survey(path, task, seed=seed, reporter=QuietReporter())


@pytest.mark.parametrize("pairs", [False, True])
def test_counts_by_source(tmp_path, pairs):
    path = write_run(tmp_path / "run", pairs=pairs) / "join" / "joined.parquet"
    task = Task("made", "pair" if pairs else "single", ("no", "yes"))
    found, rows = surveyed(path, task), pl.read_parquet(path).to_dicts()
    assert [(source.name, source.rows) for source in found.sources] == [("original", 10), ("lite", 90), ("heavy", 40)]
    assert found.rows == len(rows) == 140
    for source in found.sources:
        own = [row for row in rows if row["source"] == source.name]
        words = [sum(len(row[column].split()) for column in task.columns) for row in own]
        assert source.mean_length == pytest.approx(np.mean(words))
        assert source.median_length == sorted(words)[(len(words) - 1) // 2]
        assert source.answers is not None
        assert source.answers[1] == sum(float(row["logits_1"]) > float(row["logits_0"]) for row in own)


def test_samples_are_rows_of_the_table_as_many_of_each_source(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "SAMPLES", 24)
    path = write_run(tmp_path / "run") / "join" / "joined.parquet"
    found = surveyed(path, CLASSES).samples
    assert Counter(sample.source for sample in found) == {"original": 8, "lite": 8, "heavy": 8}
    rows = pl.read_parquet(path).to_dicts()
    there = {(row["sentence"], row["source"], row["logits_1"] > row["logits_0"]) for row in rows}
    assert all(sample.sure is not None and 0.5 <= sample.sure <= 1 for sample in found)
    assert {(*sample.texts, sample.source, sample.answer == "yes") for sample in found} <= there
    assert found == surveyed(path, CLASSES).samples != surveyed(path, CLASSES, seed=8).samples


LOSSES = ["loss", "dev_loss"]
ODD = "a <b> & $x_1$ \"c\" 'd'"

DRAWN = [
    lambda: plots.curves(
        "a", [Curve("student", "", [1, 2], {"loss": [0.1, None], "dev_loss": [9.0, 8.0]})], LOSSES, y=ODD
    ),
    lambda: plots.curves(
        "b", [Curve("teacher", f"lr {lr}", [1, 9], {"loss": [0.01, 9.0]}) for lr in "123"], LOSSES, y="loss"
    ),
    lambda: plots.curves("c", [Curve("student", "", [1], {"f1": [None]})], ["f1"], y="f1", times=100, teacher=50.0),
    lambda: plots.scatter("g", np.arange(5.0), np.arange(5.0), labels=("gold", ODD), colour=1),
    lambda: plots.scatter("h", np.ones(1), np.ones(1), labels=("gold", "student"), colour=1),
    lambda: plots.tradeoff("i", {ODD: (100.0, 80.0), "student": (40_000.0, 79.0)}, y="dev accuracy"),
    lambda: plots.deferral("j", Calibration(9, 0.5, Familiar(0, 9), [2.0], [0.3, 0.6], [0.5, 1.0], [0.7, 0.6], 0.8)),
    lambda: plots.deferral("k", Calibration(9, 0.9, Familiar(0, 9), [], [0.3], [1.0])),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_a_plot_is_one_element_in_the_colours_and_letters_of_the_page(draw):
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and root.get("role") == "img" and root.get("aria-label")
    texts = [element for element in root.iter() if element.tag == "text"]
    assert texts and all("fill: currentColor" in (text.get("style") or "") for text in texts)
    assert not re.findall(r"#[0-9a-f]{6}|<style|font-family|xmlns|<script", svg)
    assert svg == draw()


def test_labels_and_identifiers():
    root = ElementTree.fromstring(DRAWN[0]())
    texts = ["".join(element.itertext()).strip() for element in root.iter() if element.tag == "text"]
    assert texts.count(ODD) == 1 and {"training", "dev"} <= set(texts)
    assert ODD in (root.get("aria-label") or "")
    found = [set(re.findall(r'id="([^"]+)"', draw())) for draw in DRAWN]
    assert sum(map(len, found)) == len(set().union(*found)) > 0
    svg = plots.tradeoff("x", {"very " * 50 + "long": (100.0, 80.0), "student": (400.0, 79.0)}, y="dev accuracy")
    assert "very very very very very very v…" in svg


@pytest.mark.parametrize(("teacher", "apart"), [(96.9, False), (90.0, True)])
def test_models_that_are_equal_look_so(teacher, apart):
    svg = plots.tradeoff("t", {"teacher": (100, teacher), "student": (1000, 96.914)}, y="dev accuracy")
    one, two = map(float, re.findall(r'<use [^>]*y="([\d.]+)"', svg)[-2:])  # the markers of the two models
    assert (abs(one - two) > 20) == apart
