import pytest
from cli.conftest import GONE
from made_student import SINGLE, make_student


@pytest.fixture
def other(tmp_path):
    return make_student(tmp_path / "other", SINGLE, seed=5)


def test_which_texts_and_plugins_eval_needs(made, kd, other):
    data = ("--data-dir", made / "data")
    kd.says(2, ("error: eval needs labelled texts", "--input"), "eval", "--student", other)
    kd.says(2, "eval needs labelled texts", "eval", "--student", other, *data)
    table = ("--input", made / "data" / "dev.tsv")
    kd.says(2, "--data-dir needs a profile", "eval", "--student", other, *data, *table)
    profile = made / "run" / "profile.toml"
    profile.write_text(profile.read_text() + GONE)
    code, _, err = kd("eval", "--student", made / "run", "--json")
    assert (code, "plugin" in err) == (0, False)
    (made / "data").rename(made / "moved")
    kd.says(4, "there is no such data folder", "eval", "--student", made / "run" / "student")
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


def test_text_columns_are_those_of_the_students_run_and_a_dash_as_output_is_stdout(kd, made, own):
    named = kd.ok("predict", "--student", "run/student", "-i", own, "--text-col", "essay")
    assert len(named.splitlines()) == 3
    for student, more in (("run", ()), ("run/student", ()), ("run", ("--output", "-"))):
        assert kd.ok("predict", "--student", student, "-i", own, *more) == named
    assert not (made / "-").exists()
    assert kd("predict", "--student", "run", "-i", own, "--text-col", "remark")[1] != ""
    (made / "run" / "profile.toml").unlink()
    assert kd("predict", "--student", "run", "-i", own)[0] == 4
