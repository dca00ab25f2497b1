"""A student as one file that predicts: the student, its NumPy form, and the libraries that this needs.

The libraries are those of this environment, so the file runs on this kind of machine and with this version of Python;
``start.py`` is its beginning.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from kdcli import registry
from kdcli.errors import KdError, PluginError
from kdcli.export import start
from kdcli.export.hub import without_folders
from kdcli.files import MARKER, atomic, check_output
from kdcli.student.student import Student, load_student

LEFT_OUT = {"__pycache__", "tests", "f2py", "distutils", "include", "scaffold"}
"""Folders of libraries that no prediction needs."""
UNREAD = {".a", ".c", ".h", ".pxd", ".pyc", ".pyi", ".pyx"}
"""Suffixes of files that Python does not need."""
LICENCES = ("METADATA", "LICENSE", "LICENCE", "NOTICE", "COPYING")
TEXT = "a gripping film"
"""What the file is tried on."""
_TRACE = """
import io, json, sys
before = set(sys.modules)
from pathlib import Path
from kdcli.export.predictor import load_student, predicted
student = load_student(sys.argv[1])
rows = "".join(predicted(student, io.BytesIO(sys.argv[2].encode()), "stdin"))
print(json.dumps([rows, sorted({name.partition(".")[0] for name in set(sys.modules) - before})]))
"""


@dataclass(frozen=True)
class BinaryExport:
    """The result of an export."""

    file: Path
    megabytes: float  # 10^6 bytes
    runs_on: str  # version of Python, system and processor
    libraries: dict[str, str]  # what is inside beside kd, with versions


def export_binary(*, student: Path, output: Path, force: bool = False) -> BinaryExport:
    """Write a student as one file that predicts, on this kind of machine and with this version of Python.

    Raises:
        DataError: The folder is not a student's, or the output exists.
        KdError: The file does not predict what the student predicts.
        PluginError: The student's plugin has no NumPy form.
    """
    check_output(output, [student], force=force)
    loaded = load_student(student)
    no_form = PluginError(
        f"the student plugin {loaded.config['plugin']} predicts with PyTorch alone",
        hint="a student plugin says by its function `fast` how it predicts without; the plugin bilstm has one",
    )
    if loaded.compute is None:
        raise no_form
    text = "\t".join([TEXT] * len(loaded.task.columns))
    path = os.pathsep.join(filter(None, sys.path))
    traced = _run([sys.executable, "-c", _TRACE, str(student), text], {**os.environ, "PYTHONPATH": path})
    expected, modules = json.loads(traced)
    if "torch" in modules:
        raise no_form
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    about = {"runs_on": f"Python {version} on {sysconfig.get_platform()}", "modules": start.MODULES}
    libraries: dict[str, str] = {}
    content = {**_packages(modules, libraries), **_student(student, loaded)}
    with atomic(output) as temporary:
        with temporary.open("wb") as stream:
            stream.write(f"#!/usr/bin/env python{version}\n".encode())
            _write(stream, content, about)
        with tempfile.TemporaryDirectory() as cache:
            found = _run([sys.executable, "-I", str(temporary)], {"XDG_CACHE_HOME": cache}, text)
        if found != expected:
            what = f"the file predicts {found.splitlines()[-1:]}, and the student {expected.splitlines()[-1:]}"
            raise KdError(what, hint="show the author of its plugin this message")
    output.chmod(output.stat().st_mode | 0o111)
    return BinaryExport(output, output.stat().st_size / 1e6, about["runs_on"], dict(sorted(libraries.items())))


def _write(stream: BinaryIO, content: Mapping[str, bytes], about: Mapping[str, str]) -> None:
    """Write a zip file that Python runs; it is the same for the same content."""
    digest = sha256()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, data in sorted(content.items()):
            digest.update(f"{place}\0{len(data)}\0".encode() + data)
            how = zipfile.ZIP_LZMA if ".so" in place else zipfile.ZIP_DEFLATED  # a third less, and slow to write
            archive.writestr(zipfile.ZipInfo(place), data, how)
        about = {**about, "digest": digest.hexdigest()[:32]}
        archive.writestr(zipfile.ZipInfo(start.ABOUT), json.dumps(about))
        archive.writestr(zipfile.ZipInfo("__main__.py"), Path(start.__file__).read_bytes())


def _student(folder: Path, student: Student) -> dict[str, bytes]:
    """Return the files of a student by their places, and the file of ``--code`` that it was made with."""
    files = [file for file in folder.iterdir() if file.is_file() and file.name not in (MARKER, "README.md")]
    found = {f"{start.STUDENT}/{file.name}": file.read_bytes() for file in files}
    found[f"{start.STUDENT}/config.json"] = json.dumps(without_folders(student.config)).encode()
    plugin = registry.find("students", student.config["plugin"])
    if plugin.file:
        return {**found, f"code/{plugin.file.name}": plugin.file.read_bytes()}
    info = f"{plugin.distribution}-{plugin.version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {plugin.distribution}\nVersion: {plugin.version}\n"
    entry = f"[kdcli.students]\n{plugin.name} = {plugin.module}\n"
    return {**found, f"{info}/METADATA": metadata.encode(), f"{info}/entry_points.txt": entry.encode()}


def _packages(modules: Iterable[str], libraries: dict[str, str]) -> dict[str, bytes]:
    """Return the files of imported packages by their places, with their licences, and note their versions."""
    found: dict[str, bytes] = {}
    distributions = metadata.packages_distributions()
    for name in modules:
        spec = None if name in sys.stdlib_module_names or name.startswith("_") else find_spec(name)
        if spec is None or spec.origin is None:
            continue
        package = Path(spec.origin) if spec.submodule_search_locations is None else Path(spec.origin).parent
        for folder in (package, package.with_name(f"{name}.libs")):
            files = folder.rglob("*") if folder.is_dir() else [folder] if folder.exists() else []
            for file in files:
                place = file.relative_to(package.parent)
                if file.is_file() and file.suffix not in UNREAD and LEFT_OUT.isdisjoint(place.parts):
                    found[place.as_posix()] = file.read_bytes()
        for distribution in map(metadata.distribution, distributions.get(name, [])):
            libraries[distribution.name] = distribution.version
            for licence in distribution.files or []:
                if ".dist-info" in licence.parts[0] and licence.name.startswith(LICENCES):
                    found[licence.as_posix()] = Path(licence.locate()).read_bytes()
    return found


def _run(command: list[str], environment: Mapping[str, str], given: str = "") -> str:
    """Run a program that must succeed, and return what it prints."""
    done = subprocess.run(command, input=given.encode(), capture_output=True, env=environment)
    if done.returncode:
        what = f"the student does not predict in a process of its own: {done.stderr.decode(errors='replace')[-500:]}"
        raise KdError(what, hint="its plugin, or a package that it needs, may not be importable from here")
    return done.stdout.decode()
