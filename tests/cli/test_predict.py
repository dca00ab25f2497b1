import pytest


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
