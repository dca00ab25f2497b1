import codecs
import io
from dataclasses import replace

import numpy as np
import pytest
from glue_tables import TASKS, write
from hypothesis import given, strategies as st
from notes import Notes
from raising import raising

from kdcli.api import QuietReporter, Task
from kdcli.config.load import load_profile
from kdcli.errors import DataError
from kdcli.evaluate.predict import glue_task, predict_glue, predict_lines, submission_files
from kdcli.tables import read_lines
from kdcli.tasks import glue
from kdcli.tasks.split import task_from

NAMES = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "QNLI", "RTE", "WNLI", "AX")
FILES = {name.lower().replace("-", ""): [name] for name in NAMES} | {"mnli": ["MNLI-m", "MNLI-mm"]}
"""The names that https://gluebenchmark.com/faq asks for."""


class Turns:
    """A model that gives its classes by turns, and scores from far below the range to far above."""

    def __init__(self, task):
        self.task = task

    def logits(self, columns):
        rows = np.arange(len(columns[0]))
        if self.task.is_score:
            return (rows[:, None] * 2 - 4).astype(np.float32)
        return np.eye(self.task.outputs, dtype=np.float32)[rows % self.task.outputs]


def settings_for(name, folder):
    return load_profile(name, environ={}).settings.task.model_copy(update={"data_dir": str(folder)})


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_every_task(name, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    if name == "ax":
        data.mkdir()
        rows = "".join(f"{row}\tIt rains .\tIt is wet .\n" for row in range(12))
        (data / "diagnostic.tsv").write_text(f"index\tsentence1\tsentence2\n{rows}")
    else:
        write(name, data)
    settings = settings_for(name, data)
    written = predict_glue(Turns(task_from(settings)), settings, out, origin={})
    assert [result.output for result in written] == [out / f"{file}.tsv" for file in FILES[name]]
    assert sorted(out.iterdir()) == sorted(result.output for result in written)
    for result in written:
        header, *lines = [line.split("\t") for line in result.output.read_text().splitlines()]
        assert header == ["index", "prediction"]
        assert [line[0] for line in lines] == [str(row) for row in range(12)]
        told = [line[1] for line in lines]
        if name == "stsb":
            assert [float(score) for score in told] == [0, 0, 0, 2, 4, *[5] * 7]
        else:
            labels = TASKS["mnli" if name == "ax" else name]
            known = {labels.row(place)[labels.label] for place in range(48)} - {"-"}
            assert set(told) == known == set(glue.TASKS[name].labels)


def test_a_model_of_another_task_of_glue(tmp_path):
    write("cola", tmp_path / "data")
    settings = settings_for("cola", tmp_path / "data")
    with pytest.raises(DataError, match="of task sst2, and the tables are those of cola"):
        predict_glue(Turns(replace(task_from(settings), name="sst2")), settings, tmp_path / "out", origin={})
    assert predict_glue(Turns(replace(task_from(settings), name="mine")), settings, tmp_path / "out", origin={})


def test_labels_are_written_as_glue_writes_them():
    """The Hub numbers the classes that GLUE's tables name."""
    task = Task("rte", "pair", ("0", "1"), names=("entailment", "not_entailment"))
    assert glue_task(task, "rte").labels == ("entailment", "not_entailment")
    turned = Task("mnli", "pair", ("contradiction", "neutral", "entailment"))
    assert glue_task(turned, "ax").labels == turned.labels


@pytest.mark.parametrize("labels", [("yes", "no"), ("0", "1", "2"), ()])
def test_other_labels_are_refused(labels):
    with pytest.raises(DataError, match="GLUE's sst2 has the labels 0, 1"):
        glue_task(Task("mine", "single", labels), "sst2")


def test_test_tables_that_glue_has_not(tmp_path):
    with pytest.raises(DataError, match="there is no test table"):
        submission_files(settings_for("sst2", tmp_path), tmp_path)
    (tmp_path / "test.tsv").write_text("index\tsentence1\tsentence2\n0\ta\tb\n")
    with pytest.raises(DataError, match="test_matched and test_mismatched"):
        submission_files(settings_for("mnli", tmp_path), tmp_path)


LINES = Task("sst2", "single", ("0", "1"))
PAIR = Task("nli", "pair", ("no", "yes"))


class Pipe:
    """A stream that gives one piece at a time."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def read1(self, size, /):
        return self.pieces.pop(0) if self.pieces else b""


class Even:
    """A model that tells texts of an even number of characters from the others."""

    def __init__(self, task=LINES):
        self.task = task

    def logits(self, columns):
        even = [sum(map(len, texts)) % 2 == 0 for texts in zip(*columns, strict=True)]
        return np.array([[0, 1] if each else [1, 0] for each in even], np.float32)


def lines(stream, task=LINES, reporter=None):
    columns = [[] for _ in task.columns]
    for batch in read_lines(stream, task, reporter or Notes()):
        for column, texts in zip(columns, batch, strict=True):
            column += texts
    return columns


TEXT = st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"]))


@given(st.lists(TEXT, min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.data())
def test_lines_do_not_depend_on_how_they_come(texts, end, ended, mark, data):
    content = (end.join(texts) + end * ended).encode("utf-8-sig" if mark else "utf-8")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    pieces = [content[begin:stop] for begin, stop in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    expected = texts if ended or texts[-1] or content == codecs.BOM_UTF8 else texts[:-1]
    assert lines(Pipe(*filter(None, pieces))) == [expected]


def test_what_ends_a_line_parts_a_pair_or_is_odd(notes):
    assert lines(Pipe("a\rb\u2028c\u0085d\r\ne\r".encode())) == [["a\rb\u2028c\u0085d", "e\r"]]
    assert lines(Pipe(b"a b\tc\n\td\n"), PAIR) == [["a b", ""], ["c", "d"]]
    assert lines(Pipe(b"a\n\n", b"b\tc\n\n"), LINES, notes) == [["a", "", "b\tc", ""]]
    tab, empty = notes.warnings
    assert "1 rows (the first is row 3) with a tab" in tab
    assert "2 rows (the first is row 2) with an empty text" in empty


@pytest.mark.parametrize("wrong", [b"one text", b"a\tb\tc"])
def test_no_pair(wrong):
    made = predict_lines(Even(PAIR), Pipe(b"a\tb\n", b"a\tc\n" + wrong + b"\n"), QuietReporter())
    assert len(next(made)) == 1
    with raising(DataError, row=3):
        next(made)


def test_what_is_not_utf8_is_named():
    content = b"good\n" * 9_999 + b"g\xf6od\n" + b"good\n" * 10_000
    with raising(DataError, r"not UTF-8: byte 2 of the row is 0xf6", row=10_000):
        list(predict_lines(Even(), io.BytesIO(content), QuietReporter()))
