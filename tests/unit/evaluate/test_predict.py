from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from notes import Notes

from kdcli.api import QuietReporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, UsageError
from kdcli.evaluate.predict import predict_file, predict_table, write_predictions
from kdcli.tables.read import ROW_NUMBER, read_table

SCORE = Task("stsb", "pair", (), score_range=(0.0, 5.0), metric="pearson")
CLASSES = Task("nli", "pair", ("entailment", "neutral", "contradiction"))
ORIGIN = {"student": "abc", "device": "cpu"}


class Lengths:
    """A model whose output is the number of words of the first text, less those of the second, as many times as the
    task has outputs; it stops after so many calls."""

    def __init__(self, task: Task, calls: int = 1000) -> None:
        self.task = task
        self.left = calls

    def logits(self, columns: Sequence[Sequence[str]]) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        first, second = ([len(text.split()) for text in texts] for texts in columns)
        difference = np.subtract(first, second)[:, None]
        return (difference * np.arange(1, self.task.outputs + 1)).astype(np.float32)


def predict(model: Lengths, path: Path, *, probabilities: bool = False) -> pl.DataFrame:
    return pl.concat(predict_table(model, path, None, QuietReporter(), probabilities=probabilities))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdcli.evaluate.predict.ROWS", 3)


def table(folder: Path, rows: Sequence[str]) -> Path:
    path = folder / "test.tsv"
    path.write_text("".join(f"{row}\n" for row in ("index\tsentence1\tsentence2", *rows)), "utf-8")
    return path


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Ten rows, so four parts; the score of row n is n / 2."""
    return table(tmp_path, [f"{100 + row}\t{'a ' * (row // 2 + 1)}b\tx" for row in range(10)])


def read(path: Path) -> dict[str, list[object]]:
    return read_table(path).frame().drop(ROW_NUMBER).to_dict(as_series=False)


def test_more_rows_than_go_at_once(many: Path) -> None:
    batches = predict_table(Lengths(CLASSES), many, None, QuietReporter(), probabilities=True)
    sizes = [len(batch) for batch in batches]
    assert sizes == [3, 3, 3, 1]
    found = predict(Lengths(SCORE), many)
    assert found["prediction"].to_list() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert found["index"].to_list() == [str(100 + row) for row in range(10)]


FORMS = [
    ("tsv", "index\tsentence1\tsentence2\n5\ta b\tx\n6\ta\t\n"),
    ("csv", 'index,sentence1,sentence2\n5,"a b",x\n6,a,\n'),
    ("jsonl", '{"index": 5, "sentence1": "a b", "sentence2": "x"}\n{"index": 6, "sentence1": "a", "sentence2": ""}\n'),
    ("txt", "a b\tx\na\t\n"),
]


@pytest.mark.parametrize(("form", "content"), FORMS, ids=[form for form, _ in FORMS])
@pytest.mark.parametrize("to", ["tsv", "csv", "jsonl", "parquet", "tsv.gz"])
def test_every_form_to_every_form(tmp_path: Path, form: str, content: str, to: str) -> None:
    source, output = tmp_path / f"in.{form}", tmp_path / f"out.{to}"
    source.write_text(content, "utf-8")
    expected = predict(Lengths(CLASSES), source, probabilities=True).to_dict(as_series=False)
    assert expected["index"] == (["0", "1"] if form == "txt" else ["5", "6"])
    written = predict_file(Lengths(CLASSES), source, output, origin=ORIGIN, probabilities=True)
    assert (written.rows, written.output) == (2, output)
    found = read(output)
    for name, values in expected.items():
        as_written = [float(str(value)) for value in found[name]] if name.startswith("prob") else found[name]
        assert np.array_equal(np.array(as_written, np.float32 if name.startswith("prob") else str), values), name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, output.name])


def test_a_txt_holds_the_predictions_alone(tmp_path: Path, many: Path) -> None:
    predict_file(Lengths(SCORE), many, tmp_path / "out.txt", origin=ORIGIN)
    assert [float(line) for line in (tmp_path / "out.txt").read_text().split()] == [1 + row // 2 for row in range(10)]
    with pytest.raises(UsageError, match=r"\.txt"):
        predict_file(Lengths(CLASSES), many, tmp_path / "more.txt", origin=ORIGIN, probabilities=True)


@pytest.fixture
def killed(tmp_path: Path, many: Path) -> Path:
    """The output of a prediction that was killed when two parts of four were there."""
    output = tmp_path / "out.tsv"
    with pytest.raises(KeyboardInterrupt):
        predict_file(Lengths(SCORE, calls=2), many, output, origin=ORIGIN)
    assert not output.exists()
    return output


def test_a_killed_prediction_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, many: Path, killed: Path) -> None:
    model = Lengths(SCORE, calls=2)
    predict_file(model, many, killed, origin=ORIGIN)
    assert model.left == 0
    predict_file(Lengths(SCORE), many, tmp_path / "whole.tsv", origin=ORIGIN)
    assert killed.read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.tsv", "test.tsv", "whole.tsv"]


@pytest.mark.parametrize("change", ["model", "table", "probabilities", "resume"])
def test_parts_of_something_else_are_made_again(many: Path, killed: Path, change: str) -> None:
    reporter, model = Notes(), Lengths(CLASSES if change == "probabilities" else SCORE)
    origin = {**ORIGIN, "student": "other"} if change == "model" else ORIGIN
    if change == "table":
        many.write_bytes(many.read_bytes().replace(b"100\t", b"99\t"))
    probabilities = change == "probabilities"
    resume = change != "resume"
    predict_file(model, many, killed, origin=origin, probabilities=probabilities, resume=resume, reporter=reporter)
    assert 1000 - model.left == 4
    told = {"model": "student changed", "table": "input changed", "probabilities": "columns changed"}
    assert [each.startswith(told[change]) for each in reporter.warnings] == [True] * (change != "resume")


def test_predictions_of_a_stream_go_to_any_form(tmp_path: Path, many: Path) -> None:
    for name in ("out.parquet", "out.tsv", "out.jsonl"):
        frames = predict_table(Lengths(CLASSES), many, None, QuietReporter(), probabilities=True)
        assert write_predictions(tmp_path / name, frames, CLASSES, probabilities=True).rows == 10
        predict_file(Lengths(CLASSES), many, tmp_path / f"file_{name}", origin=ORIGIN, probabilities=True)
        assert (tmp_path / name).read_bytes() == (tmp_path / f"file_{name}").read_bytes()


def test_a_row_that_is_not_utf8_shows_before_the_work_and_parts_stay(many: Path, killed: Path) -> None:
    whole = many.read_bytes()
    many.write_bytes(whole + b"a\tb\tc\n" * 5000 + b"110\tg\xf6od\tx\n" + b"a\tb\tc\n" * 5000)
    model = Lengths(SCORE)
    with pytest.raises(DataError, match="not UTF-8") as refused:
        predict_file(model, many, killed, origin=ORIGIN)
    assert refused.value.row == 5012
    assert model.left == 1000
    many.write_bytes(whole)
    predict_file(model, many, killed, origin=ORIGIN)
    assert 1000 - model.left == 2


def test_bad_rows_and_empty_texts_are_told_once(tmp_path: Path) -> None:
    path = table(tmp_path, ["0\ta b\tx", "ragged", "1\t\tx", "2\ta\t"])
    reporter = Notes()
    settings = TaskSettings(kind="pair", metric="pearson", bad_rows="skip")
    predict_file(Lengths(SCORE), path, tmp_path / "out.jsonl", settings, origin=ORIGIN, reporter=reporter)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [{"index": str(row), "prediction": score} for row, score in enumerate([1, 0, 1])]
    bad, empty = reporter.warnings
    assert "1 bad rows skipped" in bad and "2 rows with an empty text" in empty and "row 4" in empty


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("to", ["csv", "parquet", "jsonl"])
def test_all_columns_of_the_table_may_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, to: str) -> None:
    monkeypatch.setattr("kdcli.evaluate.predict.ROWS", 3)
    rows = 10
    table = pl.DataFrame(
        {
            "id": [f"n{row}" for row in range(rows)],
            "sentence1": [f"text {row}" for row in range(rows)],
            "meta": list(range(rows)),
            "sentence2": ["x"] * rows,
        }
    )
    source, output = tmp_path / f"in.{form}", tmp_path / f"out.{to}"
    getattr(table, f"write_{form}")(source)
    plain = predict(Lengths(CLASSES), source, probabilities=True)
    predict_file(Lengths(CLASSES), source, output, origin=ORIGIN, probabilities=True, keep=True)
    found = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[to](output)
    assert found.columns == [*table.columns, *plain.columns[1:]]
    assert found["meta"].cast(pl.Int64).to_list() == list(range(rows))
    assert found["prediction"].cast(pl.String).to_list() == plain["prediction"].to_list()
    table.with_columns(prediction=pl.lit("mine")).write_csv(tmp_path / "taken.csv")
    with pytest.raises(DataError) as caught:
        predict_file(Lengths(CLASSES), tmp_path / "taken.csv", tmp_path / "no.csv", origin=ORIGIN, keep=True)
    assert caught.value.key == "prediction" and not (tmp_path / "no.csv").exists()
