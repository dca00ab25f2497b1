import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcli.api import QuietReporter
from kdcli.download.fetch import RATIO, is_archive, unpack
from kdcli.errors import DataError
from kdcli.files import MARKER

FILES = {"a.txt": b"one\ntwo\n", "deep/er/b.tsv": b"sentence\tlabel\n", "deep/empty": b""}


def zipped(path, files=FILES, **options):
    """Zip files, given as a mapping or as pairs of which two may have the same name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(
                name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED
            )
    return path


def tarred(path, files=FILES, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is not None:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content or b""))
    return path


def tarred_gz(path, files=FILES):
    return tarred(path, files, "w:gz")


ODD = ["C:\\evil", "c:evil", "\\evil", "a\\..\\..\\evil", "a\x1b[2Jb", "a\nb"]
FORMS = {"zip": zipped, "tar": tarred, "tar.gz": tarred_gz}
every_form = pytest.mark.parametrize("form", FORMS)


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MARKER]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(archive, folder, match):
    around = archive.parent
    before = sorted(around.rglob("*"))
    with pytest.raises(DataError, match=match) as raised:
        unpack(archive, folder)
    assert raised.value.file == str(archive) and raised.value.hint
    assert sorted(around.rglob("*")) == before


@every_form
def test_all_files_are_unpacked(form, tmp_path):
    archive = FORMS[form](tmp_path / "download")
    assert is_archive(archive)
    found = unpack(archive, tmp_path / "out")
    assert found == [tmp_path / "out" / name for name in FILES]
    assert contents(tmp_path / "out") == FILES


def test_gzip_alone_is_one_file(tmp_path):
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"one") + gzip.compress(b"two"))
    assert not is_archive(tmp_path / "b.txt.gz")
    assert unpack(tmp_path / "b.txt.gz", tmp_path / "out") == [tmp_path / "out" / "b.txt"]
    assert contents(tmp_path / "out") == {"b.txt": b"onetwo"}


@every_form
def test_one_file_alone(form, tmp_path):
    archive = FORMS[form](tmp_path / "download")
    assert unpack(archive, tmp_path / "out", only="b.tsv") == [tmp_path / "out" / "deep/er/b.tsv"]
    assert list(contents(tmp_path / "out")) == ["deep/er/b.tsv"]
    with pytest.raises(DataError, match=r"holds no c\.txt"):
        unpack(archive, tmp_path / "out2", only="c.txt")


@every_form
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "//host/share/evil", "a/..", *ODD])
def test_names_that_lead_out_of_the_folder(form, name, tmp_path):
    archive = FORMS[form](tmp_path / "x", {"first": b"1", name: b"evil"})
    refused(archive, tmp_path / "out", "leads out of its folder")


def test_a_zip_whose_name_hides_behind_a_nul(tmp_path):
    archive = zipped(tmp_path / "x", {"aaaaa": b"1"})
    archive.write_bytes(archive.read_bytes().replace(b"aaaaa", b"a\0../"))
    refused(archive, tmp_path / "out", "leads out of its folder|damaged")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc", "inside"])
def test_a_tar_with_links_or_devices(kind, target, tmp_path):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = kind, target
    archive = tarred(tmp_path / "x", [("inside", b"1"), (link, None), ("link/passwd", b"evil")])
    refused(archive, tmp_path / "out", "a link or a device: 'link'")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_zip_with_links_or_devices(kind, tmp_path):
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, (kind | 0o777) << 16
    refused(zipped(tmp_path / "x", {link: b"/etc"}), tmp_path / "out", "a link or a device: 'link'")


@every_form
@pytest.mark.parametrize("names", [("a", "a"), ("a/b", "a"), ("a", "a/b"), ("a", "./a")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_in_one_place(form, names, tmp_path):
    archive = FORMS[form](tmp_path / "x", [(name, b"1") for name in names])
    refused(archive, tmp_path / "out", "twice, or as a file and a folder")


def test_an_encrypted_zip(tmp_path):
    archive = zipped(tmp_path / "x", {"a": b"1"})
    data = bytearray(archive.read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + at] |= 1
    archive.write_bytes(data)
    refused(archive, tmp_path / "out", "encrypted")


@every_form
def test_a_bomb(form, tmp_path, monkeypatch):
    monkeypatch.setattr("kdcli.download.fetch.SLACK", 1000)
    archive = FORMS[form](tmp_path / "x", {"zeros": bytes(2_000_000)})
    if form == "tar":
        monkeypatch.setattr("kdcli.download.fetch.RATIO", 0.5)
    refused(archive, tmp_path / "out", "more bytes than")


def test_a_gzip_bomb_is_stopped_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("kdcli.download.fetch.SLACK", 1000)
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a" * 50_000_000))
    steps = []

    class Counting(QuietReporter):
        def advance(self, count=1, **shown):
            steps.append(count)

    with pytest.raises(DataError, match="more bytes than"):
        unpack(tmp_path / "x.gz", tmp_path / "out", reporter=Counting())
    assert sum(steps) <= RATIO * (tmp_path / "x.gz").stat().st_size + 1000 + (1 << 20)
    assert not (tmp_path / "out").exists()


def test_a_zip_that_lies_about_a_size(tmp_path):
    archive = zipped(tmp_path / "x", {"a": b"0123456789" * 100})
    data = archive.read_bytes()
    size = struct.pack("<I", 1000)
    lie = struct.pack("<I", 1)
    for magic, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        where = data.index(magic) + at
        assert data[where : where + 4] == size
        data = data[:where] + lie + data[where + 4 :]
    archive.write_bytes(data)
    refused(archive, tmp_path / "out", "damaged|more bytes")


@every_form
def test_an_archive_that_is_cut(form, tmp_path):
    archive = FORMS[form](tmp_path / "x", {"a": os.urandom(5000), "b": os.urandom(5000)})
    data = archive.read_bytes()
    for length in (len(data) // 2, 700):
        archive.write_bytes(data[:length])
        refused(archive, tmp_path / "out", "truncated or damaged|not a zip")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "a web page, not an archive"),
        (b"\n <HTML>", "a web page, not an archive"),
        (b"one\ntwo\n", "not a zip, tar or gz"),
        (b"", "not a zip, tar or gz"),
        (b"7z\xbc\xaf'\x1c", "not a zip, tar or gz"),
    ],
)
def test_no_archive(data, says, tmp_path):
    (tmp_path / "x").write_bytes(data)
    assert not is_archive(tmp_path / "x")
    refused(tmp_path / "x", tmp_path / "out", says)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@given(st.sampled_from(list(FORMS)), st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8))
def test_damage_of_any_kind_is_an_error_of_ours_or_none(folder, form, damage):
    archive = FORMS[form](folder / f"x.{form}")
    data = bytearray(archive.read_bytes())
    for place, byte in damage:
        data[place % len(data)] = byte
    archive.write_bytes(data)
    try:
        found = unpack(archive, folder / "out")
    except DataError:
        return
    assert all(path.resolve().is_relative_to((folder / "out").resolve()) and path.is_file() for path in found)
