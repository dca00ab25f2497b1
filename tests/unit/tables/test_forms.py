import csv
import io

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from raising import raising

from kdcli import tables
from kdcli.api import QuietReporter, Task
from kdcli.errors import DataError
from kdcli.tables import csv_file
from kdcli.tables.csv_file import has_csv_quoting
from kdcli.tables.parquet import row_count, scan, slices
from kdcli.tables.read import ROW_NUMBER, as_texts, read_table
from kdcli.tables.write import write_table
from kdcli.tasks.text_set import open_texts

slow_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@slow_files
@given(
    table=st.lists(st.tuples(*[st.text(st.sampled_from('ab,"\r\n \té'))] * 2), max_size=6),
    block=st.integers(1, 30),
    style=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_a_csv_that_python_writes_is_read_as_python_means_it(rows, put, monkeypatch, table, block, style):
    monkeypatch.setattr(tables, "BLOCK", block)
    monkeypatch.setattr(csv_file, "_RECORDS", 2)
    written = io.StringIO(newline="")
    csv.writer(written, quoting=style).writerows([("s", "l"), *table])
    assert rows(put("a.csv", written.getvalue())) == table


@pytest.mark.parametrize("line", ["text {},1", 'text {},"1"', '{{"s": "text {}"}}'])
def test_rows_keep_their_numbers_over_the_blocks_of_a_file(put, monkeypatch, line):
    monkeypatch.setattr(tables, "BLOCK", 64)
    monkeypatch.setattr(csv_file, "_RECORDS", 5)
    header, name = ([], "a.jsonl") if line.startswith("{") else (["s,l"], "a.csv")
    numbers = range(1 + len(header), 200)
    lines = [line.format(number) if number % 7 else "ragged" for number in numbers]
    reader = read_table(put(name, "\n".join([*header, *lines])), bad_rows="skip")
    found = {row[ROW_NUMBER]: row["s"] for batch in reader.batches() for row in batch.iter_rows(named=True)}
    assert found == {number: f"text {number}" for number in numbers if number % 7}
    assert reader.bad.count == 28


def test_a_field_of_a_csv_that_is_too_long_is_refused(rows, put, monkeypatch):
    monkeypatch.setattr(csv_file, "_FIELD_LIMIT", 64)
    with raising(DataError, "never closed", row=3):
        rows(put("a.csv", f's,l\nx,1\n"{"long " * 100}",1\n'))


@pytest.mark.parametrize(
    ("content", "expected", "notes"),
    [
        ('s,l\n5" tall,1\n"a\rb",0\n', [('5" tall', "1", 2), ("a\rb", "0", 3)], 0),
        ("s\tl\nx, y\t1\n", [("x, y", "1", 2)], 1),
        ("s;l\na, b;1\n", [("a, b", "1", 2)], 1),
        ('s;l\n"a; b";1\n', [("a; b", "1", 2)], 1),
        ("sep=;\r\ns;l\r\nx;1\r\n", [("x", "1", 3)], 1),
        ("s,l\na\\b,1\n", [("a\\b", "1", 2)], 0),
        ('s,l\n"C:\\",1\n"a ""b"" c",0\n', [("C:\\", "1", 2), ('a "b" c', "0", 3)], 0),
    ],
)
def test_csv_of_other_programs(put, content, expected, notes):
    reader = read_table(put("a.csv", content))
    assert (reader.columns, reader.frame().rows(), len(reader.notes)) == (("s", "l"), expected, notes)


def test_a_bad_row_with_a_backslash_changes_no_other_row(put):
    content = 's,l\n"C:\\",a,1\n"C:\\",1\n"D:\\"z"q,1\n"E:\\",1\n'
    reader = read_table(put("a.csv", content), bad_rows="skip")
    assert reader.frame().rows() == [("C:\\", "1", 3), ("E:\\", "1", 5)]
    assert (reader.bad.count, reader.notes) == (2, [])


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
def test_quotes_escaped_by_a_backslash_are_an_error_until_that_is_said(put, monkeypatch, block):
    monkeypatch.setattr(tables, "BLOCK", block)
    content = 's,l\n"she said \\"no\\", \\"never\\"",1\n"a\n\\"b\\"",0\nplain,1\n"C:\\\\",0\n'
    with raising(DataError, "escaped", row=2):
        read_table(put("a.csv", content)).frame()
    rows = [('she said "no", "never"', "1", 2), ('a\n"b"', "0", 3), ("plain", "1", 4), ("C:\\\\", "0", 5)]
    assert read_table(put("a.csv", content), quoted="escaped").frame().rows() == rows
    assert read_table(put("a.tsv", content.replace(",", "\t")), quoted="escaped").frame()["l"].to_list() == list("1010")


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
def test_a_tsv_with_the_quoting_of_csv_is_recognised(put, monkeypatch, block):
    monkeypatch.setattr(tables, "BLOCK", block)
    quoted = put("a.tsv", 's\tl\n"he said ""no"""\t1\n"a\ttab and a\nline"\t0\nplain\t1\n')
    assert has_csv_quoting(quoted)
    frame = read_table(quoted, quoted=True).frame()
    assert frame["s"].to_list() == ['he said "no"', "a\ttab and a\nline", "plain"]
    for content in ("s\tl\nplain\t1\n", 's\tl\n"a" b\t1\n"c"\t0\n', 's\tl\n" a\t1\nb\t0\n', 's\tl\n"a"\t1\t2\n'):
        assert not has_csv_quoting(put("b.tsv", content))


def test_jsonl_keeps_its_types_a_missing_key_is_null_and_blank_lines_are_skipped(put):
    content = '{"s": "a\\tb\\u2028\\n", "i": 1, "x": 1, "b": true}\n{"x": 0.5, "s": null}\n{"new": "é", "none": null}'
    reader = read_table(put("a.jsonl", content))
    types = [pl.String, pl.Int64, pl.Float64, pl.Boolean, pl.String, pl.String]
    assert list(reader.schema.items()) == list(zip(["s", "i", "x", "b", "new", "none"], types, strict=True))
    assert reader.frame().rows() == [
        ("a\tb\u2028\n", 1, 1.0, True, None, None, 1),
        (None, None, 0.5, None, None, None, 2),
        (None, None, None, None, "é", None, 3),
    ]
    assert read_table(put("a.jsonl", '{"s": "x"}\n\n{"s": "y"}\n \n')).frame().rows() == [("x", 1), ("y", 3)]
    with raising(DataError, "array", hint="jq"):
        read_table(put("b.jsonl", '[{"s": "x"},\n {"s": "y"}]\n'))


@pytest.mark.parametrize("line", ["{", "[1]", '"text"', '{"s": "x"} {"s": "y"}', "[" * 100_000])
def test_a_line_that_is_not_a_json_object_is_a_bad_row(rows, put, line):
    path = put("a.jsonl", f'{{"s": "x"}}\n{line}\n{{"s": "y"}}\n')
    with raising(DataError, "not a JSON object", row=2):
        rows(path)
    reader = read_table(path, bad_rows="skip")
    assert reader.frame()[ROW_NUMBER].to_list() == [1, 3]
    assert reader.bad.count == 1


@pytest.mark.parametrize(
    ("values", "row"),
    [(['"x"', "1"], 2), (["1", "[1]"], 2), (["1", "null", "true"], 3), (["{}", '"x"'], 1), ([str(2**64)], 1),
     (['"x"', '"\\ud800"'], 2)],
)  # fmt: skip
def test_json_values_that_are_no_column(put, values, row):
    path = put("a.jsonl", "".join(f'{{"s": {value}, "t": "text"}}\n' for value in values))
    with raising(DataError, key="s", row=row):
        read_table(path).frame()
    assert len(read_table(path, columns=["t"]).frame()) == len(values), "what nobody asks for may hold anything"


def test_parquet_keeps_its_types_categories_are_texts_and_so_are_jsons(tmp_path):
    texts = ["a\ttab", "a\nline", "\r\n", ""]
    table = pl.DataFrame({
        "text": texts,
        "category": pl.Series(texts, dtype=pl.Categorical),
        "enum": pl.Series(texts, dtype=pl.Enum(texts)),
        "label": pl.Series([0, 1, None, 0], dtype=pl.Int8),
    })  # fmt: skip
    table.write_parquet(tmp_path / "a.parquet")
    reader = read_table(tmp_path / "a.parquet")
    assert reader.schema == {"text": pl.String, "category": pl.String, "enum": pl.String, "label": pl.Int8}
    frame = reader.frame()
    assert frame.rows() == [(*row, number) for number, row in enumerate(table.rows(), 1)]
    assert frame.schema == {**reader.schema, ROW_NUMBER: pl.Int64}
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = pa.ExtensionArray.from_storage(pa.json_(pa.utf8()), pa.array(["a b", "é"]))
    table = pa.table({"sentence": texts, "bytes": [b"\xff", b""], "label": [0, 1]})
    path = tmp_path / "train.parquet"
    parquet.write_table(table, path, store_schema=False)  # as DuckDB, which knows no types of Arrow
    reader = read_table(path)
    assert reader.columns == ("sentence", "bytes", "label")
    assert as_texts(reader.frame(), ["sentence"], path)["sentence"].to_list() == ["a b", "é"]
    with raising(DataError, row=1):
        as_texts(reader.frame(), ["bytes"], path)
    found = open_texts(path, Task("own", "single", ("0", "1")), QuietReporter()).collect()
    assert found["sentence"].to_list() == ["a b", "é"]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_slices_hold_all_rows_in_order(tmp_path, size):
    path = tmp_path / "a.parquet"
    table = pl.DataFrame({"n": range(1000), "s": [str(number) for number in range(1000)]})
    table.write_parquet(path, row_group_size=64)
    assert row_count(path) == 1000
    frames = list(slices(scan(path, ["s"]), size))
    assert [len(frame) for frame in frames[:-1]] == [size] * (len(frames) - 1)
    assert pl.concat(frames)["s"].to_list() == table["s"].to_list()


def test_a_table_of_a_run_that_is_missing_damaged_or_another(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(DataError, match="no such file"):
        scan(path)
    pl.DataFrame({"s": ["x"], "t": ["y"]}).write_parquet(path)
    assert scan(path, ["t", "s"]).collect().columns == ["t", "s"]
    with raising(DataError, "no column 'u'", key="u"):
        scan(path, ["u"])
    path.write_bytes(path.read_bytes()[:-5])
    for read in (scan, row_count, read_table):
        with pytest.raises(DataError, match="cannot be read"):
            read(path)
    pl.DataFrame({"id": [{"oid": "x"}], "s": ["text"]}).write_parquet(path)
    assert read_table(path, columns=["s"]).frame().rows() == [("text", 1)]


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet", "txt", "tsv.gz", "csv.gz", "jsonl.gz"])
def test_an_empty_or_missing_file_is_refused(tmp_path, put, form):
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / f"a.{form}")
    with pytest.raises(DataError, match="the file is empty"):
        read_table(put(f"a.{form}", b""))
    (tmp_path / f"folder.{form}").mkdir()
    with pytest.raises(DataError, match="a folder"):
        read_table(tmp_path / f"folder.{form}")


def test_a_header_alone_is_a_table_without_rows(put):
    for name, content in (("a.tsv", "s\tl\n"), ("a.csv", "s,l\n"), ("b.csv", '"s","l"\r\n')):
        frame = read_table(put(name, content)).frame()
        assert (len(frame), frame.schema) == (0, {"s": pl.String, "l": pl.String, ROW_NUMBER: pl.Int64})


@pytest.mark.parametrize("name", ["a", "a.gz", "a.xlsx", "tsv", "a.parquet.gz"])
def test_a_name_without_the_suffix_of_a_table_is_refused(tmp_path, rows, put, name):
    with raising(DataError, hint=True):
        read_table(put(name, b"x"))
    assert rows(tmp_path / name, form="tsv", header=False) == [("x",)]


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl"])
def test_a_cut_gzip_file_is_refused(tmp_path, rows, form):
    path = tmp_path / f"a.{form}.gz"
    write_table(path, pl.DataFrame({"s": [f"{number * 7919 % 10007} text" for number in range(5000)]}))
    path.write_bytes(path.read_bytes()[:-1000])
    with raising(DataError, "truncated or damaged", file=path):
        rows(path)
