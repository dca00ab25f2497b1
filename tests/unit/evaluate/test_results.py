"""The results table: rows without labels, a teacher that has learned nothing, and the speed on fresh texts."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest
from made_student import SINGLE, make_student
from notes import Notes

from kdcli.evaluate.results import compare
from kdcli.teacher.model import TeacherSource


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
    results = compare(
        teacher=TeacherSource("somewhere"),
        baselines=students[:1],
        students=students[1:],
        tables=tables,
        task=SINGLE,
        device="cpu",
        precision="fp32",
        output=tmp_path / "results.json",
        predictions=tmp_path / "predictions.parquet",
        reporter=notes,
    )
    assert [(row.model, set(row.scores)) for row in results.rows] == [
        (name, {"dev"}) for name in ("teacher", "baseline", "student")
    ]
    assert results.rows[0].scores["dev"]["accuracy"] == [1 / 3 if always else 1.0]
    assert any("dev: 1 rows without a label" in note for note in results.notes)
    assert any("answers yes for every text" in note for note in results.notes) == always
    assert notes.warnings == results.notes
    assert teacher.texts[-3:] == ["good film", "bad film", "dull"] and len(teacher.texts) == 4, "each text once"
    assert all(row.per_second > 0 for row in results.rows)
    assert len(pl.read_parquet(tmp_path / "predictions.parquet")) == 3
