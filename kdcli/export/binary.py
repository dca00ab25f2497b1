"""A student as one file that predicts: the student, its NumPy form, and the libraries that this needs.

The libraries are those of this environment, so the file is for this kind of machine and this version of Python.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipapp
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import torch

from kdcli import __version__, registry
from kdcli.errors import KdError, PluginError
from kdcli.export import program
from kdcli.export.hub import without_folders
from kdcli.files import atomic, check_output, sha256
from kdcli.student.build import round_tables
from kdcli.student.student import load_student

_UNUSED = shutil.ignore_patterns(
    *("__pycache__", "tests", "f2py", "distutils", "include", "scaffold", "*.a", "*.h", "*.pxd", "*.pyi"),
    *("RECORD", "direct_url.json"),
)
"""What no prediction needs of a library."""
_TRACE = """
import io, json, sys
from kdcli.export.program import predicted
from kdcli.student.student import load_student
rows = "".join(predicted(load_student(sys.argv[1]), io.BytesIO(sys.argv[2].encode())))
print(json.dumps([rows, {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}]))
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

    Word vectors are stored in float16, as a student's folder has them. The student's plugin must have a NumPy form.
    """
    check_output(output, [student], force=force)
    loaded = load_student(student)
    plugin = registry.find("students", loaded.config["plugin"])
    text = "\t".join(["a gripping film"] * len(loaded.task.columns))
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    about = {"kd": __version__, "runs_on": f"{python} on {sysconfig.get_platform()}", "modules": program.MODULES}
    with tempfile.TemporaryDirectory() as place, atomic(output) as temporary:
        packages, content = Path(place, "packages"), Path(place, "archive", program.CONTENT)
        packages.mkdir()
        rounded = round_tables(loaded.module, {name: torch.from_numpy(each) for name, each in loaded.weights.items()})
        weights = {name: each.numpy() for name, each in rounded.items()}
        replace(loaded, config=without_folders(loaded.config), weights=weights).save(content / "student")
        command = sys.executable, "-c", _TRACE, str(content / "student"), text
        expected, files = json.loads(_run(*command, cache=place)) if loaded.compute else ("", {"torch": ""})
        if "torch" in files:
            hint = "a student plugin says by its function `fast` how it predicts without; the plugin bilstm has one"
            raise PluginError(f"the student plugin {plugin.name} predicts with PyTorch alone", hint=hint)
        if plugin.file:
            (content / "plugin").mkdir()
            shutil.copyfile(plugin.file, content / "plugin" / plugin.file.name)
        libraries = _copy_libraries(files, "kdcli" if plugin.file else plugin.distribution, packages)
        shutil.make_archive(str(content / "packages"), "xztar", packages, owner="root", group="root")
        program.swap(content / "student" / program.WEIGHTS, apart=True)
        about["digest"] = sha256(content)
        content.with_name(program.ABOUT).write_text(json.dumps(about), "utf-8")
        shutil.copyfile(program.__file__, content.with_name("__main__.py"))
        zipapp.create_archive(content.parent, temporary, f"/usr/bin/env {python}", compressed=True)
        found = _run(sys.executable, "-I", str(temporary), cache=place, given=text)
        if found != expected:
            what = f"the file predicts {found.splitlines()[-1:]}, and the student {expected.splitlines()[-1:]}"
            raise KdError(what, hint="show the author of its plugin this message")
    output.chmod(output.stat().st_mode | 0o111)
    return BinaryExport(output, output.stat().st_size / 1e6, about["runs_on"], libraries)


def _copy_libraries(files: Mapping[str, str | None], plugin: str, folder: Path) -> dict[str, str]:
    """Copy the packages of imported modules, with what is said about them, and return their versions."""
    distributions, names, places = metadata.packages_distributions(), {plugin}, set()
    for module, file in files.items():
        if not file or "." in module or module.startswith("_") or module in sys.stdlib_module_names:
            continue
        package = Path(file).parent if Path(file).name.startswith("__init__.") else Path(file)
        places |= {package, package.with_name(f"{module}.libs")}
        names.update(distributions.get(module, []))
    found = list(map(metadata.distribution, sorted(names)))
    for one in found:
        tops = {file.parts[0] for file in one.files or [] if ".dist-info" in file.parts[0]}
        places |= {Path(str(one.locate_file(top))) for top in tops}
    for place in places:
        if place.is_dir():
            shutil.copytree(place, folder / place.name, ignore=_UNUSED)
        elif place.exists():
            shutil.copy(place, folder)
    return {one.name: one.version for one in found}


def _run(*command: str, cache: str, given: str = "") -> str:
    """Run a program that must succeed, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "XDG_CACHE_HOME": cache}
    done = subprocess.run(command, input=given.encode(), capture_output=True, env=environment)
    if done.returncode:
        what = f"the student does not predict in a process of its own: {done.stderr.decode(errors='replace')[-500:]}"
        raise KdError(what, hint="its plugin, or a package that it needs, may not be importable from here")
    return done.stdout.decode()
