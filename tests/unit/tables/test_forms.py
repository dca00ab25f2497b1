"""The forms of a table apart from TSV: CSV, JSONL and Parquet, and files that are none."""

import csv
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.errors import DataError
from kdcli.tables import comma, jsonl
from kdcli.tables.read import read_table, write_table


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(table=st.lists(st.tuples(*[st.text(st.sampled_from('ab,"\r\n \té'))] * 2), max_size=6))
def test_a_csv_that_python_writes_is_read_as_python_means_it(rows, put, table):
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([("s", "l"), *table])
    assert rows(put("a.csv", written.getvalue())) == table


def test_a_lone_cr_outside_quotes_cannot_be_read_from_csv(rows, put):
    path = put("a.csv", 's,l\n"a\r\n\rb",1\nx\ry,0\n')
    with pytest.raises(DataError, match="carriage return alone, outside quotes") as raised:
        rows(path)
    assert raised.value.row == 3
    assert rows(put("b.csv", 's,l\n5" tall,1\n"a\rb",0\n')) == [('5" tall', "1"), ("a\rb", "0")]


def test_the_rows_of_a_csv_keep_their_numbers_over_its_blocks(put, monkeypatch):
    monkeypatch.setattr(comma, "_BLOCK", 64)
    lines = [f"text {number},1" if number % 7 else "ragged" for number in range(2, 200)]
    reader = read_table(put("a.csv", "\n".join(["s,l", *lines])), bad_rows="skip")
    found = {
        number: row["s"]
        for numbers, batch in reader.numbered()
        for number, row in zip(numbers.tolist(), batch.to_pylist(), strict=True)
    }
    assert found == {number: f"text {number}" for number in range(2, 200) if number % 7}
    assert reader.skipped == 28


def test_bad_rows_alone_in_the_last_block_of_a_csv_are_counted(put, monkeypatch):
    monkeypatch.setattr(comma, "_BLOCK", 64)
    reader = read_table(put("a.csv", "s,l\nx,1\n" + "ragged\n" * 100), bad_rows="skip")
    assert reader.table().num_rows == 1
    assert reader.skipped == 100


@pytest.mark.parametrize("block", range(1, 12))
@pytest.mark.parametrize("content", [b"s,l\nx,1\n\n", b'\xef\xbb\xbf"\n\ns",l\r\nx,1\r\n\r\n'])
def test_a_blank_line_of_a_csv_is_seen_wherever_blocks_end(put, rows, monkeypatch, block, content):
    monkeypatch.setattr(comma, "BLOCK", block)
    with pytest.raises(DataError, match="a blank line") as raised:
        rows(put("a.csv", content))
    assert raised.value.row == 3


def test_a_csv_row_larger_than_a_block_is_refused(rows, put, monkeypatch):
    monkeypatch.setattr(comma, "_BLOCK", 64)
    with pytest.raises(DataError, match="not a CSV table") as raised:
        rows(put("a.csv", f's,l\nx,1\n"{"long " * 100}",1\n'))
    assert "a quote that is never closed" in str(raised.value.hint)


def test_a_csv_with_tabs_between_its_fields_is_a_tsv(rows, put):
    assert rows(put("a.csv", "s\tl\nx, y\t1\n")) == [("x, y", "1")]


# JSONL and Parquet


def test_jsonl_keeps_its_types_and_a_key_left_out_is_null(put):
    content = '{"s": "a\\tb\\u2028\\n", "i": 1, "x": 1, "b": true}\n{"x": 0.5, "s": null}\n{"new": "é", "none": null}'
    table = read_table(put("a.jsonl", content)).table()
    assert table.schema == pa.schema(
        [
            ("s", pa.string()),
            ("i", pa.int64()),
            ("x", pa.float64()),
            ("b", pa.bool_()),
            ("new", pa.string()),
            ("none", pa.string()),
        ]
    )
    assert table.to_pydict() == {
        "s": ["a\tb\u2028\n", None, None],
        "i": [1, None, None],
        "x": [1.0, 0.5, None],
        "b": [True, None, None],
        "new": [None, None, "é"],
        "none": [None, None, None],
    }


@pytest.mark.parametrize("line", ["{", "[1]", "", '"text"', '{"s": "x"} {"s": "y"}', "[" * 100_000])
def test_a_line_that_is_no_json_object_is_a_bad_row(rows, put, line):
    path = put("a.jsonl", f'{{"s": "x"}}\n{line}\n{{"s": "y"}}\n')
    with pytest.raises(DataError, match="no JSON object") as raised:
        rows(path)
    assert raised.value.row == 2
    reader = read_table(path, bad_rows="skip")
    assert [number for numbers, _ in reader.numbered() for number in numbers] == [1, 3]
    assert reader.skipped == 1


def test_the_rows_of_jsonl_keep_their_numbers_over_its_blocks(put, monkeypatch):
    monkeypatch.setattr(jsonl, "BLOCK", 64)
    lines = [f'{{"n": {number}}}' if number % 7 else "bad" for number in range(1, 200)]
    reader = read_table(put("a.jsonl", "\n".join(lines)), bad_rows="skip")
    found = [(numbers.tolist(), batch["n"].to_pylist()) for numbers, batch in reader.numbered()]
    assert len(found) > 10
    assert all(numbers == values for numbers, values in found)


@pytest.mark.parametrize(
    ("values", "row", "what"),
    [(['"x"', "1"], 2, "int after str"), (["[1]"], 1, "list"), (["1", "null", "true"], 3, "bool after int"),
     (["{}", '"x"'], 1, "dict"),
     ([str(2**64)], 1, "no table can hold"), (['"x"', '"\\ud800"'], 2, "no table can hold")],
)  # fmt: skip
def test_json_values_that_are_no_column(rows, put, values, row, what):
    path = put("a.jsonl", "".join(f'{{"s": {value}}}\n' for value in values))
    with pytest.raises(DataError, match=what) as raised:
        rows(path)
    assert (raised.value.row, raised.value.key) == (row, "s")


def test_parquet_keeps_its_types_and_texts_are_plain_strings(tmp_path, put):
    texts = ["a\ttab", "a\nline", "\r\n", ""]
    table = pa.table({
        "large": pa.array(texts, pa.large_string()),
        "coded": pa.array(texts).dictionary_encode(),
        "label": pa.array([0, 1, None, 0], pa.int8()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    put("b.parquet.gz", (tmp_path / "a.parquet").read_bytes())
    for name in ("a.parquet", "b.parquet.gz"):
        found = read_table(tmp_path / name, batch_rows=3)
        assert [field.type for field in found.schema] == [pa.string(), pa.string(), pa.int8()]
        assert found.table().to_pydict() == table.to_pydict()


# Files that are none


@pytest.mark.parametrize(
    "form", ["tsv", "csv", "jsonl", "parquet", "txt", "tsv.gz", "csv.gz", "jsonl.gz", "parquet.gz"]
)
def test_an_empty_or_missing_file_is_refused(tmp_path, put, form):
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / f"a.{form}")
    with pytest.raises(DataError, match="the file is empty"):
        read_table(put(f"a.{form}", b""))
    (tmp_path / f"folder.{form}").mkdir()
    with pytest.raises(DataError, match="a folder"):
        read_table(tmp_path / f"folder.{form}")


def test_a_header_alone_is_a_table_without_rows(rows, put):
    assert rows(put("a.tsv", "s\tl\n")) == []
    assert rows(put("a.csv", "s,l\n")) == []


@pytest.mark.parametrize("name", ["a", "a.gz", "a.xlsx", "tsv"])
def test_a_name_that_tells_no_form_is_refused(tmp_path, rows, put, name):
    with pytest.raises(DataError, match="no form") as raised:
        read_table(put(name, b"x"))
    assert ".parquet" in str(raised.value.hint)
    assert rows(tmp_path / name, form="tsv", header=False) == [("x",)]


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet"])
def test_a_cut_gzip_file_is_refused(tmp_path, rows, form):
    path = tmp_path / f"a.{form}.gz"
    with write_table(path, pa.schema([("s", pa.string())])) as writer:
        writer.write(pa.table({"s": [f"{number * 7919 % 10007} text" for number in range(5000)]}))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="cut short or damaged") as raised:
        rows(path)
    assert raised.value.file == str(path)


def test_a_cut_or_foreign_parquet_file_is_refused(tmp_path, rows, put):
    pq.write_table(pa.table({"s": ["x"]}), tmp_path / "a.parquet")
    put("cut.parquet", (tmp_path / "a.parquet").read_bytes()[:-5])
    put("text.parquet", b"sentence\tlabel\n")
    for name in ("cut.parquet", "text.parquet"):
        with pytest.raises(DataError, match="no Parquet file, or a damaged one"):
            rows(tmp_path / name)
