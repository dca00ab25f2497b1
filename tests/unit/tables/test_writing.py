"""Writing tables: what is read back, what is refused, and what a full disk leaves."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kdcli.errors import DataError
from kdcli.tables.read import read_table, write_table

FORMS = ["tsv", "csv", "jsonl", "parquet"]
slow_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


texts = st.text(st.sampled_from(["a", " ", "\t", "\n", "\r", '"', ",", "é", "\u2028", "\x85", "\ufeff", "\x00"]))


@slow_files
@given(table=st.lists(st.tuples(texts, texts), max_size=5), form=st.sampled_from(FORMS), zipped=st.booleans())
def test_what_is_written_is_read_back_or_refused(tmp_path, rows, table, form, zipped):
    path = tmp_path / f"a.{form}{'.gz' * zipped}"
    path.unlink(missing_ok=True)
    schema = pa.schema([("s", pa.string()), ("t", pa.string())])
    wrong = [row for row, (s, t) in enumerate(table, 2) if set("\t\n") & set(s + t) or t.endswith("\r")]
    rows_in = [dict(zip(schema.names, row, strict=True)) for row in table]
    if form == "tsv" and wrong:
        with pytest.raises(DataError, match="no place in this form") as raised, write_table(path, schema) as writer:
            writer.write(pa.Table.from_pylist(rows_in, schema))
        assert raised.value.row == wrong[0]
        assert ".parquet" in str(raised.value.hint)
        assert not path.exists()
        return
    with write_table(path, schema) as writer:
        for row in rows_in:
            writer.write(pa.RecordBatch.from_pylist([row], schema))
    assert writer.rows == len(table)
    if form == "jsonl" and not table:
        assert gzip.decompress(path.read_bytes()) == b"" if zipped else path.read_bytes() == b""
    else:
        assert rows(path) == table


@slow_files
@example(lines=["\ufeff first", "\ufeff second"])
@given(lines=st.lists(texts, min_size=1, max_size=5))
def test_plain_lines_are_read_back_or_refused(tmp_path, rows, lines):
    path, table = tmp_path / "a.txt", pa.table({"sentence": lines})
    if any("\n" in line or line.endswith("\r") for line in lines):
        with pytest.raises(DataError, match="no place"), write_table(path, table.schema) as writer:
            writer.write(table)
    else:
        with write_table(path, table.schema) as writer:
            writer.write(table)
        assert rows(path) == [(line,) for line in lines]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floats_read_back_as_the_same_number(tmp_path, form, kind):
    bits = np.random.default_rng(0).integers(0, 2 ** (8 * kind().nbytes), 5000, np.uint64)
    values = bits.astype(f"u{kind().nbytes}").view(kind)
    values = np.concatenate([values[np.isfinite(values)], kind([0.1, 1 / 3, -0.0, 1e-7, 16777216])])
    table = pa.table({"x": pa.array(values)})
    with write_table(tmp_path / f"a.{form}", table.schema) as writer:
        writer.write(table)
    found = read_table(tmp_path / f"a.{form}").table()["x"].cast(table.schema.field("x").type)
    assert found.to_numpy().tobytes() == values.tobytes()


def test_floats_in_a_tsv_are_short(tmp_path):
    table = pa.table({"x": pa.array([0.1, 2.0, 1 / 3], pa.float32()), "n": [1, None, 3], "b": [True, False, None]})
    with write_table(tmp_path / "a.tsv", table.schema) as writer:
        writer.write(table)
    assert (tmp_path / "a.tsv").read_text() == "x\tn\tb\n0.1\t1\ttrue\n2\t\tfalse\n0.33333334\t3\t\n"


@pytest.mark.parametrize(("form", "expected"), [("tsv", ""), ("csv", ""), ("jsonl", None), ("parquet", None)])
def test_a_null_is_an_empty_field_or_a_null(tmp_path, rows, form, expected):
    table = pa.table({"s": ["x", None], "label": pa.array([None, "1"])})
    with write_table(tmp_path / f"a.{form}", table.schema) as writer:
        writer.write(table)
    assert rows(tmp_path / f"a.{form}") == [("x", expected), (expected, "1")]


@pytest.mark.parametrize("form", ["tsv.gz", "csv.gz", "jsonl.gz", "parquet", "parquet.gz"])
def test_the_same_rows_give_the_same_bytes_under_any_name(tmp_path, form):
    table = pa.table({"s": ["x", "y"]})
    for name in (f"a.{form}", f"other.{form}"):
        with write_table(tmp_path / name, table.schema) as writer:
            writer.write(table)
    written = (tmp_path / f"a.{form}").read_bytes()
    assert written == (tmp_path / f"other.{form}").read_bytes()
    assert written[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00" or not form.endswith("gz"), "no name and no time"


def test_columns_are_written_by_name(tmp_path):
    with write_table(tmp_path / "a.jsonl", pa.schema([("s", pa.string()), ("n", pa.int64())])) as writer:
        writer.write(
            pa.table({"n": pa.array([1], pa.int8()), "extra": [None], "s": pa.array(["x"], pa.large_string())})
        )
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"s": "x", "n": 1}


def test_small_pieces_make_large_row_groups_of_parquet(tmp_path, rows):
    with write_table(tmp_path / "a.parquet", pa.schema([("s", pa.string())])) as writer:
        for number in range(1000):
            writer.write(pa.record_batch({"s": [str(number)]}))
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 1
    assert rows(tmp_path / "a.parquet") == [(str(number),) for number in range(1000)]


def test_a_tab_from_a_parquet_text_names_its_row_in_the_tsv(tmp_path, put):
    pq.write_table(pa.table({"s": ["fine", "a\ttab"], "l": ["1", "0"]}), tmp_path / "a.parquet")
    reader = read_table(tmp_path / "a.parquet", batch_rows=1)
    put("b.tsv", "old")
    with (
        pytest.raises(DataError, match="a text with a tab") as raised,
        write_table(tmp_path / "b.tsv", reader.schema) as writer,
    ):
        for batch in reader:
            writer.write(batch)
    assert raised.value.row == 3
    assert (tmp_path / "b.tsv").read_text() == "old"


def test_several_columns_do_not_fit_plain_lines(tmp_path):
    with (
        pytest.raises(DataError, match="one column"),
        write_table(tmp_path / "a.txt", pa.schema([("s", pa.string()), ("l", pa.string())])),
    ):
        pass
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.parametrize("form", [*FORMS, "tsv.gz", "parquet.gz"])
def test_a_full_disk_leaves_the_old_table_whole(tmp_path, put, monkeypatch, form):
    path = put(f"a.{form}", b"old")
    before = path.read_bytes()

    class Full(io.FileIO):
        def write(self, data) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda self, mode: Full(self, mode.replace("b", "")))
    with pytest.raises(Exception, match="the disk is full") as raised:  # noqa: SIM117
        with write_table(path, pa.schema([("s", pa.string())])) as writer:
            writer.write(pa.table({"s": ["new"] * 100_000}))
    monkeypatch.undo()
    assert raised.value.file == str(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
