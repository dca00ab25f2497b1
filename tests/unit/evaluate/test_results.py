"""The results table: scores with intervals, the share of the gap, rows without labels, speed on fresh texts."""

import json
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest
from made_student import SINGLE, make_student
from notes import Notes

from kdcli.api import Task
from kdcli.evaluate.results import compare, gap_closed, score_models
from kdcli.teacher.model import TeacherSource

MODELS = ("teacher", "baseline", "student")
CLASSES = Task("made", "single", ("0", "1"), more_metrics=("f1",))


@dataclass
class FixedTeacher:
    """A teacher that answers by a text's first letter, or always the same."""

    always: bool
    texts: list = field(default_factory=list)
    task = SINGLE
    parameters = parameters_without_embeddings = 10
    megabytes = 1.0

    def logits(self, columns):
        self.texts += columns[0]
        good = np.array([self.always or text.startswith("good") for text in columns[0]])
        return np.stack([-1.0 * good, 1.0 * good], axis=1).astype(np.float32)

    def warn_of_cuts(self, reporter):
        pass


@pytest.mark.parametrize("always", [False, True])
def test_rows_without_a_label_are_left_out_and_a_teacher_of_one_class_is_noted(tmp_path, monkeypatch, always):
    teacher, notes = FixedTeacher(always), Notes()
    monkeypatch.setattr(TeacherSource, "load", lambda *_, **__: teacher)
    texts = ["good film", "bad film", "good plot", "dull"]
    tables = {
        "dev": pl.DataFrame({"index": list("0123"), "sentence": texts, "label": ["yes", "no", None, "no"]}),
        "test": pl.DataFrame({"index": ["0"], "sentence": ["seen"], "label": pl.Series([None], dtype=pl.String)}),
    }
    students = [make_student(tmp_path / name, SINGLE) for name in ("baseline", "student")]
    joined = tmp_path / "joined.parquet"
    logits = {"logits_0": [0.0, 1.0] * 10, "logits_1": [0.5] * 20}
    pl.DataFrame({"sentence": ["bad film", "good film"] * 10, **logits}).write_parquet(joined)
    results = compare(
        teacher=TeacherSource("somewhere"),
        students={"baseline": students[:1], "student": students[1:]},
        joined=joined,
        tables=tables,
        task=SINGLE,
        device="cpu",
        precision="fp32",
        output=tmp_path / "results.json",
        predictions=tmp_path / "predictions.parquet",
        reporter=notes,
    )
    assert [(row.model, set(row.scores)) for row in results.rows] == [
        (name, {"dev"}) for name in ("teacher", "baseline", "tf-idf", "student")
    ]
    assert results.rows[0].scores["dev"]["accuracy"] == [1 / 3 if always else 1.0]
    assert any("dev: 1 rows without a label" in note for note in results.notes)
    assert any("answers yes for every text" in note for note in results.notes) == always
    assert notes.warnings == results.notes
    near = {row.model: row.fidelity["dev"].agreement for row in results.rows if row.fidelity}
    assert any("tf-idf" in note for note in results.notes) == (near["tf-idf"].value >= near["student"].low)
    assert teacher.texts[-3:] == ["good film", "bad film", "dull"] and len(teacher.texts) == 4, "each text once"
    speeds = {row.model: row.per_second for row in results.rows}
    assert min(speeds.values()) > 0 and speeds["baseline"] == speeds["student"], "one architecture, one speed"
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["gap_closed"]["dev"].keys() == stored["gap_intervals"]["dev"].keys() == {"accuracy"}
    for row in stored["rows"]:
        low, high = row["intervals"]["dev"]["accuracy"]
        assert 0 <= low <= row["scores"]["dev"]["accuracy"][0] <= high <= 1
    assert len(pl.read_parquet(tmp_path / "predictions.parquet")) == 3


def right_on(share, gold, random):
    """Return logits that give the label of about so many rows."""
    right = random.random(len(gold)) < share
    return np.eye(2, dtype=np.float32)[np.where(right, gold, 1 - gold)]


def f1(outputs, gold):
    answers = outputs.argmax(1)
    return 2 * (answers & gold).sum() / (answers.sum() + gold.sum())


def by_hand(metric, outputs, gold, resamples=2000):
    """Draw rows one resample after the other: the 95 % interval of each model's mean score, and of the share."""
    random = np.random.default_rng(5)
    found = []
    for _ in range(resamples):
        rows = random.integers(0, len(gold), len(gold))
        found.append([np.mean([metric(seed[rows], gold[rows]) for seed in outputs[model]]) for model in MODELS])
    teacher, baseline, student = np.array(found).T
    of = {"teacher": teacher, "baseline": baseline, "student": student}
    shares = (student - baseline) / (teacher - baseline)
    return {model: np.quantile(drawn, [0.025, 0.975]) for model, drawn in of.items()}, np.quantile(
        shares, [0.025, 0.975]
    )


def test_intervals_are_those_of_a_bootstrap_row_by_row():
    random = np.random.default_rng(1)
    gold = random.integers(0, 2, 600)
    shares = {"teacher": [0.95], "baseline": [0.70, 0.72], "student": [0.85, 0.87]}
    outputs = {model: [right_on(share, gold, random) for share in seeds] for model, seeds in shares.items()}
    found = score_models(CLASSES, outputs, gold)

    metrics = {"accuracy": lambda o, g: (o.argmax(1) == g).mean(), "f1": f1}
    for name, metric in metrics.items():
        ranges, share = by_hand(metric, outputs, gold)
        for model in MODELS:
            assert found.scores[model][name] == pytest.approx([metric(seed, gold) for seed in outputs[model]])
            np.testing.assert_allclose(found.intervals[model][name], ranges[model], atol=0.008)
        means = {model: np.mean(found.scores[model][name]) for model in MODELS}
        gap = found.gaps[name]
        assert gap.value == pytest.approx(
            (means["student"] - means["baseline"]) / (means["teacher"] - means["baseline"])
        )
        np.testing.assert_allclose([gap.low, gap.high], share, atol=0.04)
    # One model alone: the normal approximation of a share.
    p = found.scores["teacher"]["accuracy"][0]
    half = 1.96 * np.sqrt(p * (1 - p) / len(gold))
    np.testing.assert_allclose(found.intervals["teacher"]["accuracy"], [p - half, p + half], atol=0.004)
    assert score_models(CLASSES, outputs, gold) == found, "the resamples are seeded"


def test_a_gap_that_may_be_none_has_no_share():
    gold = np.zeros(100, np.int64)
    wrong = {"teacher": range(48), "baseline": range(25, 75), "student": range(40)}  # 52, 50 and 60 right
    outputs = {
        model: [np.eye(2, dtype=np.float32)[np.isin(np.arange(100), list(rows)).astype(int)]]
        for model, rows in wrong.items()
    }
    found = score_models(CLASSES, outputs, gold)
    assert found.scores["student"]["accuracy"] == [0.6] and found.gaps["accuracy"] is None, "it would be 500 %"
    outputs["teacher"], outputs["baseline"] = outputs["baseline"], outputs["teacher"]
    assert score_models(CLASSES, outputs, gold).gaps["accuracy"] is None


def test_the_share_of_paper_a():
    # Tang et al. 2019, table 1: SST-2 94.9 (teacher), 86.7 (labels only), 90.7 (distilled): 49 %.
    scores = {"teacher": 94.9, "baseline": 86.7, "student": 90.7}
    drawn = {model: np.full(10, value) for model, value in scores.items()}
    found = gap_closed(scores, drawn)
    assert [found.value, found.low, found.high] == pytest.approx([4.0 / 8.2] * 3)
