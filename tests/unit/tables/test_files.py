"""Whole files or none."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdcli import files
from kdcli.errors import KdError
from kdcli.files import atomic, sha256


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
    path.mkdir()
    (path / "old").write_text("old")
    with atomic(path) as temporary:
        (temporary / "deep").mkdir(parents=True)
        (temporary / "deep" / "new").write_text("new")
    assert listing(path) == ["deep"]
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

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(KdError) as raised, atomic(path) as temporary:
        temporary.write_text("new")
    assert raised.value.what == "the disk is full"
    assert raised.value.file == str(path)
    assert "free some space" in str(raised.value.hint)
    assert raised.value.exit_code == 1
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
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(KdError, match="cannot write here: Permission denied"), atomic(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert listing(tmp_path) == []


def test_the_hash_of_a_file_is_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256(path) == hashlib.sha256(b"abc").hexdigest()


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
