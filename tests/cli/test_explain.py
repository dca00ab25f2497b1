import re

import pytest
from made_student import PAIR, SCORE, TEXTS, make_student

from kdcli.student.student import load_student


def test_lines_of_a_terminal_and_json_of_a_table(kd, made, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    (made / "lines.txt").write_text("the film was very good .\nseen\n")
    line = ("explain", "--student", made / "run", "--input", made / "lines.txt")
    assert "\x1b[" in kd.ok(*line)
    plain = kd.ok(*line, "--no-color")
    assert "\x1b" not in plain and "  the film was very good .\n" in plain
    (found, _) = load_student(made / "run" / "student").explain(["the film was very good .", "seen"])
    strongest = max(found.words, key=lambda word: abs(word.logit))
    assert plain.startswith(f"{found.label} {found.probability:.1%}\n")
    assert f"  {strongest.text} {strongest.logit:+.2f}" in plain.splitlines()[2]
    found = kd.ok(*line[:-1], made / "data/dev.tsv", "--json")["explanations"]
    assert [one["texts"] for one in found] == [[text] for text in TEXTS]
    assert set(found[0]) == {"texts", "label", "logit", "probability", "words", "pairs"}
    assert set(found[0]["words"][0]) == {"text", "column", "begin", "end", "logit", "probability"}


def test_one_page(kd, made):
    (made / "hostile.txt").write_text("<i>film</i> good\n")
    page = made / "page.html"
    line = ("explain", "--student", made / "run", "--input", made / "hostile.txt", "--html", page)
    assert kd(*line)[0] == 0 and kd(*line)[0] == 4 and kd(*line, "--force")[0] == 0
    text = page.read_text()
    assert "&lt;" in text and "<i>" not in text and text.count("<mark") >= 3
    assert "default-src 'none'" in text and "http" not in text.partition("<body>")[2]


@pytest.mark.parametrize("task", [PAIR, SCORE], ids=["pair", "score"])
def test_pairs_and_scores(kd, tmp_path, task):
    folder = make_student(tmp_path / "student", task)
    (tmp_path / "own.csv").write_text("id,one,two\n1,the film,good plot\n")
    columns = ("--input", tmp_path / "own.csv", "--text-col", "one", "--text2-col", "two")
    kd.ok("explain", "--student", folder, *columns, "--html", tmp_path / "page.html")
    first, *rest = kd.ok("explain", "--student", folder, *columns).splitlines()
    assert rest[:2] == ["  the film", "  good plot"]
    assert re.fullmatch(r"-?\d\.\d\d" if task.is_score else r"[abc] [\d.]+%", first)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(("--label", "maybe"), 2, "no, yes"), (("--input", "none.tsv"), 4, "none.tsv")],
)
def test_what_is_refused(kd, made, arguments, code, says):
    line = ["--input", made / "data/dev.tsv", *arguments]
    assert kd.says(code, says, "explain", "--student", made / "run", *line) == ""
