"""The beginning of a file that ``kd export binary`` writes: it unpacks the rest once, and predicts.

It becomes the ``__main__.py`` of a zip file, and imports Python's own library alone until the rest is there. The folder
is named after the content, belongs to this user alone, and appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from zipimport import zipimporter

ABOUT = "about.json"
STUDENT = "student"
MODULES = EXTENSION_SUFFIXES[0]
"""How this Python names compiled modules: its version, processor and C library."""
ABANDONED = 3600
"""Seconds after which what is half unpacked has no process any more."""


def main(archive: Path) -> int:
    """Unpack the file if that has not been done, and predict; return the exit code."""
    about = json.loads(zipimporter(str(archive)).get_data(ABOUT))
    if about["modules"] != MODULES:
        return fail(f"this file runs on {about['runs_on']}, not with {MODULES}", "start it with that Python")
    try:
        folder = unpacked(archive, about["digest"])
    except (OSError, RuntimeError) as error:  # the second of a Python without lzma
        return fail(f"this file cannot be unpacked: {error}", "XDG_CACHE_HOME names a folder of yours, with more room")
    foreign = ("site-packages", "dist-packages")  # another NumPy, for one
    sys.path = [str(folder), *(path for path in sys.path[1:] if not path.endswith(foreign))]
    from kdcli.export.predictor import main as predict

    return predict(folder / STUDENT, about["runs_on"])


def unpacked(archive: Path, digest: str) -> Path:
    """Return the folder of what is in the file."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kd"
    folder = cache / digest
    if not folder.exists():
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in cache.glob(".unpacking-*"):
            if time.time() - old.stat().st_mtime > ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=cache))  # for this user alone
        try:
            with zipfile.ZipFile(archive) as content:
                content.extractall(temporary)
            temporary.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    if folder.stat().st_uid != os.geteuid() or folder.stat().st_mode & 0o077:
        raise PermissionError(f"{folder} is open to others")
    return folder


def fail(what: str, hint: str) -> int:
    """Print an error, and return the exit code of what is missing."""
    sys.stderr.write(f"error: {what}\nhint: {hint}\n")
    return 6


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent))
