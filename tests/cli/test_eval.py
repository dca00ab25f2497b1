"""``kd eval``: what it takes and what it shows; the numbers are tested where they are made."""

import io

import pytest
from cli.conftest import GONE
from made_student import SINGLE, make_student
from rich.console import Console

from kdcli.cli.run_all import results_view
from kdcli.evaluate.results import Results, Row


@pytest.fixture
def other(tmp_path):
    return make_student(tmp_path / "other", SINGLE, seed=5)


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
    out = kd.ok("eval", "--student", made / "run" / "student", "--data-dir", made / "moved", "--json")
    assert kd("eval", "--student", made / "run", "--data-dir", made / "moved", "--split", "test")[0] == 4
    assert out["tables"]["dev"]["rows"] == 10


@pytest.fixture
def own(made):
    """A table whose columns only the student's run knows, with a text in another column."""
    profile = made / "run" / "profile.toml"
    profile.write_text(profile.read_text().replace("[teacher]", 'text_columns = ["essay"]\n[teacher]'))
    table = made / "own.csv"
    table.write_text("id,essay,remark\n7,a gripping film,x\n9,dull,y\n")
    return table


def test_text_columns_are_those_of_the_students_run(kd, made, own):
    code, named, _ = kd("predict", "--student", made / "run" / "student", "-i", own, "--text-col", "essay")
    assert code == 0 and len(named.splitlines()) == 3
    for student in (made / "run", made / "run" / "student"):
        assert kd("predict", "--student", student, "-i", own)[:2] == (0, named)
    assert kd("predict", "--student", made / "run", "-i", own, "--text-col", "remark")[1] != ""
    (made / "run" / "profile.toml").unlink()
    assert kd("predict", "--student", made / "run", "-i", own)[0] == 4


def test_a_dash_as_output_is_stdout(kd, made, own, monkeypatch):
    monkeypatch.chdir(made)
    plain = kd("predict", "--student", "run", "-i", own)
    assert kd("predict", "--student", "run", "-i", own, "--output", "-")[:2] == plain[:2]
    assert not (made / "-").exists()


SCORES = {"teacher": [0.949], "baseline": [0.867], "student": [0.905, 0.909]}
ROWS = [
    Row(model, {"dev": {"f1": scores}}, 10, 5, 1.0, 100.0, {"dev": {"f1": (0.85, 0.95)}})
    for model, scores in SCORES.items()
]


def printed(results):
    file = io.StringIO()
    Console(file=file, width=100).print(results_view(results))
    return " ".join(file.getvalue().split())


@pytest.mark.parametrize(("interval", "share"), [((0.3, 0.66), "49 % (30 to 66)"), (None, "not defined")])
def test_scores_and_the_share_of_the_gap_have_intervals(interval, share):
    gap = 0.4878 if interval else None
    results = Results(["f1"], ROWS, {"dev": {"f1": gap}}, [], {"f1": "f1 of yes"}, {"dev": {"f1": interval}})
    text = printed(results)
    assert "dev f1 of yes 94.9 (85.0 to 95.0) 86.7 (85.0 to 95.0) 90.7 ± 0.3 (85.0 to 95.0)" in text
    assert f"dev f1 of yes {share}" in text
