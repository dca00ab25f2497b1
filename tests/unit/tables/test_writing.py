import gzip
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kdcli.errors import DataError
from kdcli.tables import write
from kdcli.tables.read import ROW_NUMBER, read_table
from kdcli.tables.write import write_table

FORMS = ["tsv", "csv", "jsonl", "parquet"]
slow_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
texts = st.text(st.sampled_from(["a", " ", "\t", "\n", "\r", '"', ",", "é", "\u2028", "\x85", "\ufeff", "\x00"]))


@slow_files
@given(
    table=st.lists(st.tuples(texts, texts), max_size=5),
    form=st.sampled_from(FORMS),
    zipped=st.booleans(),
    lazy=st.booleans(),
)
def test_what_is_written_is_read_back_or_refused(tmp_path, rows, monkeypatch, table, form, zipped, lazy):
    monkeypatch.setattr(write, "ROWS", 2)
    zipped = zipped and form != "parquet"
    path = tmp_path / f"a.{form}{'.gz' * zipped}"
    path.unlink(missing_ok=True)
    wrong = [row for row, (s, t) in enumerate(table, 2) if set("\t\n") & set(s + t) or t.endswith("\r")]
    frame = pl.DataFrame(table, schema={"s": pl.String, "t": pl.String}, orient="row")
    frame = frame.lazy() if lazy else frame
    if form == "tsv" and wrong:
        with pytest.raises(DataError) as raised:
            write_table(path, frame)
        assert raised.value.row == wrong[0]
        assert ".parquet" in str(raised.value.hint)
        assert not path.exists()
        return
    assert write_table(path, frame) == len(table)
    if form == "jsonl" and not table:
        assert gzip.decompress(path.read_bytes()) == b"" if zipped else path.read_bytes() == b""
    else:
        assert rows(path) == table


@slow_files
@example(lines=["\ufeff first", "\ufeff second"])
@given(lines=st.lists(texts, min_size=1, max_size=5))
def test_plain_lines_are_read_back_or_refused(tmp_path, rows, lines):
    path, table = tmp_path / "a.txt", pl.DataFrame({"sentence": lines})
    if any("\n" in line or line.endswith("\r") for line in lines):
        with pytest.raises(DataError):
            write_table(path, table)
    else:
        write_table(path, table)
        assert rows(path) == [(line,) for line in lines]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floats_read_back_as_the_same_number(tmp_path, form, kind):
    bits = np.random.default_rng(0).integers(0, 2 ** (8 * kind().nbytes), 5000, np.uint64)
    values = bits.astype(f"u{kind().nbytes}").view(kind)
    values = np.concatenate([values[np.isfinite(values)], kind([0.1, 1 / 3, -0.0, 1e-7, 16777216])])
    table = pl.DataFrame({"x": values})
    write_table(tmp_path / f"a.{form}", table)
    found = read_table(tmp_path / f"a.{form}").frame()["x"]
    assert np.array(found.to_list(), kind).tobytes() == values.tobytes()


def test_numbers_in_a_tsv_are_short(tmp_path):
    thirds = pl.Series([0.1, 2.0, 1 / 3], dtype=pl.Float32)
    write_table(tmp_path / "a.tsv", pl.DataFrame({"x": thirds, "n": [1, None, 3], "b": [True, False, None]}))
    assert (tmp_path / "a.tsv").read_text() == "x\tn\tb\n0.1\t1\ttrue\n2.0\t\tfalse\n0.33333334\t3\t\n"


@pytest.mark.parametrize(("form", "expected"), [("tsv", ""), ("csv", ""), ("jsonl", None), ("parquet", None)])
def test_a_null_is_an_empty_field_or_a_null(tmp_path, rows, form, expected):
    write_table(tmp_path / f"a.{form}", pl.DataFrame({"s": ["x", None], "label": [None, "1"]}))
    assert rows(tmp_path / f"a.{form}") == [("x", expected), (expected, "1")]


@pytest.mark.parametrize("form", ["tsv.gz", "csv.gz", "jsonl.gz", "parquet"])
def test_the_same_rows_give_the_same_bytes_under_any_name(tmp_path, form):
    table = pl.DataFrame({"s": ["x", "y", "z"]})
    pieces = pl.concat([table[:1], table[1:]], rechunk=False)
    write_table(tmp_path / f"a.{form}", table)
    write_table(tmp_path / f"other.{form}", pieces)
    written = (tmp_path / f"a.{form}").read_bytes()
    assert written == (tmp_path / f"other.{form}").read_bytes()
    assert written[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00" or not form.endswith("gz"), "no name and no time"


def test_what_a_form_cannot_hold_is_refused(tmp_path):
    pairs = pl.DataFrame({"s": ["x"], "l": ["y"]})
    with pytest.raises(DataError, match="one column"):
        write_table(tmp_path / "a.txt", pairs)
    for table in (pl.DataFrame({"s": [[1, 2]]}), pl.DataFrame({"a\tb": ["x"]})):
        with pytest.raises(DataError) as raised:
            write_table(tmp_path / "a.tsv", table)
        assert ".parquet" in str(raised.value.hint)
    assert not list(tmp_path.iterdir())


def test_jsonl_is_one_object_a_line(tmp_path):
    write_table(tmp_path / "a.jsonl", pl.DataFrame({"s": ["é\n", None], "n": [1, 2]}))
    lines = (tmp_path / "a.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [{"s": "é\n", "n": 1}, {"s": None, "n": 2}]


def test_a_tab_from_a_parquet_text_names_its_row_in_the_tsv(tmp_path, put, monkeypatch):
    monkeypatch.setattr(write, "ROWS", 1)
    pl.DataFrame({"s": ["fine", "a\ttab"], "l": ["1", "0"]}).write_parquet(tmp_path / "a.parquet")
    put("b.tsv", "old")
    frame = read_table(tmp_path / "a.parquet").frame().drop(ROW_NUMBER)
    with pytest.raises(DataError) as raised:
        write_table(tmp_path / "b.tsv", frame)
    assert (raised.value.row, raised.value.key) == (3, "s")
    assert (tmp_path / "b.tsv").read_text() == "old"


@pytest.mark.parametrize("form", [*FORMS, "tsv.gz"])
def test_a_full_disk_leaves_the_old_table_whole(tmp_path, put, monkeypatch, form):
    path = put(f"a.{form}", b"old")
    before = path.read_bytes()

    class Full(io.FileIO):
        def write(self, data) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda self, mode: Full(self, mode.replace("b", "")))

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(Exception, match="the disk is full") as raised:
        write_table(path, pl.DataFrame({"s": ["new"] * 100_000}))
    monkeypatch.undo()
    assert raised.value.file == str(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
