"""Whole files or none: atomic writes and content hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdcli.errors import KdError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, it takes ``path``'s place.

    The temporary path ends in the same suffixes, so that writers that look at them work. It may become a file or
    a folder. When the block fails, it is removed and whatever stood at ``path`` is still there, whole.

    Raises:
        KdError: The disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(temporary)
            yield temporary
            for file in [*temporary.rglob("*"), temporary] if temporary.is_dir() else [temporary]:
                _fsync(file)
            if path.is_dir():  # a folder does not give way to a rename
                old = temporary.with_name(f"{temporary.name}.old")
                os.replace(path, old)
                os.replace(temporary, path)
                _remove(old)
            else:
                os.replace(temporary, path)
            _fsync(path.parent)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise KdError(f"cannot write here: {error.strerror}", file=path, hint="name another place") from error
    finally:
        _remove(temporary)


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turn whatever a library raises on a full disk into an error that says so.

    Raises:
        KdError: The disk of ``path`` is full.
    """
    try:
        yield
    except Exception as error:
        # safetensors and torch say it in words of their own, torch not even that.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if full or (not isinstance(error, KdError) and _free(path) < 1 << 20):
            hint = "free some space, or name another place with --output or --run-dir; run it again and it goes on"
            raise KdError("the disk is full", file=path, hint=hint) from error
        raise


def sha256(path: Path) -> str:
    """Hash a file's bytes, or a folder's file names and bytes in order of name (hex digits)."""
    if path.is_dir():
        folder = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            folder.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
        return folder.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_sha256(folder: Path) -> str:
    """Hash the files of a model's folder by name and content (hex digits); folders in it are no part of the model."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return hashlib.sha256("".join(f"{file.name}\0{sha256(file)}\n" for file in files).encode()).hexdigest()


def _free(path: Path) -> int:
    return shutil.disk_usage(next(place for place in (path, *path.absolute().parents) if place.exists())).free


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
