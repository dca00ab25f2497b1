import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from raising import raising

from kdcli import files
from kdcli.errors import DataError, KdError, UsageError
from kdcli.files import MARKER, atomic, check_output, sha256


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


def test_a_file_takes_its_place_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "table.tsv.gz"
    with atomic(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".tsv.gz")
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert listing(path.parent) == ["table.tsv.gz"]


def test_a_folder_replaces_a_folder(tmp_path):
    path = tmp_path / "student"
    write_folder(path, "old")
    with atomic(path) as temporary:
        (temporary / "deep").mkdir(parents=True)
        (temporary / "deep" / "new").write_text("new")
    assert listing(path) == [MARKER, "deep"]
    assert (path / "deep" / "new").read_text() == "new"
    assert listing(tmp_path) == ["student"]


def test_what_stood_there_stays_when_the_block_fails(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="by the block"), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("by the block")
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["table.tsv"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_and_the_old_file_is_whole(tmp_path, monkeypatch, number):
    path = tmp_path / "table.tsv"
    path.write_text("old")

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", full)
    with (
        raising(KdError, file=path, exit_code=1, what="the disk is full", hint="free some space"),
        atomic(path) as temporary,
    ):
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
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    for folder, name, content in ((first, "a", "x"), (second, "b", "x"), (third, "a", "y")):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / name).write_text(content)
    again = tmp_path / "again"
    (again / "deep").mkdir(parents=True)
    (again / "deep" / "a").write_text("x")
    assert sha256(first) == sha256(again)
    assert len({sha256(first), sha256(second), sha256(third)}) == 3


def test_a_file_is_as_readable_as_any_other(tmp_path):
    with atomic(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("x")
        (temporary / "weights").chmod(0o600)
    (tmp_path / "other").write_text("x")
    assert (tmp_path / "folder" / "weights").stat().st_mode == (tmp_path / "other").stat().st_mode


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
