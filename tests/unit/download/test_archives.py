import io
import os
import stat
import tarfile
import zipfile

import pytest
from raising import raising

from kdcli.download.fetch import is_archive, unpack
from kdcli.errors import DataError

FILES = {"a.txt": b"one\ntwo\n", "deep/empty": b"", "deep/er/b.tsv": b"sentence\tlabel\n"}


def zipped(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path, files=FILES, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tarred_gz(path, files=FILES):
    return tarred(path, files, "w:gz")


FORMS = {"zip": zipped, "tar": tarred, "tar.gz": tarred_gz}
every_form = pytest.mark.parametrize("form", FORMS)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@every_form
def test_all_files_are_unpacked(form, tmp_path):
    archive = FORMS[form](tmp_path / "download")
    assert is_archive(archive)
    assert unpack(archive, tmp_path / "out") == [tmp_path / "out" / name for name in FILES]
    assert contents(tmp_path / "out") == FILES


@every_form
def test_one_file_alone(form, tmp_path):
    archive = FORMS[form](tmp_path / "download")
    assert unpack(archive, tmp_path / "out", only="b.tsv") == [tmp_path / "out" / "deep/er/b.tsv"]
    assert list(contents(tmp_path / "out")) == ["deep/er/b.tsv"]
    with pytest.raises(DataError, match=r"holds no c\.txt"):
        unpack(archive, tmp_path / "out2", only="c.txt")


@every_form
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil"])
def test_nothing_leaves_the_folder(form, name, tmp_path):
    archive = FORMS[form](tmp_path / "x", {"first": b"1", name: b"evil"})
    try:
        found = unpack(archive, tmp_path / "in" / "out")
    except DataError:  # of a tar
        found = []
    assert all(path.is_relative_to(tmp_path / "in" / "out") for path in found)
    assert {path.name for path in tmp_path.iterdir()} <= {"x", "in"}


def test_links_and_devices(tmp_path):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with pytest.raises(DataError):
        unpack(tarred(tmp_path / "tar", {link: b""}), tmp_path / "out")
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    (found,) = unpack(zipped(tmp_path / "zip", {link: b"/etc"}), tmp_path / "out2")
    assert not found.is_symlink()


@every_form
def test_an_archive_that_is_cut_or_is_none(form, tmp_path):
    archive = FORMS[form](tmp_path / "x", {"a": os.urandom(5000), "b": os.urandom(5000)})
    data = archive.read_bytes()
    for content in (data[: len(data) // 2], data[:700], b"<!DOCTYPE html><title>Sign in</title>", b""):
        archive.write_bytes(content)
        with raising(DataError, file=archive, hint=True):
            unpack(archive, tmp_path / "out")
