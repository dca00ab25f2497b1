"""One file from the network, by ``pooch``, whole and checked or not there at all; and an archive, unpacked.

Of an archive come nothing but files, and nothing outside the folder.
"""

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
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO, cast

import pooch
import requests

from kdcli import __version__
from kdcli.api import Progress, QuietReporter, Reporter
from kdcli.errors import DataError, KdError, MissingError, UsageError
from kdcli.files import alone, atomic, sha256

_CHUNK = 1 << 18
# Without compression on the way, sizes are those of the file.
_HEADERS = {"User-Agent": f"kd/{__version__}", "Accept-Encoding": "identity"}

RATIO = 100
"""An archive that unpacks to more than so many times its size is a bomb: texts shrink to a tenth or so."""
SLACK = 1 << 24
"""Bytes that even a small archive may unpack to."""
_AGAIN = "remove it, and get it again"
_BLOCK = 1 << 20
_NO_PLACE = (FileExistsError, NotADirectoryError, IsADirectoryError)
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, ValueError, RuntimeError, LookupError),
)


def fetch(
    url: str,
    output: Path,
    *,
    digest: str | None = None,
    size: int | None = None,
    by_hand: Path | None = None,
    reporter: Reporter | None = None,
) -> None:
    """Download a file; proxies are taken from the environment.

    The file must have the SHA-256 ``digest`` (hex digits), where it is known. ``by_hand`` is where a user may put the
    file instead, ``output`` by default.

    Raises:
        MissingError: The server cannot be reached, or does not give the file.
        DataError: The file does not have the SHA-256 that it must have.
        KdError: The connection breaks off, or the disk is full.
        UsageError: The address is not an HTTP one.
    """
    output = output.absolute()
    elsewhere = f"name another address with --url, or fetch the file elsewhere and put it at {by_hand or output}"
    try:
        with alone(output, "another kd downloads this file now"), atomic(output) as temporary:
            with (reporter or QuietReporter()).progress(output.name, size, "bytes") as progress:
                pooch.HTTPDownloader(_Bar(progress), _CHUNK, timeout=60, headers=_HEADERS)(url, temporary, None)
            if digest and sha256(temporary) != digest.lower():
                what = f"the file is not the expected one: its SHA-256 is not {digest}"
                hint = "it was damaged on its way, or has changed: run it again, or name another address with --url"
                raise DataError(what, file=url, hint=hint)
    except requests.HTTPError as error:
        what = f"the server does not give the file: {str(error).partition(' for url')[0]}"
        raise MissingError(what, file=url, hint=elsewhere) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise KdError("the connection broke off", file=url, hint=f"run it again; {elsewhere}") from error
    except requests.RequestException as error:
        if isinstance(error, ValueError):  # this is how requests marks a wrong address
            raise UsageError("not the address of a file", file=url, hint="start it with https://") from error
        hint = f"check the network and HTTPS_PROXY, {elsewhere}"
        raise MissingError(f"the server cannot be reached: {_reason(error)}", file=url, hint=hint) from error


class _Bar:
    """A progress in the form that ``pooch`` takes; after ``reset`` it would count all bytes once more."""

    total = 0

    def __init__(self, progress: Progress) -> None:
        self.update: Callable[[int], None] = progress.advance

    def reset(self) -> None:
        self.update = lambda count: None

    def close(self) -> None:
        """Do nothing: the progress closes itself."""


def _reason(error: requests.RequestException) -> str:
    reason = getattr(error.args[0] if error.args else None, "reason", None) or error
    return str(reason).rpartition(": ")[2].rstrip(".") or type(reason).__name__


class BadArchive(DataError):
    """An archive that is damaged, or not what it claims to be."""


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip or a tar, by its bytes."""
    return _is_zip(path) or tarfile.is_tarfile(path)


def unpack(archive: Path, folder: Path, *, only: str = "", reporter: Reporter | None = None) -> list[Path]:
    """Unpack a zip, tar, tar.gz or gz into a folder, which appears when all is there.

    ``only``: unpack the file of this name alone, in whatever folder of the archive it is.

    Returns:
        The files, in the archive's order, as paths in ``folder``.

    Raises:
        BadArchive: The archive is damaged, encrypted or of another form, holds a name outside the folder, a link or a
            device, unpacks to an absurd size, or lacks ``only``.
        KdError: The disk is full.
    """
    reporter = reporter or QuietReporter()
    found: list[Path] = []
    others: list[str] = []
    most = SLACK + RATIO * archive.stat().st_size if archive.is_file() else 0
    with (
        _readable(archive),
        atomic(folder) as temporary,
        reporter.progress(f"unpacking {archive.name}", unit="bytes") as progress,
    ):
        temporary.mkdir()
        for name, open_member in _members(archive):
            path = PureWindowsPath(name)  # knows both kinds of slash, and drives
            if path.anchor or ".." in path.parts or not name.isprintable():
                raise _unsafe(f"a name that leads out of its folder: {name!r}", archive)
            if only not in ("", path.name):
                others.append(name)
                continue
            target = temporary.joinpath(*path.parts)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with open_member() as source, target.open("xb") as sink:
                    while chunk := source.read(_BLOCK):
                        most -= sink.write(chunk)
                        progress.advance(len(chunk))
                        if most < 0:
                            raise _unsafe("more bytes than its size allows", archive)
            except _NO_PLACE as error:
                raise _unsafe(f"{name!r} twice, or as a file and a folder", archive) from error
            found.append(folder.joinpath(*path.parts))
        if not found:
            hint = f"it holds {', '.join(others[:10])}" if others else _AGAIN
            raise BadArchive(f"the archive holds no {only or 'files'}", file=archive, hint=hint)
    return found


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Yield the name of each file in an archive, and what opens it."""
    if _is_zip(archive):
        return _zip_members(archive)
    if tarfile.is_tarfile(archive):
        return _tar_members(archive)
    with archive.open("rb") as stream:
        begin = stream.read(64)
    if begin.startswith(b"\x1f\x8b"):
        # The name in the header may be anything; the archive's own is harmless.
        name = archive.stem if archive.suffix.lower() == ".gz" else archive.name
        return iter([(name, lambda: cast(IO[bytes], gzip.open(archive)))])
    page = begin.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
    what = "a web page, not an archive" if page else f"not a zip, tar or gz: it begins with {begin[:8]!r}"
    raise BadArchive(f"the file is {what}", file=archive, hint="remove it, and check its address")


def _zip_members(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(f"a link or a device: {info.filename!r}", archive)
            if info.flag_bits & 1:
                raise BadArchive("the archive is encrypted", file=archive, hint="unpack it by hand")
            if not info.is_dir():
                # The name as it stands there, before the library has made it harmless.
                yield info.orig_filename, partial(file.open, info)


def _tar_members(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    with tarfile.open(archive) as file:
        for info in file:
            if not info.isreg() and not info.isdir():
                raise _unsafe(f"a link or a device: {info.name!r}", archive)
            if info.isreg():
                yield info.name, cast(Callable[[], IO[bytes]], partial(file.extractfile, info))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _unsafe(what: str, archive: Path) -> BadArchive:
    return BadArchive(f"the archive holds {what}", file=archive, hint="it may be malicious: remove it")


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BadArchive("the archive does not exist", file=archive) from error
    except KdError:
        raise
    except _DAMAGE as error:
        raise BadArchive(f"the archive is truncated or damaged: {error}", file=archive, hint=_AGAIN) from error
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EINVAL):
            raise
        raise BadArchive(f"the archive is damaged: {error.strerror}", file=archive, hint=_AGAIN) from error
