"""The one file that a source is: one that lies here, or a download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kdcli.api import Reporter
from kdcli.download.archive_forms import BadArchive
from kdcli.download.fetch import fetch
from kdcli.download.sources import SOURCES, Source
from kdcli.errors import DataError, MissingError
from kdcli.files import sha256


@dataclass(frozen=True)
class SourceFile:
    """A file and its SHA-256."""

    path: Path
    sha256: str


@contextmanager
def source_file(source: Source, beside: Path, *, offline: bool, reporter: Reporter) -> Iterator[SourceFile]:
    """Give the file of a source while the block works with it.

    A download is removed when the block ends well, unless other sources are in it too. It stays for the next call
    when the block fails, unless the file itself is to blame.

    Args:
        source: The source; its address is a URL or a path.
        beside: The folder that downloads go into. One that is there is taken as it is, and stays.
        offline: Download nothing.
        reporter: Shows the progress.

    Raises:
        MissingError: It cannot be had, or is to be downloaded and must not be.
        DataError: It has not the SHA-256 that it must have.
        KdError: The download breaks off, or the disk is full.
    """
    path = _place(source, beside)
    if path.is_file():
        reporter.info(f"{path} is here: nothing is downloaded")
        yield SourceFile(path, _checked(path, source))
        return
    if not source.is_url:
        raise MissingError("there is no such file", file=path, hint="--url takes the address of a file, or a file here")
    if offline:
        hint = f"fetch it elsewhere and put it at {path}, or name a copy with --url FILE"
        raise MissingError("the file is not here, and nothing is to be downloaded", file=source.address, hint=hint)
    fetch(source.address, path, size=source.size, digest=source.sha256, reporter=reporter)
    try:
        yield SourceFile(path, source.sha256 or sha256(path))
    except BadArchive:
        path.unlink()
        raise
    others = [other.name for other in SOURCES if other.address == source.address and other.name != source.name]
    if others:
        reporter.info(f"{path} is kept for {', '.join(others)}: remove it if you need none of them")
    else:
        path.unlink()


def _place(source: Source, beside: Path) -> Path:
    if not source.is_url:
        return Path(source.address).expanduser()
    name = Path(unquote(urlsplit(source.address).path)).name
    return beside / (name if name not in ("", "..") else source.name)


def _checked(path: Path, source: Source) -> str:
    found = sha256(path)
    if source.sha256 not in (None, found):
        what = f"the file is not the one expected: its SHA-256 is {found}, and not {source.sha256}"
        raise DataError(what, file=path, hint="remove it, and it is downloaded")
    return found
