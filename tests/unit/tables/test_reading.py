import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.errors import DataError
from kdcli.tables import text_lines
from kdcli.tables.read import ROW_NUMBER, read_table
from kdcli.tables.write import write_table

slow_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def plain_rows(content: str) -> list[list[str]]:
    """Split a TSV as the definition says, in plain Python."""
    lines = content.split("\n")
    lines, last = lines[:-1], lines[-1]
    return [line.removesuffix("\r").split("\t") for line in lines] + ([last.split("\t")] if last else [])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_rows_end_at_lf_or_crlf_and_nothing_else(rows, put, end, last):
    texts = ["a\rb", "\x85", "x\u2028y", "\x0b\x0c\x1c", "\ufeff", "NA", '"', " "]
    content = end.join(["sentence\tlabel", *(f"{text}\t1" for text in texts)]) + end * last
    assert rows(put("a.tsv", content)) == [(text, "1") for text in texts]


def test_a_byte_order_mark_is_skipped_once(rows, put):
    path = put("a.tsv", b"\xef\xbb\xbf\xef\xbb\xbfs\tlabel\n\xef\xbb\xbfx\t1\n")
    assert read_table(path).columns == ("\ufeffs", "label")
    assert rows(path) == [("\ufeffx", "1")]
    assert read_table(put("b.csv", b"\xef\xbb\xbfs,label\nx,1\n")).columns == ("s", "label")
    assert rows(put("c.jsonl", b'\xef\xbb\xbf{"s": "x"}\n')) == [("x",)]


def test_a_blank_line_is_an_empty_text_of_one_column(rows, put):
    expected = [("",), ("x",), ("",)]
    assert rows(put("a.tsv", "s\n\nx\n\r\n")) == expected
    assert rows(put("a.csv", "s\n\nx\n\r\n")) == expected
    assert rows(put("a.txt", "\nx\n\n")) == expected


@pytest.mark.parametrize(("name", "between"), [("a.tsv", "\t"), ("a.csv", ",")])
@pytest.mark.parametrize(
    ("content", "row"), [("s|l\nx|1\n\ny|0\n", 3), ("s|l\n\r\nx|1\n", 2), ("s|l\nx|1\ny|0\n\n", 4)]
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_blank_line_between_rows_of_several_columns_is_no_row(put, name, between, content, row, quote):
    if quote and name == "a.tsv":
        return
    reader = read_table(put(name, content.replace("|", between).replace("x", f"{quote}x{quote}")))
    found = [number for number in range(2, content.count("\n") + 1) if number != row]
    assert reader.frame()[ROW_NUMBER].to_list() == found
    assert (reader.skipped, len(reader.notes)) == (0, 1)


def test_rows_of_empty_fields_are_no_blank_lines(rows, put):
    assert rows(put("a.tsv", "s\tl\n\t\n")) == [("", "")]
    assert rows(put("a.csv", 's,l\n,\n"",""\n"\n\n","\r"\n')) == [("", ""), ("", ""), ("\n\n", "\r")]


@pytest.mark.parametrize(("name", "between"), [("a.tsv", "\t"), ("a.csv", ","), ("a.tsv.gz", "\t"), ("a.csv.gz", ",")])
def test_a_ragged_row_is_an_error_with_number_and_content(rows, put, name, between):
    content = "s|l\nx|1\ny\nz|0|?|!\nw|1\n".replace("|", between)
    path = put(name, content)
    with pytest.raises(DataError, match="1 field instead of 2: 'y'") as raised:
        rows(path)
    assert raised.value.row == 3
    assert "skip" in str(raised.value.hint)
    reader = read_table(path, bad_rows="skip")
    assert reader.frame().select("s", ROW_NUMBER).to_dict(as_series=False) == {"s": ["x", "w"], ROW_NUMBER: [2, 5]}
    assert reader.skipped == 2
    assert reader.first_skipped.startswith("row 3: 1 field instead of 2")


def test_the_bad_rows_of_one_reading_are_not_counted_into_the_next(put):
    reader = read_table(put("a.tsv", "s\tl\nx\n"), bad_rows="skip")
    for _ in range(2):
        assert len(reader.frame()) == 0
        assert reader.skipped == 1


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.txt", "a.tsv.gz"])
def test_bytes_that_are_not_utf8_are_refused_with_row_and_byte(rows, put, name):
    lines = {"jsonl": [b'{"s": "good"}', b'{"s": "caf\xe9"}'], "txt": [b"x", b"caf\xe9"]}
    lines = lines.get(name.split(".")[1], [b"s", b"caf\xe9"])
    path = put(name, b"\n".join([*lines, b"last"]))
    with pytest.raises(DataError, match=r"not UTF-8: byte \d+ of the row is 0xe9") as raised:
        rows(path)
    assert raised.value.row == 2
    assert f"byte {lines[1].index(0xE9) + 1} of" in raised.value.what
    assert "iconv" in str(raised.value.hint)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_header_that_is_not_utf8_is_refused(put, name):
    with pytest.raises(DataError, match="0xff") as raised:
        read_table(put(name, b"s\xff\nx\n"))
    assert raised.value.row == 1


def test_a_parquet_text_that_is_not_utf8_is_refused(tmp_path, rows):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"s": ["fine", "caf\u00e9"]}).write_parquet(path, compression="uncompressed", statistics=False)
    path.write_bytes(path.read_bytes().replace("caf\u00e9".encode(), b"caf\xe9x"))
    with pytest.raises(DataError) as raised:
        rows(path)
    assert raised.value.file == str(path)


@slow_files
@given(
    content=st.text(st.sampled_from("ab\té\r\n\u2028🎬"), min_size=1).filter(
        lambda text: not text.startswith("\ufeff")
    ),
    block=st.integers(1, 9),
)
def test_any_tsv_is_split_as_defined_wherever_its_blocks_end(put, monkeypatch, content, block):
    monkeypatch.setattr(text_lines, "BLOCK", block)
    expected = plain_rows(content)
    width = len(next((row for row in expected if row != [""]), [""]))  # blank lines ahead are no rows
    reader = read_table(put("a.tsv", content), header=False, bad_rows="skip")
    found = [(row[-1], *row[:-1]) for row in reader.frame().rows()]
    assert found == [(number, *row) for number, row in enumerate(expected, 1) if len(row) == width]
    assert reader.skipped == sum(len(row) != width and row != [""] for row in expected)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "b.csv"])
def test_blank_lines_ahead_of_the_header_are_no_rows(put, name):
    separator = {"a.tsv": "\t", "a.csv": ",", "b.csv": ";"}[name]
    reader = read_table(put(name, f"\n\r\ns{separator}l\nx{separator}1\n"))
    assert reader.columns == ("s", "l")
    assert reader.frame().rows() == [("x", "1", 4)]
    assert "2 blank lines are no rows" in reader.notes
    headless = read_table(put(name, f"\nx{separator}1\n"), header=False)
    assert headless.frame().rows() == [("x", "1", 2)]
    assert read_table(put(name, "\n\n")).frame().is_empty()


def test_columns_are_chosen_by_name_in_the_order_asked_for(tmp_path, rows, put):
    for name in ("a.tsv", "a.csv"):
        path = put(name, "a|b|c\n1|2|3\n".replace("|", "\t" if name == "a.tsv" else ","))
        assert rows(path, columns=["c", "a"]) == [("3", "1")]
    assert rows(put("a.jsonl", '{"a": 1, "b": 2, "c": 3}\n'), columns=["c", "a"]) == [(3, 1)]
    pl.DataFrame({"a": [1], "b": [2], "c": [3]}).write_parquet(tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet", columns=["c", "a"]) == [(3, 1)]


def test_a_missing_column_names_those_that_there_are(put):
    path = put("a.tsv", "sentence\tlabel\nx\t1\n")
    with pytest.raises(DataError, match="no column 'text'") as raised:
        read_table(path, columns=["text"])
    assert raised.value.key == "text"
    assert "sentence, label" in str(raised.value.hint)
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(("name", "content"), [("a.tsv", "x\t1\ny\t0\n"), ("a.csv", "x,1\ny,0\n")])
def test_a_table_without_header(rows, put, name, content):
    path = put(name, content)
    assert read_table(path, header=False).columns == ("c0", "c1")
    assert rows(path, header=False, columns=["c1"]) == [("1",), ("0",)]
    assert read_table(path, header=False).frame()[ROW_NUMBER].to_list() == [1, 2]


@pytest.mark.parametrize(("name", "content"), [("a.tsv", "a\ta\n1\t2\n"), ("a.csv", "a,a\n1,2\n")])
def test_two_columns_of_one_name_are_refused(put, name, content):
    with pytest.raises(DataError, match="two columns have the name 'a'"):
        read_table(put(name, content))


def test_rows_come_before_the_whole_file_is_read(put, monkeypatch):
    monkeypatch.setattr(text_lines, "BLOCK", 1 << 10)
    path = put("a.tsv", "s\tl\n" + "text\t1\n" * 10_000 + "ragged\n")
    batches = read_table(path).batches()
    assert 0 < len(next(batches)) < 1000
    with pytest.raises(DataError) as raised:
        list(batches)
    assert raised.value.row == 10_002


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet"])
def test_a_text_of_100_000_words_is_a_text(tmp_path, form):
    long = " ".join(f"word{number}" for number in range(100_000))
    table = pl.DataFrame({"s": ["before", long, "after"]})
    write_table(tmp_path / f"a.{form}", table)
    assert read_table(tmp_path / f"a.{form}").frame().drop(ROW_NUMBER).equals(table)
