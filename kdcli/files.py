"""Whole files or none, and no file of anyone else: where kd may write, atomic writes, and content hashes."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdcli.errors import DataError, KdError, UsageError

_UMASK = os.umask(0o022)
os.umask(_UMASK)  # it can be read only by setting it
MARKER = ".kdfiles"  # the file in each folder of kd that names the files which kd has put there
CALIBRATION = "calibration.json"
"""A file that a later stage adds to a student's folder; it is no part of the folder's hash."""


def check_output(output: Path, inputs: Iterable[Path] = (), *, force: bool = False, ours: bool = False) -> None:
    """Check, before any work, that an output may be written: it is no input, holds none and lies in none.

    With ``force`` or ``ours``, a file or a folder of kd may be replaced.
    """
    place = output.absolute().resolve()
    for path in inputs:
        here = path.absolute().resolve()
        if place == here or here in place.parents or place in here.parents:
            where = "is an input" if place == here else f"{'lies in' if here in place.parents else 'contains'} {path}"
            raise UsageError(f"the output {where}", file=output, hint="name another place for it")
    if not os.path.lexists(output):
        return
    check_replaceable(output)
    if not (force or ours):
        raise DataError("the output exists already", file=output, hint="--force overwrites it")


def check_replaceable(path: Path, made: Iterable[str] = ()) -> None:
    """Raise a ``DataError`` for a folder with a file that kd did not put there; ``made`` are patterns of its own."""
    for name in foreign(path, made):
        hint = "move it away, or name another place: kd replaces no folder that holds files of others"
        raise DataError(f"kd did not put {name} into this folder", file=path / name, hint=hint)


def foreign(folder: Path, made: Iterable[str] = ()) -> list[str]:
    """List the files of a folder that kd did not put there: it has not recorded them, nor do they match ``made``."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    try:
        ours = set(json.loads((folder / MARKER).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        ours = set()
    names = (one for one in _files(folder) if one not in ours and not any(fnmatchcase(one, like) for like in made))
    return [one for one in names if not any(part == MARKER or part.startswith(".kd-") for part in Path(one).parts)]


def remove(folder: Path, made: Iterable[str] = ()) -> None:
    """Remove a folder of kd; files that kd did not put there stay, and so does the folder around them."""
    others = foreign(folder, made)
    if not others:
        shutil.rmtree(folder.rename(temporary_path(folder)))  # gone at once, also for a process that waits for it
        return
    for name in (one for one in _files(folder) if one not in others):
        (folder / name).unlink()
    for inside in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(inside.iterdir()):
            inside.rmdir()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, it replaces ``path``.

    The temporary path, of a file or a folder, has the same suffixes, for writers that look at them. When the block
    fails, it is removed, and what stood at ``path`` is still there. What killed processes left is removed, too.
    """
    temporary = temporary_path(path)
    try:
        with full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path.parent)
            _remove(temporary)
            yield temporary
            if temporary.is_dir():
                mark(temporary)
            for file in [*temporary.rglob("*"), temporary] if temporary.is_dir() else [temporary]:
                if file.is_file():
                    file.chmod(0o666 & ~_UMASK)  # some libraries write files that nobody else may read
                _fsync(file)
            if path.is_dir() != temporary.is_dir() and os.path.lexists(path):
                kinds = ("a file", "a folder")
                what = f"this is {kinds[path.is_dir()]}, and {kinds[temporary.is_dir()]} is to be written"
                raise DataError(what, file=path, hint="move it away, or name another place")
            check_replaceable(path)
            if path.is_dir():  # a rename does not replace a folder
                old = path.with_name(f".kd-{socket.gethostname()}-{os.getpid()}-old.{path.name}")
                os.replace(path, old)
                os.replace(temporary, path)
                _remove(old)
            else:
                os.replace(temporary, path)
            _fsync(path.parent)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise KdError(f"cannot write here: {error.strerror}", file=path, hint="choose another place") from error
    finally:
        _remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


@contextmanager
def alone(path: Path, what: str, *, seconds: float = 0.0, inside: bool = False) -> Iterator[None]:
    """Hold the lock beside a path, or ``inside`` a folder, free in ``seconds``; else a ``KdError`` says ``what``."""
    place = path / ".launch.lock" if inside else path.with_name(f".{path.name}.lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise KdError(what, file=path, hint="wait for it, or stop it first") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def temporary_path(path: Path) -> Path:
    """Return a path beside ``path`` that belongs to this process and is removed after its death."""
    return path.with_name(f".kd-{socket.gethostname()}-{os.getpid()}.{path.name}")


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turn what a library raises on a full disk into an error that says so."""
    try:
        yield
    except Exception as error:
        # safetensors and Polars have their own words for it, torch has none.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        place = next(place for place in (path, *path.absolute().parents) if place.exists())
        if full or (not isinstance(error, KdError) and shutil.disk_usage(place).free < 1 << 20):
            hint = "free some space, or choose another place with --output or --run-dir; the next run resumes"
            raise KdError("the disk is full", file=path, hint=hint) from error
        raise


def sha256(path: Path) -> str:
    """Hash a file's bytes, or a folder's file names and bytes in order of name (hex digits)."""
    if path.is_dir():
        folder = hashlib.sha256()
        for file in sorted(
            file for file in path.rglob("*") if file.is_file() and file.name not in (MARKER, CALIBRATION)
        ):
            folder.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
        return folder.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_sha256(folder: Path) -> str:
    """Hash the files of a model's folder by name and content (hex digits), without the folders in it."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != MARKER)
    return hashlib.sha256("".join(f"{file.name}\0{sha256(file)}\n" for file in files).encode()).hexdigest()


def is_running(process: int) -> bool:
    """Return whether a process of this host is running."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def mark(folder: Path, but: Container[str] = ()) -> None:
    """Record the files of a folder as those of kd, ``but`` for some."""
    names = [name for name in _files(folder) if Path(name).name != MARKER and name not in but]
    (folder / MARKER).write_text(json.dumps(names), "utf-8")


def _files(folder: Path) -> list[str]:
    """List the files below a folder by their relative paths, symbolic links among them."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _remove_leftovers(folder: Path) -> None:
    pattern = re.compile(rf"\.kd-{re.escape(socket.gethostname())}-(\d+)(-old)?\.(.+)")
    for file in os.scandir(folder):
        match = pattern.match(file.name)
        if match and not is_running(int(match[1])):
            if match[2] and not os.path.lexists(folder / match[3]):  # killed between the two renames
                os.replace(file.path, folder / match[3])
            else:
                _remove(Path(file.path))


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
