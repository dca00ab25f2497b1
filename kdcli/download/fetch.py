"""One file from the network, by ``pooch``: whole and checked, or not there at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch
import requests
from filelock import FileLock, Timeout

from kdcli import __version__
from kdcli.api import Progress, QuietReporter, Reporter
from kdcli.errors import DataError, KdError, MissingError, UsageError
from kdcli.files import atomic, sha256

_CHUNK = 1 << 18
# Without compression on the way, sizes are those of the file.
_HEADERS = {"User-Agent": f"kd/{__version__}", "Accept-Encoding": "identity"}


def fetch(
    url: str, output: Path, *, digest: str | None = None, size: int | None = None, reporter: Reporter | None = None
) -> None:
    """Download a file; proxies are taken from the environment.

    The file must have the SHA-256 ``digest`` (hex digits), where it is known.

    Raises:
        MissingError: The server cannot be reached, or does not give the file.
        DataError: The file does not have the SHA-256 that it must have.
        KdError: The connection breaks off, or the disk is full.
        UsageError: The address is not an HTTP one.
    """
    output = output.absolute()
    elsewhere = f"name another address with --url, or fetch the file elsewhere and put it at {output}"
    try:
        with _alone(output), atomic(output) as temporary:
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


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output.with_name(f".{output.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise KdError("another kd downloads this file now", file=output, hint="wait for it, or stop it") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class _Bar:
    """A progress in the form that ``pooch`` takes; after ``reset`` it would count all bytes once more."""

    total = 0

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._whole = False

    def update(self, count: int) -> None:
        if not self._whole:
            self._progress.advance(count)

    def reset(self) -> None:
        self._whole = True

    def close(self) -> None:
        """Do nothing: the progress closes itself."""


def _reason(error: requests.RequestException) -> str:
    reason = getattr(error.args[0] if error.args else None, "reason", None) or error
    return str(reason).rpartition(": ")[2].rstrip(".") or type(reason).__name__
