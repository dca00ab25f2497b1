"""A student as one file that predicts: the student, its NumPy form, and the libraries that this needs.

The libraries are those of this environment, so the file is for this kind of machine and this version of Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipapp
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from kdcli import __version__, registry
from kdcli.errors import KdError, PluginError
from kdcli.export import program
from kdcli.export.hub import without_folders
from kdcli.files import MARKER, atomic, check_output, sha256
from kdcli.student.student import load_student

UNUSED = shutil.ignore_patterns(
    *("__pycache__", "tests", "f2py", "distutils", "include", "scaffold", "*.a", "*.h", "*.pxd", "*.pyi")
)
"""What no prediction needs of a library."""
ABOUT_LIBRARY = ("METADATA", "entry_points.txt", "LICEN", "NOTICE", "COPYING")
"""Beginnings of the names of files about a library that are kept."""
_TRACE = """
import io, json, sys
before = set(sys.modules)
from kdcli.export.program import predicted
from kdcli.student.student import load_student
rows = "".join(predicted(load_student(sys.argv[1]), io.BytesIO(sys.argv[2].encode())))
print(json.dumps([rows, sorted({name.partition(".")[0] for name in set(sys.modules) - before})]))
"""


@dataclass(frozen=True)
class BinaryExport:
    """The result of an export."""

    file: Path
    megabytes: float  # 10^6 bytes
    runs_on: str  # version of Python, system and processor
    libraries: dict[str, str]  # what is inside, with versions


def export_binary(*, student: Path, output: Path, force: bool = False) -> BinaryExport:
    """Write a student as one file that predicts, right or not at all: it is tried on a text.

    Raises:
        DataError: The folder is not a student's, or the output exists.
        KdError: The file does not predict what the student predicts.
        PluginError: The student's plugin has no NumPy form.
    """
    check_output(output, [student], force=force)
    loaded = load_student(student)
    plugin = registry.find("students", loaded.config["plugin"])
    text = "\t".join(["a gripping film"] * len(loaded.task.columns))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    modules: list[str] = []
    if loaded.compute is not None:
        expected, modules = json.loads(_run([sys.executable, "-c", _TRACE, str(student), text], environment))
    if not modules or "torch" in modules:
        hint = "a student plugin says by its function `fast` how it predicts without; the plugin bilstm has one"
        raise PluginError(f"the student plugin {plugin.name} predicts with PyTorch alone", hint=hint)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    about = {"kd": __version__, "runs_on": f"{python} on {sysconfig.get_platform()}", "modules": program.MODULES}
    with tempfile.TemporaryDirectory() as place, atomic(output) as temporary:
        archive, packages = Path(place, "archive"), Path(place, "packages")
        content = archive / program.CONTENT
        shutil.copytree(student, content / "student", ignore=shutil.ignore_patterns(MARKER, "README.md", "config.json"))
        (content / "student" / "config.json").write_text(json.dumps(without_folders(loaded.config)), "utf-8")
        if plugin.file:
            (content / "plugin").mkdir()
            shutil.copyfile(plugin.file, content / "plugin" / plugin.file.name)
        libraries = _copy_libraries(modules, plugin.distribution, packages)
        about["digest"] = sha256(content)[:32] + sha256(packages)[:32]
        (archive / program.ABOUT).write_text(json.dumps(about), "utf-8")
        # A third less than in a zip file; weights are no smaller, and would take long.
        with tarfile.open(content / program.PACKAGES, "w:xz", preset=2) as tar:
            tar.add(packages, ".", filter=_without_owner)
        shutil.copyfile(program.__file__, archive / "__main__.py")
        zipapp.create_archive(archive, temporary, f"/usr/bin/env {python}", compressed=True)
        found = _run([sys.executable, "-I", str(temporary)], {**environment, "XDG_CACHE_HOME": place}, text)
        if found != expected:
            what = f"the file predicts {found.splitlines()[-1:]}, and the student {expected.splitlines()[-1:]}"
            raise KdError(what, hint="show the author of its plugin this message")
    output.chmod(output.stat().st_mode | 0o111)
    return BinaryExport(output, output.stat().st_size / 1e6, about["runs_on"], libraries)


def _without_owner(file: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make a file belong to whoever unpacks it: as root, Python would give it to this machine's user."""
    return file.replace(uid=0, gid=0, uname="", gname="", deep=False)


def _copy_libraries(modules: Iterable[str], plugin: str, folder: Path) -> dict[str, str]:
    """Copy the packages of imported modules, with what is said about them, and return their versions."""
    distributions, names = metadata.packages_distributions(), {plugin}
    folder.mkdir()
    for module in modules:
        spec = None if module in sys.stdlib_module_names or module.startswith("_") else find_spec(module)
        if spec is None or spec.origin is None:
            continue
        package = Path(spec.origin) if spec.submodule_search_locations is None else Path(spec.origin).parent
        for place in (package, package.with_name(f"{module}.libs")):
            if place.is_dir():
                shutil.copytree(place, folder / place.name, ignore=UNUSED)
            elif place.exists():
                shutil.copyfile(place, folder / place.name)
        names.update(distributions.get(module, []))
    found = {}
    for distribution in map(metadata.distribution, sorted(names)):
        found[distribution.name] = distribution.version
        for file in distribution.files or []:
            if ".dist-info" in file.parts[0] and file.name.startswith(ABOUT_LIBRARY):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), folder / file)
    return found


def _run(command: list[str], environment: dict[str, str], given: str = "") -> str:
    """Run a program that must succeed, and return what it prints."""
    done = subprocess.run(command, input=given.encode(), capture_output=True, env=environment)
    if done.returncode:
        what = f"the student does not predict in a process of its own: {done.stderr.decode(errors='replace')[-500:]}"
        raise KdError(what, hint="its plugin, or a package that it needs, may not be importable from here")
    return done.stdout.decode()
