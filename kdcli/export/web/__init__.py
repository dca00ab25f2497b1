"""A student as a web page that needs no server of ours: it runs in the browser, on WebAssembly.

The page reads the student as ONNX by onnxruntime-web, and its vocabulary by @huggingface/tokenizers. Both come from npm
in one pinned version, and their archives are checked.
"""

import base64
import gzip
import math
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import jinja2

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter
from kdcli.download.fetch import fetch, unpack
from kdcli.errors import DataError, MissingError
from kdcli.export.onnx import MODEL, export_onnx
from kdcli.files import atomic, check_output, sha256
from kdcli.student.student import Student, load_student
from kdcli.student.vocabulary import FILE as TOKENIZER

PAGE = "index.html"


class Library(NamedTuple):
    """A package of npm, and the files of it that the page reads."""

    name: str
    version: str
    licence: str
    sha256: str  # of its archive
    files: tuple[str, ...]

    @property
    def archive(self) -> str:
        """The name that ``npm pack`` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


LIBRARIES = (
    Library(
        *("onnxruntime-web", "1.30.0", "MIT"),
        "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
        ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    ),
    Library(
        *("@huggingface/tokenizers", "0.2.0", "Apache-2.0"),
        "2800014c83b8186b2e4210c20672f1fb65a12cef85d7e95e0f2003e022611b4a",
        ("tokenizers.min.mjs",),
    ),
)
PACK = f"npm pack {' '.join(f'{library.name}@{library.version}' for library in LIBRARIES)}"
WITHOUT_NPM = f"--runtime https://REGISTRY (npm's) needs no npm, and --runtime FOLDER no network: run there {PACK}"


@dataclass(frozen=True)
class WebExport:
    """The result of an export: the size of each file, 10^6 bytes."""

    output: Path
    task: str
    megabytes: dict[str, float]


def export_web(
    *,
    student: Path,
    output: Path,
    single: bool = False,
    runtime: str | None = None,
    force: bool = False,
    reporter: Reporter = QuietReporter(),
) -> WebExport:
    """Write a student as a web page, whole or not at all: a folder for any web server, or a ``single`` file.

    ``runtime`` is a folder with what ``npm pack`` writes of ``LIBRARIES``, or the address of a registry; by default npm
    fetches them. ``force`` replaces an earlier export.
    """
    check_output(output, [student], force=force)
    loaded = load_student(student)
    with TemporaryDirectory() as name:
        files = _library_files(Path(name), runtime, reporter)
        onnx = Path(name) / "onnx"
        export_onnx(student=student, output=onnx, int8=False, reporter=reporter)
        files |= {file: onnx / file for file in (MODEL, TOKENIZER)}
        with atomic(output) as target:
            if single:
                zipped = {file: gzip.compress(path.read_bytes(), mtime=0) for file, path in files.items()}
                packed = {file: base64.b64encode(content).decode("ascii") for file, content in zipped.items()}
                target.write_text(_page(loaded, files, packed), "utf-8")
                sizes = {output.name: target.stat().st_size / 1e6}
            else:
                target.mkdir()
                (target / PAGE).write_text(_page(loaded, files, {}), "utf-8")
                for file, path in files.items():
                    shutil.copyfile(path, target / file)
                sizes = {file.name: file.stat().st_size / 1e6 for file in sorted(target.iterdir())}
    return WebExport(output, loaded.task.name, sizes)


def _page(student: Student, files: Mapping[str, Path], packed: Mapping[str, str]) -> str:
    """Fill in the page; ``packed`` are the files that it holds itself."""
    calibration, deferral = student.calibration, None
    if calibration is not None:
        threshold = calibration.threshold()
        least = None if threshold == math.inf else max(threshold, -1e300)  # JSON has no infinity
        deferral = {"agree": calibration.agree, "threshold": least, **asdict(calibration.familiar)}
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html").render(
        task=student.task,
        config={"task": asdict(student.task), "max_length": student.config["max_length"], "deferral": deferral},
        megabytes=math.ceil(sum(file.stat().st_size for file in files.values()) / 1e6),
        libraries=LIBRARIES,
        version=__version__,
        packed=packed,
    )


def _library_files(folder: Path, runtime: str | None, reporter: Reporter) -> dict[str, Path]:
    """Return the files of the libraries by name, unpacked into a folder."""
    place, found = folder if runtime is None or "://" in runtime else Path(runtime), {}
    if runtime is None:
        _pack(folder)
    for library in LIBRARIES:
        archive = place / library.archive
        if runtime is not None and place is folder:
            url = f"{runtime.rstrip('/')}/{library.name}/-/{library.name.rpartition('/')[2]}-{library.version}.tgz"
            try:
                fetch(url, archive, digest=None, size=None, by_hand=archive, reporter=reporter)
            except MissingError as error:
                raise MissingError(error.what, file=error.file, hint=WITHOUT_NPM) from error
        if not archive.is_file():
            raise MissingError(f"{library.archive} is not in this folder", file=place, hint=f"run there: {PACK}")
        if sha256(archive) != library.sha256:
            raise DataError("this is another archive: its SHA-256 differs", file=archive, hint=f"run again: {PACK}")
        for name in library.files:
            found[name] = unpack(archive, folder / name, only=name)[0]
    return found


def _pack(folder: Path) -> None:
    """Have npm put the archives into a folder, from its cache or the network."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingError("there is no npm here, which fetches the libraries of the page", hint=WITHOUT_NPM)
    command = [npm, *PACK.split()[1:], "--prefer-offline", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise MissingError(f"npm cannot fetch the libraries: {' '.join(done.stderr.split())[:200]}", hint=WITHOUT_NPM)
