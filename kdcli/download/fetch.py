"""What comes from the network: one file, by ``pooch``, whole and checked or not there at all; a dataset of the Hub."""

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pooch
import requests

from kdcli import __version__
from kdcli.api import Progress, Reporter
from kdcli.errors import DataError, MissingError, first_line
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

    A file without the SHA-256 ``digest`` (hex digits), where it is known, is a ``DataError``; one that cannot be
    downloaded is a ``MissingError``. ``by_hand`` is where a user may put the file instead.
    """
    try:
        with alone(output, "another kd downloads this file now"), atomic(output) as temporary:
            with reporter.progress(by_hand.name, size, "bytes") as progress:
                pooch.HTTPDownloader(_Bar(progress), _CHUNK, timeout=60, headers=_HEADERS)(url, temporary, None)
            if digest and sha256(temporary) != digest:
                what = f"the file is not the expected one: its SHA-256 is not {digest}"
                hint = "it was damaged on its way, or has changed: run it again, or name another address with --url"
                raise DataError(what, file=url, hint=hint)
    except requests.RequestException as error:
        elsewhere = f"name another address with --url, or fetch the file elsewhere and put it at {by_hand.absolute()}"
        hint = f"run it again, check the network and HTTPS_PROXY, {elsewhere}"
        raise MissingError(f"the file cannot be downloaded: {_reason(error)}", file=url, hint=hint) from error


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
    if isinstance(error, requests.HTTPError):
        return str(error).partition(" for url")[0]
    reason = getattr(error.args[0] if error.args else None, "reason", None) or error
    return str(reason).rpartition(": ")[2].rstrip(".") or type(reason).__name__


def fetch_dataset(name: str, patterns: Sequence[str], *, offline: bool, hint: str) -> Path:
    """Return the folder of a dataset of the Hub with the files that match; they are in the Hub's cache afterwards."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # the terminal is the reporter's
    how: dict[str, Any] = {"repo_type": "dataset", "allow_patterns": list(patterns), "local_files_only": offline}
    try:
        return Path(snapshot_download(name, **how))
    except Exception as error:
        why = "it is not in the cache, and --offline is set" if offline else first_line(error)
        raise MissingError(f"the dataset {name!r} of the Hub cannot be downloaded: {why}", hint=hint) from error


class BadArchive(DataError):
    """An archive that is damaged, or not what it claims to be."""


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip or a tar, by its bytes."""
    return _is_zip(path) or tarfile.is_tarfile(path)


def unpack(archive: Path, folder: Path, only: str = "") -> list[Path]:
    """Unpack a zip or a tar into a folder, or ``only`` one file of it; return the files, in order of name.

    No file leaves the folder: such an archive, a damaged one or one that lacks ``only`` is a ``BadArchive``.
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
