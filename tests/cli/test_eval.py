"""``kd eval``: what it takes and what it shows; the numbers are tested where they are made."""

import json

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
