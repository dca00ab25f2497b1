"""One file from the network: resumed after a break, and whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter
from kdcli.errors import DataError, KdError, MissingError, UsageError
from kdcli.files import full_disk, sha256

TRIES = 5
"""How often nothing may come before it is given up."""
BACKOFF = 0.5
"""Seconds before the second further try; each later one waits twice as long."""
LONGEST_WAIT = 120
"""Seconds, however long a busy server asks to wait."""
TIMEOUT = (10, 60)
"""Seconds until a server answers, and until the next bytes come."""
BUSY = (429, 500, 502, 503, 504)
_CHUNK = 1 << 18


def fetch(
    url: str, output: Path, *, size: int | None = None, digest: str | None = None, reporter: Reporter | None = None
) -> None:
    """Download a file.

    It grows as ``NAME.part`` beside ``output``, with ``NAME.part.json`` that says of what it is the beginning. A later
    call goes on there if the server says that its file is still the same, and starts again otherwise. Proxies are
    taken from the environment.

    Args:
        url: Where it is.
        output: The file to write; it appears when it is whole and checked.
        size: The bytes it must have, where known.
        digest: The SHA-256 it must have in hex digits, where known.
        reporter: Shows the progress.

    Raises:
        MissingError: The server cannot be reached, or does not give the file.
        DataError: The file is not of the size, or has not the SHA-256, that it must have.
        KdError: The connection breaks off again and again, or the disk is full; what came is kept.
        UsageError: The address is none.
    """
    reporter = reporter or QuietReporter()
    part = _Part(output.with_name(f"{output.name}.part"))
    try:
        with full_disk(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            with _alone(part.path), _session() as session:
                _complete(_Download(session, url, part, output, size, reporter))
                _check(part, url, size, digest)
                os.replace(part.path, output)
                part.remove()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise KdError(f"cannot write here: {error.strerror}", file=output, hint="name another place") from error


class _Part:
    """The beginning of a file, and beside it what the server has called that file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """Return what ``If-Range`` takes, if this is the beginning of the file at ``url``."""
        try:
            notes = json.loads(self.notes.read_text("utf-8"))
            same = notes["url"] == url and self.size > 0
            return str(notes["validator"]) if same and notes["validator"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, url: str, response: requests.Response) -> None:
        """Start again with the file that a response brings."""
        self.remove()
        tag = response.headers.get("ETag", "")
        # A weak tag says that two files mean the same, not that their bytes are.
        validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
        self.notes.write_text(json.dumps({"url": url, "validator": validator}) + "\n", "utf-8")
        self.path.touch()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Download:
    """What one call of ``fetch`` works with."""

    session: requests.Session
    url: str
    part: _Part
    output: Path
    size: int | None
    reporter: Reporter


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    lock = FileLock(part.with_name(f".{part.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise KdError("another kd downloads this file now", file=part, hint="wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def _session() -> Iterator[requests.Session]:
    retry = Retry(
        total=TRIES,
        backoff_factor=BACKOFF,
        retry_after_max=LONGEST_WAIT,
        status_forcelist=BUSY,
        raise_on_status=False,
    )
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        session.headers["User-Agent"] = f"kd/{__version__}"
        session.headers["Accept-Encoding"] = "identity"  # or lengths and ranges would be those of something else
        yield session


def _complete(download: _Download) -> None:
    """Ask for what is missing until nothing is, or until nothing more comes."""
    part, most, vain = download.part, download.part.size, 0
    while True:
        try:
            return _go_on(download)
        except requests.RequestException as error:
            raise _unreachable(error, download) from error
        except HTTPError as error:  # the body broke off: urllib3's, for what comes is read from its stream
            came = part.size
            vain = 0 if came > most else vain + 1
            most = max(most, came)
            if vain >= TRIES:
                what = f"the connection breaks off again and again, after {came:,} bytes"
                hint = "run the same command again: it goes on from there"
                raise KdError(what, file=download.url, hint=hint) from error
            download.reporter.info(f"the connection broke off after {came:,} bytes, trying again")
            time.sleep(BACKOFF * 2**vain if vain else 0)


def _go_on(download: _Download) -> None:
    """Ask for the rest of the file, or for all of it, and append what comes to the part."""
    part, url = download.part, download.url
    begun, validator = part.size, part.validator(url)
    headers = {"Range": f"bytes={begun}-", "If-Range": validator} if validator else {}
    with download.session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status, (first, total) = response.status_code, _range(response)
        if status == HTTPStatus.OK:
            if begun:
                why = "the file has changed there, or cannot be had in pieces"
                why = why if validator else "nothing tells what it is the beginning of"
                download.reporter.info(f"{part.path.name} starts again: {why}")
            part.begin(url, response)
            return _append(download, response, _length(response))
        if not validator or status not in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise _refused(response, download)
        if status == HTTPStatus.PARTIAL_CONTENT and first == begun:
            download.reporter.info(f"{part.path.name} goes on after {begun:,} bytes")
            return _append(download, response, total)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and total == begun:
            return None  # it was whole already
    part.remove()
    return _go_on(download)


def _append(download: _Download, response: requests.Response, total: int | None) -> None:
    begun = download.part.size
    if None not in (download.size, total) and total != download.size:
        what = f"the file there has {total:,} bytes, and {download.size:,} are expected"
        download.part.remove()
        raise DataError(what, file=download.url, hint="it has changed: name another address with --url")
    if total is not None:
        _check_room(download.output, total - begun)
    with (
        download.part.path.open("ab") as stream,
        download.reporter.progress(download.output.name, total or download.size, "bytes") as progress,
    ):
        progress.advance(begun)
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            stream.write(chunk)
            progress.advance(len(chunk))
        stream.flush()
        os.fsync(stream.fileno())


def _check_room(output: Path, needed: int) -> None:
    free = shutil.disk_usage(output.parent).free
    if needed > free:
        what = f"the disk has too little room: {needed:,} bytes are to come, and {free:,} are free"
        raise KdError(what, file=output, hint="free some space, or name another place with --output")


def _check(part: _Part, url: str, size: int | None, digest: str | None) -> None:
    """Take the part for the file, or remove it."""
    if size is not None and part.size != size:
        what = f"{part.size:,} bytes came, and {size:,} are expected"
    elif digest is not None and (found := sha256(part.path)) != digest.lower():
        what = f"the file is not the one expected: its SHA-256 is {found}, and not {digest.lower()}"
    else:
        return
    part.remove()
    hint = "it was damaged on its way, or has changed: run it again, or name another address with --url"
    raise DataError(what, file=url, hint=hint)


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """Return the first byte and the size of the file, as ``Content-Range`` tells them."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    first, total = (found[1], found[2]) if found else (None, "*")
    return None if first is None else int(first), None if total == "*" else int(total)


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _refused(response: requests.Response, download: _Download) -> MissingError:
    what = f"the server does not give the file: {response.status_code} {response.reason}"
    hint = f"name another address with --url, or fetch it with a browser and put it at {download.output}"
    if response.status_code in BUSY:
        hint = "the server is busy or broken: try later, or name another address with --url"
    return MissingError(what, file=download.url, hint=hint)


def _unreachable(error: requests.RequestException, download: _Download) -> KdError:
    if isinstance(error, ValueError):  # so requests marks what is no address
        return UsageError("no address of a file", file=download.url, hint="it begins with https:// or http://")
    reason = getattr(error.args[0] if error.args else None, "reason", None) or error
    text = str(reason).rpartition(": ")[2].rstrip(".") or type(reason).__name__
    hint = "check the network and HTTPS_PROXY, name another address with --url,"
    hint += f" or fetch the file elsewhere and put it at {download.output}"
    return MissingError(f"the server cannot be reached: {text}", file=download.url, hint=hint)
