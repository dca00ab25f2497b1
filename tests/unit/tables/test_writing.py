import errno
import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from raising import raising
from xxhash import xxh3_64

from kdcli import files
from kdcli.errors import DataError, KdError, UsageError
from kdcli.files import MARKER, atomic, check_output, sha256
from kdcli.tables import write
from kdcli.tables.read import read_table
from kdcli.tables.text_hash import text_hash, text_hash_v1
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
        with raising(DataError, row=wrong[0], hint=".parquet"):
            write_table(path, frame)
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


def test_how_numbers_objects_and_nulls_are_written(tmp_path, rows):
    thirds = pl.Series([0.1, 2.0, 1 / 3], dtype=pl.Float32)
    write_table(tmp_path / "a.tsv", pl.DataFrame({"x": thirds, "n": [1, None, 3], "b": [True, False, None]}))
    assert (tmp_path / "a.tsv").read_text() == "x\tn\tb\n0.1\t1\ttrue\n2.0\t\tfalse\n0.33333334\t3\t\n"
    write_table(tmp_path / "a.jsonl", pl.DataFrame({"s": ["é\n", None], "n": [1, 2]}))
    lines = (tmp_path / "a.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [{"s": "é\n", "n": 1}, {"s": None, "n": 2}]
    for form, null in (("tsv", ""), ("csv", ""), ("jsonl", None), ("parquet", None)):
        write_table(tmp_path / f"b.{form}", pl.DataFrame({"s": ["x", None], "label": [None, "1"]}))
        assert rows(tmp_path / f"b.{form}") == [("x", null), (null, "1")]


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
        with raising(DataError, hint=".parquet"):
            write_table(tmp_path / "a.tsv", table)
    assert not list(tmp_path.iterdir())


pairs = st.lists(st.tuples(st.text(), st.text()), max_size=20)


def by_definition(*fields):
    value = 0
    for field in fields:
        value = xxh3_64(field.encode(), seed=value).intdigest()
    return value


def by_definition_v1(*fields):
    message = b"".join(len(field.encode()).to_bytes(8, "little") + field.encode() for field in fields)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")


@pytest.mark.parametrize(("hash_rows", "expected"), [(text_hash, by_definition), (text_hash_v1, by_definition_v1)])
@given(rows=pairs)
def test_hashes_follow_the_definition(hash_rows, expected, rows):
    columns = [pl.Series(column, dtype=pl.String) for column in zip(*rows, strict=True)]
    columns = columns or [pl.Series([], dtype=pl.String)] * 2
    hashes = hash_rows(columns)
    assert hashes.dtype == np.uint64
    np.testing.assert_array_equal(hashes, np.array([expected(*row) for row in rows], np.uint64))
    np.testing.assert_array_equal(hash_rows(columns[:1]), np.array([expected(row[0]) for row in rows], np.uint64))


def test_a_known_hash():
    """The empty text's XXH3-64 and the digest of an earlier release, which stored files hold."""
    assert text_hash([pl.Series([""])]).tolist() == [0x2D06800538D394C2]
    assert text_hash_v1([pl.Series(["a"]), pl.Series(["bc"])]).tolist() == [16576754464128796102]
    with pytest.raises(ValueError, match="null"):
        text_hash([pl.Series(["a", None])])


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def write_folder(path, *names):
    with atomic(path) as temporary:
        temporary.mkdir()
        for name in names:
            (temporary / name).write_text(name)


def test_a_folder_with_a_file_of_someone_else_is_not_replaced(tmp_path):
    path = tmp_path / "student"
    write_folder(path, "model", "config")
    before = sha256(path)
    write_folder(path, "model")
    assert listing(path) == [MARKER, "model"]
    (path / "deep").mkdir()
    (path / "deep" / "notes").write_text("mine")
    for force in (False, True):
        with pytest.raises(DataError):
            check_output(path, force=force)
    for work in (lambda: write_folder(path, "model"), lambda: check_output(path, ours=True)):
        with raising(DataError, file=path / "deep" / "notes"):
            work()
    assert (path / "deep" / "notes").read_text() == "mine"
    assert listing(tmp_path) == ["student"]
    (path / "deep" / "notes").unlink()
    write_folder(path, "config", "model")
    assert sha256(path) == before, "the list of files is no part of the content"


@pytest.mark.parametrize("ours", [False, True])
def test_a_folder_without_the_list_of_its_files_is_someone_elses(tmp_path, ours):
    (tmp_path / "photos").mkdir()
    check_output(tmp_path / "photos", force=True)
    (tmp_path / "photos" / "one.jpg").write_text("dear")
    with pytest.raises(DataError, match=r"one\.jpg"):
        check_output(tmp_path / "photos", force=True, ours=ours)


def test_a_file_takes_no_folders_place_and_no_folder_a_files(tmp_path):
    write_folder(tmp_path / "student", "model")
    with pytest.raises(DataError, match="this is a folder"), atomic(tmp_path / "student") as temporary:
        temporary.write_text("predictions")
    (tmp_path / "table").write_text("mine")
    with pytest.raises(DataError, match="this is a file"):
        write_folder(tmp_path / "table", "model")
    assert (listing(tmp_path / "student"), (tmp_path / "table").read_text()) == ([MARKER, "model"], "mine")
    assert listing(tmp_path) == ["student", "table"]


@pytest.mark.parametrize("output", ["data/train.tsv", "data", ".", "data/train.tsv/x", "link", "link/train.tsv"])
def test_an_output_is_no_input_and_neither_holds_the_other(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/train.tsv").write_text("texts")
    Path("link").symlink_to("data")
    with pytest.raises(UsageError):
        check_output(Path(output), [tmp_path / "data" / "train.tsv"], force=True)
    check_output(Path("data/dev.tsv"), [Path("data/train.tsv")])
    assert Path("data/train.tsv").read_text() == "texts"


def test_a_file_takes_its_place_when_the_block_ends_and_what_stood_there_stays_when_it_fails(tmp_path):
    path = tmp_path / "new" / "table.tsv.gz"
    with atomic(path) as temporary:
        assert temporary.parent == path.parent and temporary.name.endswith(".tsv.gz")
        temporary.write_text("whole")
        assert not path.exists()
    with pytest.raises(RuntimeError, match="by the block"), atomic(path) as temporary:
        assert path.read_text() == "whole"
        temporary.write_text("half")
        raise RuntimeError("by the block")
    assert path.read_text() == "whole"
    assert listing(path.parent) == ["table.tsv.gz"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_and_the_old_file_is_whole(tmp_path, monkeypatch, number):
    path = tmp_path / "table.tsv"
    path.write_text("old")

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", full)
    failed = raising(KdError, file=path, exit_code=1, what="the disk is full", hint="free some space")
    with failed, atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["table.tsv"]


def test_what_dead_processes_of_this_host_left_is_removed(tmp_path):
    host = files.temporary_path(tmp_path / "x").name.removesuffix(f"-{os.getpid()}.x")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f"{host}-{dead.pid}.table.tsv").touch()
    (tmp_path / f"{host}-{dead.pid}.student").mkdir()
    kept = [f"{host}-{os.getppid()}.table.tsv", f".kd-elsewhere-{dead.pid}.table.tsv", ".hidden"]
    for name in kept:
        (tmp_path / name).touch()
    with atomic(tmp_path / "new") as temporary:
        temporary.touch()
    assert listing(tmp_path) == sorted([*kept, "new"])


def test_a_place_that_may_not_be_written(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(KdError, match="cannot write here: Permission denied"), atomic(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert listing(tmp_path) == []


def test_the_hash_of_a_folder_tells_names_and_contents_apart(tmp_path):
    folders = [tmp_path / name for name in "1234"]
    for folder, name, content in zip(folders, "abaa", "xxyx", strict=True):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / name).write_text(content)
    first, second, third, again = map(sha256, folders)
    assert first == again and len({first, second, third}) == 3


KILLED = """
import os, signal
from pathlib import Path
from kdcli import files
rename = os.replace
def replace(source, target):
    rename(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
files.os.replace = replace
with files.atomic(Path("student")) as temporary:
    temporary.mkdir()
    (temporary / "new").touch()
"""


def test_a_folder_survives_a_kill_between_the_two_renames(tmp_path):
    write_folder(tmp_path / "student", "old")
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path)
    assert not (tmp_path / "student").exists()
    with atomic(tmp_path / "table.tsv") as temporary:
        temporary.touch()
    assert listing(tmp_path) == ["student", "table.tsv"]
    assert listing(tmp_path / "student") == [MARKER, "old"]
