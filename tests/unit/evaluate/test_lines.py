import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from notes import Notes
from raising import raising

from kdcli.api import QuietReporter, Task
from kdcli.errors import DataError
from kdcli.evaluate.lines import predict_lines, read_lines

SINGLE = Task("sst2", "single", ("0", "1"))
PAIR = Task("nli", "pair", ("no", "yes"))


class Pipe:
    """A stream that gives one piece at a time, and notes how many were asked for."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.asked = 0

    def read1(self, size, /):
        self.asked += 1
        return self.pieces.pop(0) if self.pieces else b""


class Even:
    """A model that tells texts of an even number of characters from the others."""

    def __init__(self, task=SINGLE):
        self.task = task

    def logits(self, columns):
        even = [sum(map(len, texts)) % 2 == 0 for texts in zip(*columns, strict=True)]
        return np.array([[0, 1] if each else [1, 0] for each in even], np.float32)


def lines(stream, task=SINGLE, reporter=None):
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
    expected = texts if ended or texts[-1] else texts[:-1]
    assert lines(Pipe(*filter(None, pieces))) == [expected]


def test_a_line_is_predicted_before_the_next_is_waited_for():
    pipe = Pipe(b"ab\n", b"abc", b"d\nxyz\n")
    made = predict_lines(Even(), pipe, QuietReporter())
    assert next(made).to_dict(as_series=False) == {"index": ["0"], "prediction": ["1"]}
    assert pipe.asked == 1
    assert next(made).to_dict(as_series=False) == {"index": ["1", "2"], "prediction": ["1", "0"]}
    assert pipe.asked == 3
    assert list(made) == []


def test_what_ends_a_line_and_parts_a_pair():
    assert lines(Pipe("a\rb\u2028c\u0085d\r\ne\r".encode())) == [["a\rb\u2028c\u0085d", "e\r"]]
    assert lines(Pipe(b"a b\tc\n\td\n"), PAIR) == [["a b", ""], ["c", "d"]]


@pytest.mark.parametrize("wrong", [b"one text", b"a\tb\tc"])
def test_no_pair(wrong):
    made = predict_lines(Even(PAIR), Pipe(b"a\tb\n", b"a\tc\n" + wrong + b"\n"), QuietReporter())
    assert [len(next(made)) for _ in range(2)] == [1, 1]
    with raising(DataError, row=3):
        next(made)


def test_what_is_not_utf8_is_named_and_what_comes_before_is_predicted():
    content = b"good\n" * 9_999 + b"g\xf6od\n" + b"good\n" * 10_000
    made = predict_lines(Even(), io.BytesIO(content), QuietReporter())
    assert len(next(made)) == 9_999
    with raising(DataError, r"not UTF-8: byte 2 of the row is 0xf6", row=10_000):
        next(made)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_nothing(content):
    with pytest.raises(DataError, match="no line"):
        list(predict_lines(Even(), io.BytesIO(content), QuietReporter()))


def test_what_is_odd_is_told():
    reporter = Notes()
    assert lines(Pipe(b"a\n\n", b"b\tc\n\n"), SINGLE, reporter) == [["a", "", "b\tc", ""]]
    tab, empty = reporter.warnings
    assert "1 rows (the first is row 3) with a tab" in tab
    assert "2 rows (the first is row 2) with an empty text" in empty
