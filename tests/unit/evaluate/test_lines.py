from __future__ import annotations

import codecs
import io
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from notes import Notes

from kdcli.api import QuietReporter, Task
from kdcli.errors import DataError
from kdcli.evaluate.lines import predict_lines
from kdcli.tables.text_lines import read_lines

SINGLE = Task("sst2", "single", ("0", "1"))
PAIR = Task("nli", "pair", ("no", "yes"))


class Pipe:
    """A stream that gives one piece at a time, and notes how many were asked for."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.asked = 0

    def read1(self, size: int, /) -> bytes:
        self.asked += 1
        return self.pieces.pop(0) if self.pieces else b""


class Even:
    """A model that tells texts of an even number of characters from the others."""

    def __init__(self, task: Task = SINGLE) -> None:
        self.task = task

    def logits(self, columns: Sequence[Sequence[str]]) -> np.ndarray:
        even = [sum(map(len, texts)) % 2 == 0 for texts in zip(*columns, strict=True)]
        return np.array([[0, 1] if each else [1, 0] for each in even], np.float32)


def lines(stream: Pipe, task: Task = SINGLE, reporter: Notes | None = None) -> list[list[str]]:
    columns: list[list[str]] = [[] for _ in task.columns]
    for batch in read_lines(stream, task, reporter or Notes()):
        for column, texts in zip(columns, batch, strict=True):
            column += texts
    return columns


TEXT = st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"]))


@given(st.lists(TEXT, min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.data())
def test_lines_do_not_depend_on_how_they_come(
    texts: list[str], end: str, ended: bool, mark: bool, data: st.DataObject
) -> None:
    content = (end.join(texts) + end * ended).encode("utf-8-sig" if mark else "utf-8")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    pieces = [content[begin:stop] for begin, stop in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    expected = texts if ended or texts[-1] or content == codecs.BOM_UTF8 else texts[:-1]
    assert lines(Pipe(*filter(None, pieces))) == [expected]


def test_a_line_is_predicted_before_the_next_is_waited_for() -> None:
    pipe = Pipe(b"ab\n", b"abc", b"d\nxyz\n")
    made = predict_lines(Even(), pipe, QuietReporter())
    assert next(made).to_dict(as_series=False) == {"index": ["0"], "prediction": ["1"]}
    assert pipe.asked == 1
    assert next(made).to_dict(as_series=False) == {"index": ["1", "2"], "prediction": ["1", "0"]}
    assert pipe.asked == 3
    assert list(made) == []


def test_only_lf_and_crlf_end_a_line() -> None:
    assert lines(Pipe("a\rb\u2028c\u0085d\r\ne\r".encode())) == [["a\rb\u2028c\u0085d", "e\r"]]


def test_pairs() -> None:
    assert lines(Pipe(b"a b\tc\n\td\n"), PAIR) == [["a b", ""], ["c", "d"]]


@pytest.mark.parametrize("wrong", [b"one text", b"a\tb\tc"])
def test_no_pair(wrong: bytes) -> None:
    made = predict_lines(Even(PAIR), Pipe(b"a\tb\n", b"a\tc\n" + wrong + b"\n"), QuietReporter())
    assert len(next(made)) == 1
    with pytest.raises(DataError) as refused:
        next(made)
    assert refused.value.row == 3


def test_what_is_not_utf8_is_named() -> None:
    content = b"good\n" * 9_999 + b"g\xf6od\n" + b"good\n" * 10_000
    with pytest.raises(DataError, match=r"not UTF-8: byte 2 of the row is 0xf6") as refused:
        list(predict_lines(Even(), io.BytesIO(content), QuietReporter()))
    assert refused.value.row == 10_000


def test_nothing() -> None:
    with pytest.raises(DataError, match="no line"):
        list(predict_lines(Even(), io.BytesIO(b""), QuietReporter()))


def test_what_is_odd_is_told() -> None:
    reporter = Notes()
    assert lines(Pipe(b"a\n\n", b"b\tc\n\n"), SINGLE, reporter) == [["a", "", "b\tc", ""]]
    tab, empty = reporter.warnings
    assert "1 rows (the first is row 3) with a tab" in tab
    assert "2 rows (the first is row 2) with an empty text" in empty
