"""What is in a zip, tar, tar.gz or gz, told by its bytes, and as little as possible believed of it."""

from __future__ import annotations

import errno
import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal, cast

from kdcli.errors import DataError

RATIO = 100
"""What unpacks to more than so many times its size is a bomb: texts and word vectors shrink to a tenth or so."""
SLACK = 1 << 24
"""Bytes that even a small archive may unpack to."""
LARGEST = 1 << 36
"""Bytes that no archive may unpack to."""
MEMBERS = 10_000
"""Files that no archive may hold."""
AGAIN = "get it again"
_LONGEST_READ = 1 << 24
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, ValueError, RuntimeError, LookupError),
)

Form = Literal["zip", "tar", "gz"]


class BadArchive(DataError):
    """An archive that is damaged, or not what it pretends to be."""


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive.

    Attributes:
        name: Its name, which may be anything.
        size: Its bytes, as the archive says; None where it says nothing.
        open: Opens it for reading; None for a folder.
    """

    name: str
    size: int | None
    open: Callable[[], IO[bytes]] | None


class Budget:
    """The bytes that may still come out of an archive."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.most = self.left = min(LARGEST, SLACK + RATIO * archive.stat().st_size)

    def spend(self, count: int) -> None:
        """Count bytes that have come out.

        Raises:
            BadArchive: They are too many.
        """
        self.left -= count
        if self.left < 0:
            raise self.absurd()

    def absurd(self) -> BadArchive:
        """Return the error for an archive that would come out too large."""
        what = f"the archive unpacks to more than {self.most:,} bytes, which is absurd for its size"
        return BadArchive(what, file=self.archive, hint="it is not what it pretends to be: remove it")


def form_of_archive(path: Path) -> Form | None:
    """Tell the form of an archive; a gzipped tar is a tar. None if it is none of these.

    Raises:
        BadArchive: There is no such file, or its beginning is damaged.
    """
    with readable(path):
        with path.open("rb") as stream:
            magic = stream.read(4)
        if magic in (b"PK\x03\x04", b"PK\x05\x06"):
            return "zip"
        with _opened(path) as plain:
            if plain.read(262)[257:] == b"ustar":
                return "tar"
        return "gz" if magic[:2] == b"\x1f\x8b" else None


def members(archive: Path) -> Iterator[Member]:
    """Go through an archive; each file is to be read before the next is asked for.

    Raises:
        BadArchive: It has another form, is encrypted, or holds a link, a device or too many files.
    """
    form = form_of_archive(archive)
    if form is None:
        raise _no_archive(archive)
    for number, member in enumerate(_FORMS[form](archive), 1):
        if number > MEMBERS:
            raise BadArchive(f"the archive holds more than {MEMBERS:,} files", file=archive, hint="unpack it by hand")
        yield member


@contextmanager
def readable(archive: Path) -> Iterator[None]:
    """Turn what the libraries raise on a broken archive into an error that says so.

    Raises:
        BadArchive: It is missing or damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        if archive.exists():
            raise
        raise BadArchive("there is no such file", file=archive) from error
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the beginning of the file
            raise
        raise _damaged(archive, error) from error


def _zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _special(info.filename, archive)
            if info.flag_bits & 1:
                raise BadArchive(f"the archive is encrypted: {info.filename}", file=archive, hint="unpack it by hand")
            # The name as it stands there, before the library has made it harmless.
            yield Member(info.orig_filename, info.file_size, None if info.is_dir() else partial(file.open, info))


def _tar(archive: Path) -> Iterator[Member]:
    with _opened(archive) as plain:
        watched = cast(IO[bytes], _Watched(plain, Budget(archive)))
        with tarfile.open(fileobj=watched, mode="r:") as file:
            for info in file:
                if not info.isreg() and not info.isdir():
                    raise _special(info.name, archive)
                yield Member(info.name, info.size, None if info.isdir() else partial(_of_tar, file, info))


def _of_tar(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], file.extractfile(info))


def _gz(archive: Path) -> Iterator[Member]:
    # The name in the header is anybody's; the archive's own is known to be harmless.
    name = archive.stem if archive.suffix.lower() == ".gz" else archive.name
    yield Member(name, None, lambda: cast(IO[bytes], gzip.GzipFile(archive)))


_FORMS: dict[Form, Callable[[Path], Iterator[Member]]] = {"zip": _zip, "tar": _tar, "gz": _gz}


class _Watched:
    """The bytes of a tar on their way to ``tarfile``, which believes every length that a header announces."""

    def __init__(self, plain: IO[bytes], budget: Budget) -> None:
        self.plain = plain
        self.budget = budget
        self.tell = plain.tell

    def read(self, size: int) -> bytes:
        if size > _LONGEST_READ:
            raise self.budget.absurd()
        return self.plain.read(size)

    def seek(self, place: int) -> int:
        if place > self.budget.most:
            raise self.budget.absurd()
        return self.plain.seek(place)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
    with gzip.GzipFile(path) if gzipped else path.open("rb") as plain:
        yield cast(IO[bytes], plain)


def _special(name: str, archive: Path) -> BadArchive:
    what = f"the archive holds a link or a device: {name!r}"
    return BadArchive(what, file=archive, hint="only files and folders are unpacked: remove it")


def _no_archive(path: Path) -> BadArchive:
    with path.open("rb") as stream:
        begin = stream.read(64)
    page = begin.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
    what = "a web page, and no archive" if page else f"no zip, tar or gz: it begins with {begin[:8]!r}"
    return BadArchive(f"this is {what}", file=path, hint="remove it, and check the address that it came from")


def _damaged(archive: Path, error: Exception) -> BadArchive:
    return BadArchive(f"the archive is cut short or damaged: {error}", file=archive, hint=AGAIN)
