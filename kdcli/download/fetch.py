"""One file from the network: ``pooch`` checks it, and a download that broke off resumes."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pooch
import requests
from filelock import FileLock, Timeout
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter
from kdcli.errors import DataError, KdError, MissingError, UsageError
from kdcli.files import full_disk

TRIES = 5
"""How often a download that brings nothing more is tried again."""
BACKOFF = 0.5
"""Seconds before the second further try; each later one waits twice as long."""
_BUSY = (429, 500, 502, 503, 504)
_TIMEOUT = (10, 60)
_CHUNK = 1 << 18


def fetch(url: str, output: Path, *, digest: str | None = None, reporter: Reporter | None = None) -> None:
    """Download a file, which appears when it is whole and has the SHA-256 ``digest``, where that is known.

    It grows as ``NAME.part`` beside ``output``. A later call resumes there if the server says that its file is still
    the same. Proxies are taken from the environment.

    Raises:
        MissingError: The server cannot be reached, or does not give the file.
        DataError: The file does not have the SHA-256 that it must have.
        KdError: The connection breaks off again and again, or the disk is full; the part stays for the next call.
        UsageError: The address is not an HTTP one.
    """
    output = output.absolute()
    pooch.get_logger().setLevel(logging.CRITICAL)
    downloader = _Resuming(output.with_name(f"{output.name}.part"), reporter or QuietReporter())
    elsewhere = f"name another address with --url, or fetch the file elsewhere and put it at {output}"
    try:
        with full_disk(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            with _alone(output):
                known = f"sha256:{digest.lower()}" if digest else None
                pooch.retrieve(url, known, fname=output.name, path=output.parent, downloader=downloader)
    except requests.HTTPError as error:
        status = str(error).partition(" ")[0], getattr(error.response, "reason", "")
        what = f"the server does not give the file: {' '.join(status)}"
        raise MissingError(what, file=url, hint=elsewhere) from error
    except HTTPError as error:
        what = f"the connection breaks off again and again, after {downloader.size:,} bytes"
        raise KdError(what, file=url, hint="run the same command again: it resumes") from error
    except requests.RequestException as error:
        if isinstance(error, ValueError):  # this is how requests marks a wrong address
            raise UsageError("not the address of a file", file=url, hint="start it with https://") from error
        hint = f"check the network and HTTPS_PROXY, {elsewhere}"
        raise MissingError(f"the server cannot be reached: {_reason(error)}", file=url, hint=hint) from error
    except ValueError as error:
        what = f"the file is not the expected one: its SHA-256 is not {digest}"
        hint = "it was damaged on its way, or has changed: run it again, or name another address with --url"
        raise DataError(what, file=url, hint=hint) from error
    except PermissionError as error:
        hint = "choose another place with --output"
        raise KdError(f"cannot write here: {error.strerror}", file=output, hint=hint) from error


@contextmanager
def _alone(output: Path) -> Iterator[None]:
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


class _Resuming:
    """A downloader for ``pooch`` that keeps the part, and beside it what the server calls the file."""

    def __init__(self, part: Path, reporter: Reporter) -> None:
        self.part = part
        self.notes = part.with_name(f"{part.name}.json")
        self.reporter = reporter

    @property
    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        retry = Retry(total=TRIES, backoff_factor=BACKOFF, status_forcelist=_BUSY, raise_on_status=False)
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=retry))
            session.mount("https://", HTTPAdapter(max_retries=retry))
            session.headers["User-Agent"] = f"kd/{__version__}"
            session.headers["Accept-Encoding"] = "identity"  # or lengths and ranges would be of something else
            self._complete(session, url)
        self.notes.unlink(missing_ok=True)
        os.replace(self.part, output_file)

    def _complete(self, session: requests.Session, url: str) -> None:
        vain = 0
        while True:
            before = self.size
            try:
                return self._receive(session, url)
            except HTTPError:
                vain = 0 if self.size > before else vain + 1
                if vain == TRIES:
                    raise
                self.reporter.info(f"the connection broke off after {self.size:,} bytes, trying again")
                time.sleep(BACKOFF * 2**vain if vain else 0)

    def _receive(self, session: requests.Session, url: str) -> None:
        """Ask for the rest of the file, or for all of it, and write what comes to the part."""
        begun, validator = self.size, self._validator(url)
        headers = {"Range": f"bytes={begun}-", "If-Range": validator} if validator and begun else {}
        with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            resumes = response.headers.get("Content-Range", "").startswith(f"bytes {begun}-") and bool(headers)
            if headers and not resumes and response.status_code != HTTPStatus.OK:
                self.part.unlink()
                return self._receive(session, url)
            response.raise_for_status()
            if not resumes:
                begun = 0
                # A weak tag says that two files mean the same, not that their bytes are the same.
                tag = response.headers.get("ETag", "W/")
                validator = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
                self.part.unlink(missing_ok=True)
                self.notes.write_text(json.dumps({"url": url, "validator": validator}), "utf-8")
            length = response.headers.get("Content-Length", "")
            total = begun + int(length) if length.isdecimal() else None
            title = self.part.name.removesuffix(".part")
            with self.part.open("ab") as stream, self.reporter.progress(title, total, "bytes") as progress:
                progress.advance(begun)
                # Unlike ``iter_content``, it yields what came before a break.
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    stream.write(chunk)
                    progress.advance(len(chunk))

    def _validator(self, url: str) -> str | None:
        """Return what ``If-Range`` takes, if the part is the beginning of the file at ``url``."""
        try:
            notes = json.loads(self.notes.read_text("utf-8"))
            return str(notes["validator"]) if notes["url"] == url and notes["validator"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _reason(error: requests.RequestException) -> str:
    reason = getattr(error.args[0] if error.args else None, "reason", None) or error
    return str(reason).rpartition(": ")[2].rstrip(".") or type(reason).__name__
