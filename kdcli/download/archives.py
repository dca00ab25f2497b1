"""Archives from elsewhere, unpacked by the standard library's safe filters."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import DataError
from kdcli.files import atomic

RATIO = 100
"""An archive that unpacks to more than so many times its size is a bomb: texts shrink to a tenth or so."""
SLACK = 1 << 24
"""Bytes that even a small archive may unpack to."""
_AGAIN = "remove it, and get it again"
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)


class BadArchive(DataError):
    """An archive that is damaged, or not what it claims to be."""


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip or a tar, by its bytes."""
    return _is_zip(path) or tarfile.is_tarfile(path)


def unpack(archive: Path, folder: Path, *, only: str = "", reporter: Reporter | None = None) -> list[Path]:
    """Unpack an archive into a folder, which appears when all is there.

    Args:
        archive: A zip, tar, tar.gz or gz, by its bytes.
        folder: The folder to write; one that is there is replaced.
        only: Unpack the file of this name alone, in whatever folder of the archive it is.
        reporter: Shows the progress.

    Returns:
        The files, in the archive's order, as paths in ``folder``.

    Raises:
        BadArchive: The archive is damaged, encrypted or of another form, holds a name outside the folder, a link or a
            device, unpacks to an absurd size, or lacks ``only``.
        KdError: The disk is full.
    """
    reporter = reporter or QuietReporter()
    with _readable(archive), atomic(folder) as temporary:
        temporary.mkdir()
        with reporter.progress(f"unpacking {archive.name}", unit="bytes") as progress:
            names: list[Path] = []
            for name in _extract(archive, temporary, only):
                names.append(Path(name))
                progress.advance((temporary / name).stat().st_size)
        if not names:
            raise BadArchive(f"the archive holds no {only or 'files'}", file=archive, hint=_AGAIN)
        return [folder / name for name in names]


def _extract(archive: Path, folder: Path, only: str) -> Iterator[Path]:
    if _is_zip(archive):
        return _extract_zip(archive, folder, only)
    if tarfile.is_tarfile(archive):
        return _extract_tar(archive, folder, only)
    with archive.open("rb") as stream:
        begin = stream.read(64)
    if begin.startswith(b"\x1f\x8b"):
        return _extract_gz(archive, folder, only)
    page = begin.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
    what = "a web page, not an archive" if page else f"not a zip, tar or gz: it begins with {begin[:8]!r}"
    raise BadArchive(f"the file is {what}", file=archive, hint="remove it, and check its address")


def _extract_zip(archive: Path, folder: Path, only: str) -> Iterator[Path]:
    with zipfile.ZipFile(archive) as file:
        wanted = [info for info in file.infolist() if not info.is_dir() and _wants(only, info.filename)]
        _check_size(archive, sum(info.file_size for info in wanted))
        for info in wanted:
            path = PureWindowsPath(info.orig_filename)  # knows both kinds of slash, and drives
            if path.anchor or ".." in path.parts:
                raise _unsafe(f"a name outside its folder: {info.orig_filename!r}", archive)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise _unsafe(f"a link or a device: {info.filename!r}", archive)
            if info.flag_bits & 1:
                raise BadArchive("the archive is encrypted", file=archive, hint="unpack it by hand")
            yield Path(file.extract(info, folder)).relative_to(folder)


def _extract_tar(archive: Path, folder: Path, only: str) -> Iterator[Path]:
    size = 0
    with tarfile.open(archive) as file:
        for info in file:
            if info.isdir() or not _wants(only, info.name):
                continue
            if not info.isreg():
                raise _unsafe(f"a link or a device: {info.name!r}", archive)
            size += info.size
            _check_size(archive, size)
            try:
                file.extract(info, folder, filter="data")
            except tarfile.FilterError as error:
                raise _unsafe(str(error), archive) from None
            yield Path(info.name.lstrip("/"))


def _extract_gz(archive: Path, folder: Path, only: str) -> Iterator[Path]:
    # The name in the header may be anything; the archive's own is harmless.
    path = folder / (archive.stem if archive.suffix.lower() == ".gz" else archive.name)
    if not _wants(only, path.name):
        return
    with gzip.open(archive) as source, path.open("wb") as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)
            _check_size(archive, target.tell())
    yield path.relative_to(folder)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _wants(only: str, name: str) -> bool:
    return only in ("", PureWindowsPath(name).name)


def _check_size(archive: Path, size: int) -> None:
    most = SLACK + RATIO * archive.stat().st_size
    if size > most:
        raise _unsafe(f"more than {most:,} bytes, which is absurd for its size", archive)


def _unsafe(what: str, archive: Path) -> BadArchive:
    return BadArchive(f"the archive holds {what}", file=archive, hint="it may be malicious: remove it")


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BadArchive("the archive does not exist", file=archive) from error
    except _DAMAGE as error:
        raise BadArchive(f"the archive is truncated or damaged: {error}", file=archive, hint=_AGAIN) from error
