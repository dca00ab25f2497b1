"""Texts as places in a block: read, counted and hashed like the same texts one by one."""

import gzip
from itertools import chain, permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.errors import DataError
from kdcli.tables import tsv
from kdcli.tables.read import read_table, write_table
from kdcli.tables.spans import BEYOND, Spans, combine, count_within, hash_texts

slow_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
ascii_texts = st.text(st.characters(max_codepoint=127), max_size=30)


def spans(*columns: list[str]) -> Spans:
    return Spans.of([pa.array(column, pa.string()) for column in columns])


def exact(*values: str) -> list[int]:
    return hash_texts(spans(list(values)))[0][0].tolist()


@given(st.lists(st.tuples(texts, texts), max_size=20), st.data())
def test_texts_come_back(rows, data):
    columns = [[row[column] for row in rows] for column in (0, 1)]
    laid = spans(*columns)
    assert [laid.texts(column).to_pylist() for column in (0, 1)] == columns
    assert laid.select([1]).texts(0).to_pylist() == columns[1]
    some = np.array(sorted(data.draw(st.sets(st.integers(0, len(rows) - 1)))) if rows else [], np.int64)
    assert laid.copy().texts(1, some).to_pylist() == [columns[1][place] for place in some]


def test_slices_of_arrays_are_taken_for_what_they_are():
    column = pa.array(["a", "bb", "", "ccc", "d"]).slice(1, 3)
    assert Spans.of([column, column]).texts(1).to_pylist() == ["bb", "", "ccc"]


@given(st.binary(max_size=300), st.data())
def test_counts_within(data, draw):
    masks = [np.array([byte % 3 == rest for byte in data], bool) for rest in (0, 1)]
    cuts = draw.draw(st.lists(st.tuples(*2 * [st.integers(0, len(data))]).map(sorted), max_size=20))
    begins, ends = np.array(cuts, np.int64).reshape(-1, 2).T
    expected = [[sum(mask[begin:end].tolist()) for begin, end in cuts] for mask in masks]
    assert [found.tolist() for found in count_within(masks, begins, ends)] == expected


@given(st.lists(texts, min_size=1, max_size=30))
def test_equal_texts_have_equal_hashes_and_others_have_others(values):
    hashes = exact(*values)
    assert len(set(hashes)) == len(set(values))
    assert dict(zip(values, hashes, strict=True)) == {value: exact(value)[0] for value in values}


def test_texts_that_are_nearly_the_same_differ():
    lanes = ["aaaaaaaa", "bbbbbbbb", "Aaaaaaaa", "aaaaaaaA", "\0" * 8, "a" * 7 + "\0"]
    values = ["".join(some) for count in range(4) for some in permutations(lanes, count)]
    values += ["\0" * count for count in range(1, 8)] + ["a" * count for count in range(1, 200)]
    values += ["a" * place + "A" + "a" * (63 - place) for place in range(64)]
    assert len(set(exact(*values))) == len(set(values))


@given(st.lists(ascii_texts, min_size=1, max_size=10))
def test_case_does_not_count_in_the_second_hash_of_ascii(values):
    lower = [value.lower() for value in values]
    assert hash_texts(spans(values))[1].tolist() == [exact(*lower)]


def test_hashes_of_a_row_keep_the_order_of_its_texts():
    rows = [("a", "b"), ("b", "a"), ("ab", ""), ("", "ab"), ("a", "a"), ("b", "b")]
    hashes = combine(hash_texts(spans(*(list(column) for column in zip(*rows, strict=True))))[0])
    assert len(set(hashes.tolist())) == len(rows)


def test_no_texts_have_no_hashes():
    assert [found.shape for found in hash_texts(spans([], []))] == [(2, 0), (2, 0)]


def test_no_two_of_a_hundred_thousand_hashes_are_the_same_in_their_upper_or_lower_half():
    hashes = np.array(exact(*map(str, range(100_000))), np.uint64)
    # Of random 32-bit numbers one pair would be the same.
    for half in (hashes >> np.uint64(32), hashes & np.uint64(0xFFFFFFFF)):
        assert len(np.unique(half)) > 99_990


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("block", [8, 1 << 20])
def test_a_reader_gives_spans_and_the_other_columns(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(tsv, "BLOCK", block)
    table = pa.table({"n": ["7", "8", "9"], "s": ["good", "", "x" * 50], "t": ["é", "b", "c"]})
    with write_table(tmp_path / name, table.schema) as writer:
        writer.write(table)
    found = [
        (rows.tolist(), spans.texts(0).to_pylist(), spans.texts(1).to_pylist(), rest["n"].to_pylist())
        for rows, spans, rest in read_table(tmp_path / name).spans(["t", "s"])
    ]
    first = {"jsonl": 1, "parquet": 1}.get(name.partition(".")[2], 2)
    numbers, t, s, n = (list(chain.from_iterable(parts)) for parts in zip(*found, strict=True))
    assert numbers == [first, first + 1, first + 2]
    assert {"n": n, "s": s, "t": t} == table.to_pydict()


def test_texts_that_are_none_are_refused(tmp_path):
    for content, what, row in (
        ('{"s": "x"}\n{"t": "y"}\n', "a row has no text", 2),
        ('{"s": 1}\n', "the column holds int64, not text", None),
    ):
        (tmp_path / "a.jsonl").write_text(content)
        with pytest.raises(DataError, match=what) as raised:
            list(read_table(tmp_path / "a.jsonl").spans(["s"]))
        assert (raised.value.row, raised.value.key) == (row, "s")


@slow_files
@given(st.lists(st.lists(texts.map(lambda text: text.replace("\t", " ").replace("\n", " ")), min_size=2, max_size=2)))
def test_lines_longer_than_a_block(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(tsv, "BLOCK", 16)
    content = "".join("\t".join(row) + "\r\n" for row in [["a", "b"], *rows])
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(content.encode()))
    found = [pair for _, each, _ in read_table(tmp_path / "a.tsv.gz").spans(["a", "b"]) for pair in
             zip(each.texts(0).to_pylist(), each.texts(1).to_pylist(), strict=True)]  # fmt: skip
    assert found == [tuple(row) for row in rows]


def test_bytes_behind_the_block_do_not_count():
    data = np.frombuffer(b"abc" + b"x" * BEYOND, np.uint8)
    alone = Spans(data, np.array([[0]]), np.array([[3]]))
    assert hash_texts(alone)[0].tolist() == [exact("abc")]
