import json
from dataclasses import asdict, dataclass, field

import numpy as np
import polars as pl
import pytest
from made_student import PAIR, SCORE, SINGLE, TEXTS, make_student
from notes import Notes
from raising import raising

from kdcli.api import Task
from kdcli.config.schema import Settings, TaskSettings
from kdcli.errors import DataError, UsageError
from kdcli.evaluate.evaluate import evaluate_models, evaluate_table
from kdcli.evaluate.results import compare, gap_closed, score_models
from kdcli.student.student import load_student
from kdcli.tasks.metrics import score
from kdcli.teacher.model import TeacherSource


class Fixed:
    """A model with a fixed answer for each text."""

    def __init__(self, task, answers):
        self.task, self.answers = task, answers
        self.sizes = []

    def logits(self, columns):
        self.sizes.append(len(columns[0]))
        return np.eye(self.task.outputs, dtype=np.float32)[[self.answers[text] for text in columns[0]]]


def settings(task, folder):
    tasks = {"name": task.name, "kind": task.kind, "labels": task.labels, "score_range": task.score_range}
    return Settings.model_validate({"task": {**tasks, "metric": task.metric, "data_dir": str(folder)}})


def write(path, header, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in (header, *rows)), "utf-8")
    return path


def test_models_on_the_rows_of_a_table(monkeypatch):
    monkeypatch.setattr("kdcli.evaluate.evaluate.ROWS", 2)
    table = pl.DataFrame({"sentence": ["a", "b b", "c", "d", "e"], "label": ["no", "yes", "yes", "no", "yes"]})
    student = Fixed(SINGLE, {"a": 0, "b b": 1, "c": 1, "d": 1, "e": 0})
    teacher = Fixed(SINGLE, {"a": 0, "b b": 1, "c": 0, "d": 0, "e": 0})
    found = evaluate_table({"student": student, "teacher": teacher, "against": student}, table, SINGLE)
    assert (found.rows, student.sizes) == (5, [2, 2, 1, 2, 2, 1])
    ours, theirs = found.models["student"], found.models["teacher"]
    assert (ours.confusion, theirs.confusion) == ([[1, 1], [1, 2]], [[2, 0], [2, 1]])
    assert (ours.agreement, theirs.agreement) == (pytest.approx(3 / 5), None)
    assert [(one.first, one.second) for one in found.comparisons] == [("student", "teacher"), ("student", "against")]
    assert (found.comparisons[0].only_first_right, found.comparisons[0].only_second_right) == (1, 1)
    assert {(one.shortest, one.longest, one.rows) for one in ours.lengths} == {(1, 1, 4), (2, 2, 1)}


def test_matched_and_mismatched_apart(tmp_path):
    student = make_student(tmp_path / "student", PAIR)
    other = make_student(tmp_path / "other", PAIR, seed=2)
    rows = [f"{text}\t{TEXTS[-2]}\t{'abc'[place % 3]}" for place, text in enumerate(TEXTS) if text]
    for name, of_table in (("dev_matched", rows[:5]), ("dev_mismatched", rows[5:])):
        write(tmp_path / "data" / f"{name}.tsv", "sentence1\tsentence2\tlabel", *of_table)
    found = evaluate_models(student=student, against=other, settings=settings(PAIR, tmp_path / "data"))
    assert list(found.tables) == ["dev_matched", "dev_mismatched"]
    assert found.models == {"student": str(student), "against": str(other)}
    model = load_student(student)
    for name, of_table in (("dev_matched", rows[:5]), ("dev_mismatched", rows[5:])):
        columns = list(zip(*(row.split("\t") for row in of_table), strict=True))
        gold = np.array(["abc".index(label) for label in columns[2]])
        expected = score(PAIR, model.logits(columns[:2]), gold)
        measured = found.tables[name].models["student"].metrics
        assert {key: one.value for key, one in measured.items()} == pytest.approx(expected)
    assert json.loads(json.dumps(asdict(found)))["tables"]["dev_matched"]["rows"] == 5


def test_scores_from_a_table_of_ones_own(tmp_path):
    student = make_student(tmp_path / "student", SCORE)
    rows = [f"{text}\tseen\t{place / 2}" for place, text in enumerate(TEXTS) if text]
    table = write(tmp_path / "mine.tsv", "one\ttwo\tstars", *rows)
    columns = TaskSettings(kind="pair", metric="pearson", text_columns=("one", "two"), label_column="stars")
    found = evaluate_models(student=student, settings=Settings(task=columns), profiled=False, table=table)
    (result,) = found.tables.values()
    assert result.rows == len(rows) and list(result.models["student"].metrics) == ["pearson", "spearman"]
    assert found.labels == () and result.models["student"].calibration is None
    one = Settings(task=TaskSettings(metric="pearson", text_columns=("one",)))
    with raising(UsageError, hint="it takes --text-col and --text2-col"):
        evaluate_models(student=student, settings=one, profiled=False, table=table)


def test_rows_without_labels(tmp_path):
    student, notes = make_student(tmp_path / "student"), Notes()
    table = write(tmp_path / "some.tsv", "sentence\tlabel", "good\tyes", "bad\t-1", "dull\tno")
    found = evaluate_models(student=student, settings=Settings(), profiled=False, table=table, reporter=notes)
    assert found.tables["some.tsv"].rows == 2
    assert notes.warnings == [f"1 rows of {table} have no label, and are skipped"]
    none = write(tmp_path / "none.tsv", "sentence", "good")
    with raising(DataError, "no labels", file=none):
        evaluate_models(student=student, settings=Settings(), profiled=False, table=none)


@pytest.mark.parametrize("task", [PAIR, SCORE, Task("x", "single", ("yes", "no")), Task("y", "single", ("0", "1"))])
def test_a_student_of_another_task(tmp_path, task):
    student = make_student(tmp_path / "student")
    with raising(DataError, "the model is one of task toy", file=student):
        evaluate_models(student=student, settings=settings(task, tmp_path))


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
    files = {"output": tmp_path / "results.json", "predictions": tmp_path / "predictions.parquet"}
    how = {"device": "cpu", "precision": "fp32", "reporter": notes, **files}
    of = {"teacher": TeacherSource("somewhere"), "students": {"baseline": students[:1], "student": students[1:]}}
    results = compare(**of, joined=joined, tables=tables, task=SINGLE, **how)
    assert [row.model for row in results.rows] == ["teacher", "baseline", "tf-idf", "student"]
    assert all(set(row.scores) == {"dev"} for row in results.rows)
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
    ends = [0.025, 0.975]
    return {model: np.quantile(drawn, ends) for model, drawn in of.items()}, np.quantile(shares, ends)


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
        closed = (means["student"] - means["baseline"]) / (means["teacher"] - means["baseline"])
        assert gap.value == pytest.approx(closed)
        np.testing.assert_allclose([gap.low, gap.high], share, atol=0.04)
    # One model alone: the normal approximation of a share.
    p = found.scores["teacher"]["accuracy"][0]
    half = 1.96 * np.sqrt(p * (1 - p) / len(gold))
    np.testing.assert_allclose(found.intervals["teacher"]["accuracy"], [p - half, p + half], atol=0.004)
    assert score_models(CLASSES, outputs, gold) == found, "the resamples are seeded"


def test_the_share_of_paper_a_and_of_a_gap_that_may_be_none():
    # Tang et al. 2019, table 1: SST-2 94.9 (teacher), 86.7 (labels only), 90.7 (distilled): 49 %.
    scores = {"teacher": 94.9, "baseline": 86.7, "student": 90.7}
    drawn = {model: np.full(10, value) for model, value in scores.items()}
    found = gap_closed(scores, drawn)
    assert [found.value, found.low, found.high] == pytest.approx([4.0 / 8.2] * 3)
    gold = np.zeros(100, np.int64)
    wrong = {"teacher": range(48), "baseline": range(25, 75), "student": range(40)}  # 52, 50 and 60 right
    outputs = {}
    for model, rows in wrong.items():
        outputs[model] = [np.eye(2, dtype=np.float32)[np.isin(np.arange(100), list(rows)).astype(int)]]
    found = score_models(CLASSES, outputs, gold)
    assert found.scores["student"]["accuracy"] == [0.6] and found.gaps["accuracy"] is None, "it would be 500 %"
    outputs["teacher"], outputs["baseline"] = outputs["baseline"], outputs["teacher"]
    assert score_models(CLASSES, outputs, gold).gaps["accuracy"] is None
