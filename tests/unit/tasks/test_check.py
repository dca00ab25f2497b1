import json
from pathlib import Path

import pytest

from kdcli import tables
from kdcli.api import QuietReporter
from kdcli.cli.ui import plain
from kdcli.config.schema import TaskSettings
from kdcli.tasks.check import check_data
from kdcli.tasks.split import task_from

LABELS = ("no", "yes", "maybe")


def pairs(folder, **changes):
    settings = {"name": "pairs", "kind": "pair", "labels": LABELS, "data_dir": str(folder), "drop_labels": ("-",)}
    return TaskSettings(**settings | changes)


def check(settings):
    report = check_data(settings, task_from(settings), QuietReporter())
    json.dumps(plain(report), allow_nan=False)
    return report


def classes(folder, **changes):
    return TaskSettings(**{"labels": ("0", "1"), "data_dir": str(folder)} | changes)


def scores(folder):
    return pairs(folder, labels=(), score_range=(0, 5), metric="pearson", drop_labels=())


PAIRS = "sentence1\tsentence2\tlabel"
SCORES = "sentence1\tsentence2\tscore"


def put_tsv(folder, header="sentence\tlabel", **splits):
    for split, values in splits.items():
        (folder / f"{split}.tsv").write_text("\n".join([header, *values, ""]), "utf-8")


def problems(report, level="error"):
    files = [Path(one.file).name if one.file and Path(one.file).suffix else "" for one in report.problems]
    return [f"{file}: {one.what}" for file, one in zip(files, report.problems, strict=True) if one.level == level]


def test_planted_faults_are_found_with_their_rows(tmp_path):
    train = [f"text number {number}\t{number % 2}" for number in range(50)]
    train[10], train[20] = "the same\t0", "the same\t1"
    train[30] = train[31] = "again \t0"
    train[32] = "again\t1"
    train[5] = "non\u00a0breaking\u200b\t1"
    train[7] = "\t0"
    train[8] = "word " * 200 + "\t0"
    dev = [f"other {number}\t{number % 2}" for number in range(10)]
    dev[3], dev[4] = "text number 12\t0", "TEXT  number 13\t0"
    put_tsv(tmp_path, train=train, dev=dev, test=["text number 12\t-1", "other 1\t-1"])
    report = check(classes(tmp_path))
    assert report.fit and problems(report) == []
    found = {(one.first, one.second): (one.rows, one.alike, one.example) for one in report.overlaps}
    assert found == {
        ("train", "dev"): (1, 2, (14, 5)),
        ("train", "test"): (1, 1, (14, 2)),
        ("dev", "test"): (2, 2, (5, 2)),
    }
    told = "\n".join(problems(report, "warning"))
    expected = (
        "train.tsv: 1 text repeated with different labels, in 2 rows: rows 12 and 22",
        "train.tsv: 2 rows (4.0%) with texts of an earlier one: rows 12 and 22",
        "train.tsv: 1 text without a character",
        "train.tsv: 1 text (2.0%) longer than 128 words, up to 200",
        "train.tsv: 1 text with characters that do not print",
        "dev.tsv: 1 row with texts of train, 2 but for case and white space: row 5 is row 14 of train",
        "test.tsv: 2 rows with texts of dev: row 2 is row 5 of dev",
    )
    assert [what for what in expected if what not in told] == []


def test_both_of_mnlis_dev_tables_are_checked_and_dropped_labels_counted(tmp_path):
    header = "sentence1\tsentence2\tgold_label"
    put_tsv(tmp_path, header, train=["a\tb\tno", "c\td\tyes", "e\tf\t-"], dev_matched=["g\th\tmaybe"])
    put_tsv(tmp_path, header, dev_mismatched=["c\td\tmaybe", "i\tj\t-"])
    report = check(pairs(tmp_path))
    found = [(one.name, one.rows, one.dropped) for one in report.tables]
    assert found == [("train", 2, {"-": 1}), ("dev_matched", 1, {}), ("dev_mismatched", 1, {"-": 1})]
    assert [(one.second, one.rows) for one in report.overlaps] == [("dev_matched", 0), ("dev_mismatched", 1)]
    assert report.fit


GOOD = ["good\t1", "bad\t0"]


@pytest.mark.parametrize(
    ("train", "dev", "changes", "expected"),
    [
        (None, GOOD, {}, [": there is no train table"]),
        (GOOD, None, {}, [": there is no dev table"]),
        (GOOD, GOOD, {"kind": "pair"}, ["train.tsv: a table of single texts, and", "dev.tsv: a table of single texts"]),
        (["a\t1", "b\t2", "c\t2", "d\t3"], GOOD, {}, ["train.tsv: 3 rows with labels that are none of the task's"]),
        (["a\t1", "b\t2", "c\t2", "d\t3"], ["e\t4"], {}, [": '2' (2), '3' (1)", ": '4' (1)"]),
        (["a\t1", " \t0", "\t0"], GOOD, {}, ["train.tsv: every text has the same label: there is nothing to learn"]),
        (["a\t", " \t0", "\t1"], GOOD, {}, ["train.tsv: no text has a label"]),
        ([*GOOD, "ragged", "x\ty\t1"], GOOD, {}, ["train.tsv: 2 rows cannot be read, the first is row 4: 1 field"]),
        (GOOD, [], {}, ["dev.tsv: the table has no rows"]),
        (GOOD, GOOD, {"text_columns": ("review",)}, ["train.tsv: there is no column 'review'", "dev.tsv: there is no"]),
    ],
)
def test_what_no_profile_can_run_on(tmp_path, train, dev, changes, expected):
    put_tsv(tmp_path, **{split: rows for split, rows in (("train", train), ("dev", dev)) if rows is not None})
    report = check(classes(tmp_path, **changes))
    assert not report.fit
    found = problems(report)
    assert all(what in one for what, one in zip(expected, found, strict=True)), found


def test_all_errors_are_told_at_once_and_before_the_warnings(tmp_path):
    put_tsv(tmp_path, train=["a\t1", "a\t5", "b\t", "ragged"], dev=["x\ty\tz"])
    report, skipping = check(classes(tmp_path)), check(classes(tmp_path, bad_rows="skip"))
    assert skipping.tables[0].bad_rows == 1
    assert any("1 row cannot be read" in one for one in problems(skipping, "warning"))
    assert [one.level for one in report.problems] == sorted(one.level for one in report.problems)
    assert len(problems(report)) == 4


@pytest.mark.parametrize("score", ["5.1", "-0.5", "high", "nan", "inf"])
def test_scores_outside_their_range(tmp_path, score):
    put_tsv(tmp_path, SCORES, train=["a\tb\t0.5", f"c\td\t{score}", "e\tf\t4"], dev=["g\th\t1"])
    report = check(scores(tmp_path))
    assert problems(report) == [f"train.tsv: 1 score that is no number from 0 to 5, the first is {score!r}"]
    assert [one.row for one in report.problems if one.level == "error"] == [3]


def test_scores_that_are_missing_or_all_the_same_and_texts_with_different_scores_or_sets_of_labels(tmp_path):
    put_tsv(tmp_path, SCORES, train=["a\tb\t2", "c\td\t2"], dev=["e\tf\t"])
    expected = ["train.tsv: every text has the same score: there is nothing to learn", "dev.tsv: 1 row without a score"]
    assert problems(check(scores(tmp_path))) == expected
    put_tsv(tmp_path, SCORES, train=["a\tb\t2", "a\tb\t2.0", "c\td\t1", "c\td\t3"], dev=["e\tf\t1"])
    reports = {"scores": check(scores(tmp_path))}
    put_tsv(tmp_path, train=["a\tx|y", "a\ty|x", "b\tx", "b\tx|y"], dev=["c\tx|y"])
    reports["sets of labels"] = check(classes(tmp_path, labels=("x", "y"), multi_label=True, metric="micro_f1"))
    for kind, report in reports.items():
        table = report.tables[0]
        assert (table.repeated.texts, table.conflicts.texts, table.conflicts.example) == (2, 1, (4, 5))
        told = f"train.tsv: 1 text repeated with different {kind}, in 2 rows: rows 4 and 5"
        assert told in problems(report, "warning")


def test_unknown_labels_and_layouts_come_with_lines_for_the_profile_and_flags(tmp_path):
    put_tsv(tmp_path, train=["a\tbad", 'b\tgo"od', "c\t10", "d\t9", "e\t0"], dev=["f\tugly"])
    hints = [one.hint for one in check(classes(tmp_path)).problems]
    line = r'task.labels = ["0", "9", "10", "bad", "go\"od", "ugly"]'
    assert sum(line in (hint or "") for hint in hints) == 2
    put_tsv(tmp_path, train=["a\tyes", "b\tYes", "c\tNO", "d\tno"], dev=["f\tyes"])
    (first, *_) = check(classes(tmp_path, labels=("yes", "no"))).problems
    assert "'yes', 'Yes'; 'no', 'NO'" in first.hint and "task.labels" not in first.hint
    put_tsv(tmp_path, "essay\tstars", train=GOOD, dev=GOOD)
    report = check(classes(tmp_path))
    assert report.tables == [] and len(problems(report)) == 2
    assert "'essay', 'stars'" in report.problems[0].what
    assert "--text-col" in report.problems[0].hint and "--label-col" in report.problems[0].hint
    assert check(classes(tmp_path, text_columns=("essay",), label_column="stars")).fit


def test_what_was_read_before_bytes_that_are_not_utf8_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 64)
    put_tsv(tmp_path, train=[*(f"text {number}\t{number % 2}" for number in range(20))], dev=GOOD)
    with (tmp_path / "train.tsv").open("ab") as file:
        file.write(b"caf\xe9\t1\n")
    report = check(classes(tmp_path))
    assert problems(report) == ["train.tsv: not UTF-8: byte 4 of the row is 0xe9"]
    assert report.problems[0].row == 22
    assert not report.tables[0].whole and 10 < report.tables[0].rows < 21


def test_a_task_that_another_student_predicts_needs_texts_alone(tmp_path):
    settings = pairs(tmp_path, student_of="mnli")
    assert problems(check(settings)) == [": there is no test table"]
    put_tsv(tmp_path, PAIRS, test=["a\tb\t"])
    assert check(settings).fit


def test_rare_and_missing_classes_are_warnings(tmp_path):
    train = [f"a\t{number}\t{'no' if number else 'yes'}" for number in range(40)]
    put_tsv(tmp_path, PAIRS, train=train, dev=["b\tb\tno"])
    told = problems(check(pairs(tmp_path)), "warning")
    expected = {"train.tsv: only 1 row (2.5%) with the label 'yes'", "train.tsv: no row has the label 'maybe'"}
    assert expected <= set(told)
