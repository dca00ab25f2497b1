"""The program in a file of ``kd export binary``: it unpacks the rest of the file once, and predicts as ``kd`` does.

It is the ``__main__.py`` of a zip file, so it imports Python's own library alone until the rest is there. The folder is
named after the content, and appears whole or not at all.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from io import BufferedIOBase
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from kdcli.student.student import Student

ABOUT, CONTENT, PACKAGES, WEIGHTS = "about.json", "content", "packages.tar.xz", "model.safetensors"
MODULES = EXTENSION_SUFFIXES[0]  # how this Python names compiled modules: its version, processor and C library


def main(archive: Path) -> int | str:
    """Unpack the file if that has not been done, and predict; return the exit code, or what went wrong."""
    packed = zipfile.ZipFile(archive)
    about = json.loads(packed.read(ABOUT))
    if about["modules"] != MODULES:
        return f"error: this file is for {about['runs_on']}, not for {MODULES}\nhint: start it with that Python"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kd", about["digest"])
    try:
        if not folder.exists():
            unpack(packed, folder)
    except (OSError, shutil.ReadError) as error:
        return f"error: this file cannot be unpacked: {error}\nhint: XDG_CACHE_HOME names a folder with room"
    # Not what is installed beside Python: another NumPy, for one.
    sys.path = [
        str(folder),
        *(path for path in sys.path if path.startswith(sys.base_prefix) and "-packages" not in path),
    ]
    return predict(folder, f"kd {about['kd']} for {about['runs_on']}")


def unpack(packed: zipfile.ZipFile, folder: Path) -> None:
    """Unpack what is in the file."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary:
        packed.extractall(temporary)
        new = Path(temporary, CONTENT)
        shutil.unpack_archive(new / PACKAGES, new)
        (new / PACKAGES).unlink()
        swap(new / "student" / WEIGHTS, apart=False)
        try:
            new.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise


def swap(file: Path, *, apart: bool) -> None:
    """Set the two bytes of each float16 apart, which then take a tenth less in a zip file; or join them again."""
    data = file.read_bytes()
    changed, half = bytearray(data), (len(data) + 1) // 2
    if apart:
        changed[:half], changed[half:] = data[::2], data[1::2]
    else:
        changed[::2], changed[1::2] = data[:half], data[half:]
    file.write_bytes(changed)


def predict(folder: Path, version: str) -> int:
    """Predict lines from stdin as the command line says, and return the exit code."""
    from kdcli.errors import KdError
    from kdcli.student.student import load_student

    parser = argparse.ArgumentParser(description="Predict a label, or a score, for each line of text from stdin.")
    parser.add_argument("--probabilities", action="store_true", help="the probability of each label too")
    parser.add_argument("-V", "--version", action="version", version=version)
    given = parser.parse_args()
    for ended in (signal.SIGINT, signal.SIGPIPE):  # Ctrl-C, or nobody reads the rows any more
        signal.signal(ended, signal.SIG_DFL)
    try:
        student = load_student(folder / "student", code=next(folder.glob("plugin/*.py"), None))
        for rows in predicted(student, cast("BufferedIOBase", sys.stdin.buffer), given.probabilities):
            sys.stdout.buffer.write(rows.encode())
            sys.stdout.flush()
    except KdError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return error.exit_code
    return 0


def predicted(student: "Student", stream: BufferedIOBase, probabilities: bool = False) -> Iterator[str]:
    """Yield the rows of ``kd predict`` for the lines of a stream as soon as they are there, as TSV."""
    from kdcli.errors import DataError, UsageError
    from kdcli.tables import STDIN, read_lines
    from kdcli.tasks.answers import shown

    if probabilities and student.task.is_score:
        raise UsageError("this student predicts scores, which have no probabilities", hint="leave out --probabilities")
    reporter: Any = SimpleNamespace(warn=lambda message: sys.stderr.write(f"warning: {message}\n"))
    done = 0
    for columns in read_lines(stream, student.task, reporter):
        found = shown(student.logits(columns), student.task, shares=probabilities)
        cells = zip(*(map(_written, column) for column in found.values()), strict=True)
        empty = [not any(map(str.strip, texts)) for texts in zip(*columns, strict=True)]
        rows = [[""] * len(row) if nothing else row for row, nothing in zip(cells, empty, strict=True)]
        head = "" if done else "\t".join(["index", *found]) + "\n"
        yield head + "".join("\t".join([str(index), *row]) + "\n" for index, row in enumerate(rows, done))
        done += len(rows)
    if not done:
        raise DataError("there is no line to predict", file=STDIN, hint="pipe lines of text into it")


def _written(value: Any) -> str:
    """Write a value as Polars does."""
    import numpy as np

    if isinstance(value, str):
        return value
    if value == 0 or 1e-6 <= abs(value) < 1e13:
        return np.format_float_positional(value, trim="0")
    return np.format_float_scientific(value, trim="-", exp_digits=1)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent))
