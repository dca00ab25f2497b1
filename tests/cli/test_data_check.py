import json

import pytest

from kdcli.cli import run


@pytest.fixture
def folder(tmp_path):
    """Tables of SST-2's layout: a repeated text with two labels, one with an odd character, one that is in dev."""
    train = ["good\t1", "bad\t0", "good\t0", "no\u00a0break \t1", *(f"text {n}\t{n % 2}" for n in range(9))]
    for split, rows in (("train", train), ("dev", ["text 3\t1", "TEXT 4\t0", "other\t1"])):
        (tmp_path / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows, ""]), "utf-8")
    return tmp_path


def result(capsys, *arguments, code=0):
    assert run(["data", "check", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_json_is_one_object(capsys, folder):
    report = result(capsys, "--profile", "sst2", "--data-dir", str(folder))
    assert report["fit"] is True
    train, dev = report["tables"]
    assert (train["name"], train["rows"], dev["rows"]) == ("train", 13, 3)
    assert train["labels"]["known"][1] == {"label": "1", "name": "positive", "count": 6, "share": 6 / 13}
    found = {name: report["overlaps"][0][name] for name in ("rows", "alike", "example")}
    assert found == {"rows": 1, "alike": 2, "example": [9, 2]}


def test_a_profile_that_cannot_run_exits_with_4_and_all_reasons(capsys, folder):
    (folder / "dev.tsv").write_text("sentence\tlabel\ngood\t1\nbad\tx\nragged\n")
    report = result(capsys, "--profile", "sst2", "--data-dir", str(folder), code=4)
    assert report["fit"] is False
    errors = [problem for problem in report["problems"] if problem["level"] == "error"]
    assert [(error["what"].partition(":")[0], error["row"]) for error in errors] == [
        ("1 row cannot be read, the first is row 4", None),
        ("1 row with labels that are none of the task's 0, 1", 3),
    ]
    assert run(["data", "check", "--profile", "sst2", "--data-dir", str(folder)]) == 4
    printed = capsys.readouterr().out
    assert 'hint: if they are classes: task.labels = ["0", "1", "x"] and task.names = []' in printed
    assert "the profile cannot run on these tables: 2 errors" in printed


def test_columns_and_settings_of_ones_own(capsys, folder):
    (folder / "train.tsv").write_text("essay\tstars\na b c\t1\nd\t2\n")
    (folder / "dev.tsv").write_text("essay\tstars\na\t1\n")
    assert run(["data", "check", "--profile", "custom", "--data-dir", str(folder)]) == 4
    assert "--text-col" in capsys.readouterr().out
    flags = ["--text-col", "essay", "--label-col", "stars", "--set", 'task.labels=["1","2"]']
    more = ["--set", "student.max_length=2"]
    report = result(capsys, "--profile", "custom", "--data-dir", str(folder), *flags, *more)
    assert report["max_words"] == 2
    assert report["tables"][0]["words"]["essay"]["longer"] == 1


def test_without_a_profile_it_checks_the_sample(capsys):
    assert result(capsys)["task"] == "demo"


def test_a_folder_needs_a_profile(capsys, folder):
    assert run(["data", "check", "--data-dir", str(folder)]) == 2
