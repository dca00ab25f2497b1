"""``kd eval``: what it takes and what it shows; the numbers are tested where they are made."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cli.conftest import LABELS
from made_student import SINGLE, TEXTS, make_student

from kdcli.student.student import load_student
from kdcli.tasks.metrics import score


@pytest.fixture
def other(tmp_path):
    return make_student(tmp_path / "other", SINGLE, seed=5)


def test_a_run_needs_nothing_else(made, kd):
    code, out, err = kd("eval", "--student", made / "run", "--json")
    assert code == 0, err
    found = json.loads(out)
    gold = np.array([["no", "yes"].index(label) for label in LABELS])
    expected = score(SINGLE, load_student(made / "run" / "student").logits([TEXTS]), gold)
    measured = found["tables"]["dev"]["models"]["student"]["metrics"]
    assert {name: one["value"] for name, one in measured.items()} == pytest.approx(expected)
    assert found["models"] == {"student": str(made / "run" / "student")}
    assert found["labels"] == ["no", "yes"] and found["tables"]["dev"]["comparisons"] == []


def test_what_is_shown(made, kd, other):
    student = made / "run" / "student"
    code, out, err = kd("eval", "--student", student, "--against", other, "--profile", made / "run" / "profile.toml")
    assert code == 0, err
    for part in ("dev: 10 rows", "accuracy", "ECE", "mean confidence", "answer yes good", "student - against"):
        assert part in out
    assert "McNemar's exact test" in out and "rows are right in student alone" in out
    assert "these rows do not show that either is better" in out
    assert "Guo et al. 2017" in out


def test_a_clear_difference_is_put_into_words(made, kd, tmp_path, other):
    right = load_student(made / "run" / "student")
    texts = [f"{text} {number}" for number in range(30) for text in TEXTS if text.strip()]
    answers = right.logits([texts]).argmax(1)
    rows = "".join(f"{text}\t{['no', 'yes'][answer]}\n" for text, answer in zip(texts, answers, strict=True))
    (tmp_path / "own.tsv").write_text(f"text\tstars\n{rows}", "utf-8")
    columns = ("--input", tmp_path / "own.tsv", "--text-col", "text", "--label-col", "stars")
    code, out, err = kd("eval", "--student", made / "run" / "student", "--against", other, *columns)
    assert code == 0, err
    assert "accuracy: student is better: were they equally good, chance would make such a difference in less" in out
    assert "100.0 (100.0 to 100.0)" in out


GONE = """generator = "shuffle"
lite = {tagger = "shape"}
[student]
model = "gone"
[generators.shuffle]
share = 1
"""


def test_plugins_that_made_the_run_need_not_be_there(made, kd):
    profile = made / "run" / "profile.toml"
    profile.write_text(profile.read_text() + GONE)
    code, _, err = kd("eval", "--student", made / "run", "--json")
    assert (code, "plugin" in err) == (0, False)


def test_texts_are_needed(made, kd, other):
    code, out, err = kd("eval", "--student", other)
    assert code == 2 and out == ""
    assert err.splitlines()[0] == "error: eval needs labelled texts" and "--input" in err
    code, _, err = kd("eval", "--student", other, "--data-dir", made / "data")
    assert code == 2 and "eval needs labelled texts" in err
    code, _, err = kd("eval", "--student", other, "--data-dir", made / "data", "--input", made / "data" / "dev.tsv")
    assert code == 2 and "--data-dir needs a profile" in err


def test_another_run_s_data(made, kd):
    """A student inside a run is read by the run's profile, wherever the data have gone."""
    (made / "data").rename(made / "moved")
    code, _, err = kd("eval", "--student", made / "run" / "student")
    assert code == 4 and "there is no such data folder" in err
    code, out, err = kd("eval", "--student", made / "run" / "student", "--data-dir", made / "moved", "--json")
    assert code == 0, err
    assert kd("eval", "--student", made / "run", "--data-dir", made / "moved", "--split", "test")[0] == 4
    assert json.loads(out)["tables"]["dev"]["rows"] == 10


def test_labels_without_readable_names_stand_alone(kd, tmp_path):
    task = replace(SINGLE, names=())
    rows = "".join(f"{text}\t{label}\n" for text, label in zip(TEXTS, LABELS, strict=True) if text.strip())
    (tmp_path / "own.tsv").write_text(f"text\tstars\n{rows}", "utf-8")
    columns = ("--input", tmp_path / "own.tsv", "--text-col", "text", "--label-col", "stars")
    code, out, err = kd("eval", "--student", make_student(tmp_path / "student", task, seed=1), *columns)
    assert code == 0, err
    assert "answer no" in out and "answer yes" in out
