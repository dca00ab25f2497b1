import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from raising import raising

from kdcli import tables
from kdcli.api import QuietReporter
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tables.read import ROW_NUMBER, files_of, read_table
from kdcli.tables.write import write_table
from kdcli.tasks.split import load_split, split_files, task_from

slow_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def plain_rows(content):
    """Split a TSV as the definition says, in plain Python."""
    lines = content.split("\n")
    lines, last = lines[:-1], lines[-1]
    return [line.removesuffix("\r").split("\t") for line in lines] + ([last.split("\t")] if last else [])


def test_a_byte_order_mark_is_skipped_once_and_a_blank_line_an_empty_text(rows, put):
    path = put("a.tsv", b"\xef\xbb\xbf\xef\xbb\xbfs\tlabel\n\xef\xbb\xbfx\t1\n")
    assert read_table(path).columns == ("\ufeffs", "label")
    assert rows(path) == [("\ufeffx", "1")]
    assert read_table(put("b.csv", b"\xef\xbb\xbfs,label\nx,1\n")).columns == ("s", "label")
    assert rows(put("c.jsonl", b'\xef\xbb\xbf{"s": "x"}\n')) == [("x",)]
    expected = [("",), ("x",), ("",)]
    assert rows(put("a.tsv", "s\n\nx\n\r\n")) == expected
    assert rows(put("a.csv", "s\n\nx\n\r\n")) == expected
    assert rows(put("a.txt", "\nx\n\n")) == expected


@pytest.mark.parametrize(("form", "between", "text"), [("tsv", "\t", "x"), ("csv", ",", "x"), ("csv", ",", '"x"')])
@pytest.mark.parametrize(
    ("content", "row"), [("s|l\nx|1\n\ny|0\n", 3), ("s|l\n\r\nx|1\n", 2), ("s|l\nx|1\ny|0\n\n", 4)]
)
def test_a_blank_line_between_rows_of_several_columns_is_no_row(put, form, between, text, content, row):
    reader = read_table(put(f"a.{form}", content.replace("|", between).replace("x", text)))
    found = [number for number in range(2, content.count("\n") + 1) if number != row]
    assert reader.frame()[ROW_NUMBER].to_list() == found
    assert (reader.bad.count, len(reader.notes)) == (0, 1)


@pytest.mark.parametrize(("name", "between"), [("a.tsv", "\t"), ("a.csv", ","), ("a.tsv.gz", "\t"), ("a.csv.gz", ",")])
def test_a_ragged_row_is_an_error_with_number_and_content(rows, put, name, between):
    content = "s|l\nx|1\ny\nz|0|?|!\nw|1\n".replace("|", between)
    path = put(name, content)
    with raising(DataError, "1 field instead of 2: 'y'", row=3, hint="skip"):
        rows(path)
    reader = read_table(path, bad_rows="skip")
    assert reader.frame().select("s", ROW_NUMBER).rows() == [("x", 2), ("w", 5)]
    assert reader.bad.count == 2 and reader.bad.first.startswith("row 3: 1 field instead of 2")


def test_bad_rows_are_counted_in_each_reading_and_rows_come_before_the_whole_file_is_read(put, monkeypatch):
    reader = read_table(put("a.tsv", "s\tl\nx\n"), bad_rows="skip")
    assert [(len(reader.frame()), reader.bad.count) for _ in range(2)] == [(0, 1), (0, 1)]
    monkeypatch.setattr(tables, "BLOCK", 1 << 10)
    path = put("a.tsv", "s\tl\n" + "text\t1\n" * 10_000 + "ragged\n")
    batches = read_table(path).batches()
    assert 0 < len(next(batches)) < 1000
    with raising(DataError, row=10_002):
        list(batches)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.txt", "a.tsv.gz"])
def test_bytes_that_are_not_utf8_are_refused_with_row_and_byte(rows, put, name):
    lines = [b'{"s": "good"}', b'{"s": "caf\xe9"}'] if name == "a.jsonl" else [b"s", b"caf\xe9"]
    path = put(name, b"\n".join([*lines, b"last"]))
    with raising(DataError, row=2, what=f"byte {lines[1].index(0xE9) + 1} of", hint="iconv"):
        rows(path)


def test_a_parquet_text_that_is_not_utf8_is_refused(tmp_path, rows):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"s": ["fine", "caf\u00e9"]}).write_parquet(path, compression="uncompressed", statistics=False)
    path.write_bytes(path.read_bytes().replace("caf\u00e9".encode(), b"caf\xe9x"))
    with raising(DataError, file=path):
        rows(path)


@slow_files
@given(
    content=st.text(st.sampled_from('ab\té\r\n\u2028🎬\x85\x0b\x1c\ufeff" '), min_size=1).filter(
        lambda text: not text.startswith("\ufeff")
    ),
    block=st.integers(1, 9),
)
def test_any_tsv_is_split_as_defined_wherever_its_blocks_end(put, monkeypatch, content, block):
    monkeypatch.setattr(tables, "BLOCK", block)
    expected = plain_rows(content)
    width = len(expected[0])
    reader = read_table(put("a.tsv", content), header=False, bad_rows="skip")
    found = [(row[-1], *row[:-1]) for row in reader.frame().rows()]
    assert found == [(number, *row) for number, row in enumerate(expected, 1) if len(row) == width]
    assert reader.bad.count == sum(len(row) != width and row != [""] for row in expected)


def test_columns_are_chosen_by_name_in_the_order_asked_for_and_a_missing_one_is_an_error(tmp_path, rows):
    for form in ("tsv", "csv", "jsonl", "parquet"):
        write_table(tmp_path / f"a.{form}", pl.DataFrame({"a": [1], "b": [2], "c": [3]}))
        assert [tuple(map(int, row)) for row in rows(tmp_path / f"a.{form}", columns=["c", "a"])] == [(3, 1)]
        with raising(DataError, "no column 'text'", key="text", hint="a, b, c"):
            read_table(tmp_path / f"a.{form}", columns=["text"]).frame()


@pytest.mark.parametrize(("name", "content"), [("a.tsv", "x\t1\ny\t0\n"), ("a.csv", "x,1\ny,0\n")])
def test_a_table_without_header(rows, put, name, content):
    path = put(name, content)
    assert read_table(path, header=False).columns == ("c0", "c1")
    assert rows(path, header=False, columns=["c1"]) == [("1",), ("0",)]
    assert read_table(path, header=False).frame()[ROW_NUMBER].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "what", "row"),
    [
        ("a.tsv", "a\ta\n1\t2\n", "two columns have the name 'a'", None),
        ("a.csv", "a,a\n1,2\n", "two columns have the name 'a'", None),
        ("a.tsv", b"s\xff\nx\n", "0xff", 1),
        ("a.csv", b"s\xff\nx\n", "0xff", 1),
        ("a.csv", 's,l\n"a\r\n\rb",1\nx\ry,0\n', "lone carriage return outside quotes", 3),
        ("a.csv", 's,l\nx,1\n"never closed,1\ny,0\n', "", 3),
        ("a.csv", 's,l\n"a"b,1\n', "", 2),
    ],
)
def test_what_cannot_be_read(rows, put, name, content, what, row):
    path = put(name, content)
    with raising(DataError, what or None, file=path, **({"row": row} if row else {})):
        rows(path)


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet"])
def test_a_text_of_100_000_words_is_a_text(tmp_path, form):
    long = " ".join(f"word{number}" for number in range(100_000))
    table = pl.DataFrame({"s": ["before", long, "after"]})
    write_table(tmp_path / f"a.{form}", table)
    assert read_table(tmp_path / f"a.{form}").frame().drop(ROW_NUMBER).equals(table)


WHOLE = pl.DataFrame({"sentence": [f"text {number}" for number in range(7)], "label": ["0", "1"] * 3 + ["1"]})


def shards(folder, split="train", count=3):
    for number in range(count):
        part = WHOLE[len(WHOLE) * number // count : len(WHOLE) * (number + 1) // count]
        part.write_parquet(folder / f"{split}-{number:05d}-of-{count:05d}.parquet")


def settings(folder):
    return TaskSettings(name="toy", labels=("0", "1"), data_dir=str(folder))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shards_of_a_split_are_one_table(tmp_path, count):
    shards(tmp_path, "train", count)
    shards(tmp_path, "validation", count)
    own = settings(tmp_path)
    for split in ("train", "dev"):
        assert len(split_files(own, split)) == 1
        table = load_split(own, task_from(own), split, QuietReporter())
        assert table.select("sentence", "label").equals(WHOLE)
        assert table["index"].to_list() == list("0123456")
    frame = read_table(tmp_path / f"train-*-of-0000{count}.parquet").frame()
    assert frame[ROW_NUMBER].to_list() == list(range(1, 8))
    first = tmp_path / f"train-00000-of-0000{count}.parquet"
    assert len(read_table(first).frame()) == 7 // count, "a file that is named is that file alone"


def test_a_missing_shard_and_one_of_other_columns_are_named(tmp_path):
    shards(tmp_path)
    middle = tmp_path / "train-00001-of-00003.parquet"
    pl.DataFrame({"sentence": ["x"], "label": [1.5]}).write_parquet(middle)
    with raising(DataError, file=middle):
        read_table(tmp_path / "train-*-of-00003.parquet")
    middle.unlink()
    with raising(DataError, file=middle):
        load_split(settings(tmp_path), task_from(settings(tmp_path)), "train", QuietReporter())


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_a_folder_of_part_files_is_one_table(tmp_path, form):
    folder = tmp_path / f"train.{form}"
    folder.mkdir()
    write = {"csv": pl.DataFrame.write_csv, "parquet": pl.DataFrame.write_parquet, "jsonl": pl.DataFrame.write_ndjson}
    for number, part in enumerate((WHOLE[:4], WHOLE[4:])):
        write[form](part, folder / f"part-0000{number}-c000.{form}")
    for name in ("_SUCCESS", f"part-00002-c000.{form}"):
        (folder / name).touch()
    assert [path.name[:10] for path in files_of(folder)] == ["part-00000", "part-00001"]
    own = settings(tmp_path)
    table = load_split(own, task_from(own), "train", QuietReporter())
    assert table.select("sentence", "label").equals(WHOLE)
    if form != "parquet":
        last = folder / f"part-00001-c000.{form}"
        last.write_bytes(last.read_bytes() + b'{"a,b,c,d\n')
        with raising(DataError, row=5 if form == "csv" else 4, file=last):
            read_table(folder).frame()
    (tmp_path / "dev.csv").mkdir()
    with pytest.raises(DataError):
        read_table(tmp_path / "dev.csv")


def test_lines_of_fasttext_are_texts_with_labels(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("__label__pos a gripping film\n__label__neg a dull mess\n__label__pos , lovely\n")
    own = settings(tmp_path).model_copy(update={"labels": ("neg", "pos")})
    table = load_split(own, task_from(own), "train", QuietReporter()).select("sentence", "label")
    assert table.rows() == [("a gripping film", "pos"), ("a dull mess", "neg"), (", lovely", "pos")]
    path.write_text("__label__pos a film\n__label__neg __label__pos two labels\n")
    with raising(DataError, row=2):
        load_split(own, task_from(own), "train", QuietReporter())
    path.write_text("__label__pos a film\n__label__ no name\n")
    with raising(DataError, row=2):
        read_table(path).frame()
    reader = read_table(path, bad_rows="skip")
    assert (len(reader.frame()), reader.bad.count) == (1, 1)
