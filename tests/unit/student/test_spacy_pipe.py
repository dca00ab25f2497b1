from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import spacy
import tomli
from made_student import PAIR, TEXTS, make_student

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.student.student import load_student

ENTRY = tomli.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["entry-points"]


@pytest.fixture(autouse=True)
def registered():
    """Load what the entry point names, as spaCy does when it looks for the name."""
    ((name, value),) = ENTRY["spacy_factories"].items()
    assert EntryPoint(name, value, "spacy_factories").load() and name == "kd_student"


def test_cats_are_the_probabilities_and_survive_the_disk(tmp_path):
    folder = make_student(tmp_path / "student")
    nlp = spacy.blank("en")
    nlp.add_pipe("kd_student", config={"model": str(folder)})
    wanted = [one.probabilities for one in load_student(folder).predict(TEXTS[2:])]
    assert [doc.cats for doc in nlp.pipe(TEXTS[2:], batch_size=3)] == [pytest.approx(one, abs=1e-6) for one in wanted]
    assert nlp(TEXTS[2]).cats == pytest.approx(wanted[0], abs=1e-6)
    nlp.to_disk(tmp_path / "nlp")
    folder.rename(tmp_path / "moved")
    again = spacy.load(tmp_path / "nlp")
    assert again(TEXTS[2]).cats == pytest.approx(wanted[0], abs=1e-6)
    again.to_disk(tmp_path / "twice")
    (tmp_path / "nlp").rename(tmp_path / "gone")
    assert spacy.load(tmp_path / "twice")(TEXTS[2]).cats == pytest.approx(wanted[0], abs=1e-6)


def test_other_students(tmp_path):
    scores = Task("stars", "single", (), score_range=(0.0, 5.0), metric="pearson")
    folder = make_student(tmp_path / "score", scores)
    nlp = spacy.blank("en")
    nlp.add_pipe("kd_student", config={"model": str(folder)})
    assert nlp(TEXTS[0]).cats == {"stars": pytest.approx(load_student(folder).predict(TEXTS[:1])[0].score, abs=1e-6)}
    for wrong in (make_student(tmp_path / "pair", PAIR), tmp_path / "none"):
        nlp = spacy.blank("en")
        nlp.add_pipe("kd_student", config={"model": str(wrong)})
        with pytest.raises(DataError):
            nlp("a text")
