import json

import numpy as np
import polars as pl
import pytest
from notes import Notes
from raising import raising
from scipy.special import softmax as reference

from kdcli.api import QuietReporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, UsageError
from kdcli.evaluate.predict import predict_file, predict_table, predict_texts, prediction_schema, write_predictions
from kdcli.tables.read import ROW_NUMBER, read_table
from kdcli.tables.write import write_table

SCORE = Task("stsb", "pair", (), score_range=(0.0, 5.0), metric="pearson")
CLASSES = Task("nli", "pair", ("entailment", "neutral", "contradiction"))
ORIGIN = {"student": "abc", "device": "cpu"}


class Lengths:
    """A model whose output is the number of words of the first text, less those of the second, as many times as the
    task has outputs; it stops after so many calls."""

    def __init__(self, task, calls=1000):
        self.task = task
        self.left = calls

    def logits(self, columns):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        first, second = ([len(text.split()) for text in texts] for texts in columns)
        difference = np.subtract(first, second)[:, None]
        return (difference * np.arange(1, self.task.outputs + 1)).astype(np.float32)


def predict(model, path, *, probabilities=False):
    return pl.concat(predict_table(model, path, None, QuietReporter(), probabilities=probabilities))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("kdcli.evaluate.predict.ROWS", 3)


def table(folder, rows):
    path = folder / "test.tsv"
    path.write_text("".join(f"{row}\n" for row in ("index\tsentence1\tsentence2", *rows)), "utf-8")
    return path


@pytest.fixture
def many(tmp_path):
    """Ten rows, so four parts; the score of row n is n / 2."""
    return table(tmp_path, [f"{100 + row}\t{'a ' * (row // 2 + 1)}b\tx" for row in range(10)])


def read(path):
    return read_table(path).frame().drop(ROW_NUMBER).to_dict(as_series=False)


def test_more_rows_than_go_at_once(many):
    batches = predict_table(Lengths(CLASSES), many, None, QuietReporter(), probabilities=True)
    sizes = [len(batch) for batch in batches]
    assert sizes == [3, 3, 3, 1]
    found = predict(Lengths(SCORE), many)
    assert found["prediction"].to_list() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert found["index"].to_list() == [str(100 + row) for row in range(10)]


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "txt"])
@pytest.mark.parametrize("to", ["tsv", "csv", "jsonl", "parquet", "tsv.gz"])
def test_every_form_to_every_form(tmp_path, form, to):
    source, output = tmp_path / f"in.{form}", tmp_path / f"out.{to}"
    if form == "txt":
        source.write_text("a b\tx\na\t\n")
    else:
        write_table(source, pl.DataFrame({"index": [5, 6], "sentence1": ["a b", "a"], "sentence2": ["x", ""]}))
    expected = predict(Lengths(CLASSES), source, probabilities=True).to_dict(as_series=False)
    assert expected["index"] == (["0", "1"] if form == "txt" else ["5", "6"])
    written = predict_file(Lengths(CLASSES), source, output, origin=ORIGIN, probabilities=True)
    assert (written.rows, written.output) == (2, output)
    found = read(output)
    for name, values in expected.items():
        as_written = [float(str(value)) for value in found[name]] if name.startswith("prob") else found[name]
        assert np.array_equal(np.array(as_written, np.float32 if name.startswith("prob") else str), values), name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, output.name])


@pytest.fixture
def killed(tmp_path, many):
    """The output of a prediction that was killed when two parts of four were there."""
    output = tmp_path / "out.tsv"
    with pytest.raises(KeyboardInterrupt):
        predict_file(Lengths(SCORE, calls=2), many, output, origin=ORIGIN)
    assert not output.exists()
    return output


@pytest.mark.parametrize("change", ["model", "table", "probabilities", "resume"])
def test_parts_of_something_else_are_made_again(many, killed, change):
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


def test_predictions_of_a_stream_go_to_any_form_and_to_a_txt_alone(tmp_path, many):
    for name in ("out.parquet", "out.tsv", "out.jsonl"):
        frames = predict_table(Lengths(CLASSES), many, None, QuietReporter(), probabilities=True)
        assert write_predictions(tmp_path / name, frames, Lengths(CLASSES), probabilities=True).rows == 10
        predict_file(Lengths(CLASSES), many, tmp_path / f"file_{name}", origin=ORIGIN, probabilities=True)
        assert (tmp_path / name).read_bytes() == (tmp_path / f"file_{name}").read_bytes()
    predict_file(Lengths(SCORE), many, tmp_path / "out.txt", origin=ORIGIN)
    assert [float(line) for line in (tmp_path / "out.txt").read_text().split()] == [1 + row // 2 for row in range(10)]
    with pytest.raises(UsageError, match=r"\.txt"):
        predict_file(Lengths(CLASSES), many, tmp_path / "more.txt", origin=ORIGIN, probabilities=True)


def test_a_row_that_is_not_utf8_shows_before_the_work_and_parts_stay(many, killed):
    whole = many.read_bytes()
    many.write_bytes(whole + b"a\tb\tc\n" * 5000 + b"110\tg\xf6od\tx\n" + b"a\tb\tc\n" * 5000)
    model = Lengths(SCORE)
    with raising(DataError, "not UTF-8", row=5012):
        predict_file(model, many, killed, origin=ORIGIN)
    assert model.left == 1000
    many.write_bytes(whole)
    predict_file(model, many, killed, origin=ORIGIN)
    assert 1000 - model.left == 2


def test_bad_rows_and_empty_texts_are_told_once(tmp_path, notes):
    path = table(tmp_path, ["0\ta b\tx", "ragged", "1\t\tx", "2\ta\t"])
    settings = TaskSettings(kind="pair", metric="pearson", bad_rows="skip")
    predict_file(Lengths(SCORE), path, tmp_path / "out.jsonl", settings, origin=ORIGIN, reporter=notes)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [{"index": str(row), "prediction": score} for row, score in enumerate([1, 0, 1])]
    bad, empty = notes.warnings
    assert "1 bad rows skipped" in bad and "2 rows with an empty text" in empty and "row 4" in empty


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("to", ["csv", "parquet", "jsonl"])
def test_all_columns_of_the_table_may_stay(tmp_path, form, to):
    numbers = list(range(10))
    texts = {"id": [f"n{row}" for row in numbers], "sentence1": [f"text {row}" for row in numbers]}
    table = pl.DataFrame({**texts, "meta": numbers, "sentence2": ["x"] * 10})
    source, output = tmp_path / f"in.{form}", tmp_path / f"out.{to}"
    getattr(table, f"write_{form}")(source)
    plain = predict(Lengths(CLASSES), source, probabilities=True)
    predict_file(Lengths(CLASSES), source, output, origin=ORIGIN, probabilities=True, keep=True)
    found = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[to](output)
    assert found.columns == [*table.columns, *plain.columns[1:]]
    assert found["meta"].cast(pl.Int64).to_list() == numbers
    assert found["prediction"].cast(pl.String).to_list() == plain["prediction"].to_list()
    table.with_columns(prediction=pl.lit("mine")).write_csv(tmp_path / "taken.csv")
    with raising(DataError, key="prediction"):
        predict_file(Lengths(CLASSES), tmp_path / "taken.csv", tmp_path / "no.csv", origin=ORIGIN, keep=True)
    assert not (tmp_path / "no.csv").exists()


THREE = Task("nli", "single", ("entailment", "neutral", "contradiction"))
STARS = Task("stsb", "single", (), score_range=(0.0, 5.0), metric="pearson")


class Fixed:
    def __init__(self, task, logits):
        self.task = task
        self.answers = np.array(logits, np.float32)

    def logits(self, columns):
        return self.answers


def made(model, **how):
    index = pl.Series([str(row) for row in range(len(model.answers))])
    return predict_texts(model, index, [["a text"] * len(model.answers)], **how).to_dict(as_series=False)


def test_the_label_of_the_highest_logit_its_probability_and_a_row_without_words():
    model = Fixed(THREE, [[0, 1, 0.5], [3, -1, 2]])
    assert made(model) == {"index": ["0", "1"], "prediction": ["neutral", "entailment"]}
    found = made(model, probabilities=True)
    assert list(found) == ["index", "prediction", *(f"probability_{label}" for label in THREE.labels)]
    expected = reference(model.answers.astype(np.float64), axis=1).astype(np.float32)
    np.testing.assert_array_equal([found[f"probability_{label}"] for label in THREE.labels], expected.T)
    model = Fixed(THREE, [[0, 1, 0.5]] * 3)
    index = pl.Series(["0", "1", "2"])
    found = predict_texts(model, index, [["a", " ", ""], ["b", "c", "\t"]], probabilities=True)
    assert found.select("index", "prediction").rows() == [("0", "neutral"), ("1", "neutral"), ("2", None)]
    assert found["probability_neutral"].null_count() == 1
    model.answers_all = True
    assert predict_texts(model, index, [["a", " ", ""], ["b", "c", "\t"]])["prediction"].null_count() == 0
    with pytest.raises(UsageError):
        prediction_schema(Fixed(STARS, []), probabilities=True)
