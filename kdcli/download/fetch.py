"""One file from the network, by ``pooch``, whole and checked or not there at all; and an archive, unpacked."""

from __future__ import annotations

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from kdcli import __version__
from kdcli.api import Progress, Reporter
from kdcli.errors import DataError, KdError, MissingError, UsageError
from kdcli.files import alone, atomic, sha256

_CHUNK = 1 << 18
# Without compression on the way, sizes are those of the file.
_HEADERS = {"User-Agent": f"kd/{__version__}", "Accept-Encoding": "identity"}
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, RuntimeError, ValueError, LookupError),
)


def fetch(url: str, output: Path, *, digest: str | None, size: int | None, by_hand: Path, reporter: Reporter) -> None:
    """Download a file; proxies are taken from the environment.

    The file must have the SHA-256 ``digest`` (hex digits), where it is known. ``by_hand`` is where a user may put the
    file instead.

    Raises:
        MissingError: The server cannot be reached, or does not give the file.
        DataError: The file does not have the SHA-256 that it must have.
        KdError: The connection breaks off, or the disk is full.
        UsageError: The address is not an HTTP one.
    """
    elsewhere = f"name another address with --url, or fetch the file elsewhere and put it at {by_hand.absolute()}"
    try:
        with alone(output, "another kd downloads this file now"), atomic(output) as temporary:
            with reporter.progress(by_hand.name, size, "bytes") as progress:
                pooch.HTTPDownloader(_Bar(progress), _CHUNK, timeout=60, headers=_HEADERS)(url, temporary, None)
            if digest and sha256(temporary) != digest:
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


def unpack(archive: Path, folder: Path, only: str = "") -> list[Path]:
    """Unpack a zip or a tar into a folder; the standard library keeps all files inside the folder.

    Args:
        archive: The archive.
        folder: The folder to make.
        only: The name of the one file that is wanted, in whatever folder of the archive it is.

    Returns:
        The files, in order of name.

    Raises:
        BadArchive: The archive is damaged, encrypted or of another form, lacks ``only``, or is dangerous.
    """
    try:
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as file:
                file.extractall(folder, [name for name in file.namelist() if only in ("", Path(name).name)])
        else:
            with tarfile.open(archive) as file:
                members = [member for member in file if only in ("", Path(member.name).name)]
                file.extractall(folder, members, filter="data")
    except _DAMAGE as error:
        what = f"this is no zip or tar, or a damaged one: {error}"
        raise BadArchive(what, file=archive, hint="remove it, check its address, and get it again") from error
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    if not found:
        raise BadArchive(f"the archive holds no {only or 'files'}", file=archive, hint="remove it, check its address")
    return found


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
