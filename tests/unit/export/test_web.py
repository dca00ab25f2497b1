import base64
import gzip
import io
import json
import re
import shutil
import tarfile
from dataclasses import replace
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from threading import Thread

import pytest
from made_student import SINGLE, make_student
from raising import raising

from kdcli.errors import DataError, MissingError
from kdcli.export import web
from kdcli.export.web import LIBRARIES, export_web
from kdcli.student.deferral import Calibration, Familiar

FILES = {name for library in LIBRARIES for name in library.files} | {"index.html", "model.onnx", "tokenizer.json"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder of archives that look like those of npm, and their descriptions."""
    folder, libraries = tmp_path_factory.mktemp("npm"), []
    for library in LIBRARIES:
        with tarfile.open(folder / library.archive, "w:gz") as archive:
            for name in (*library.files, "another.js"):
                content = f"the content of {name}".encode()
                info = tarfile.TarInfo(f"package/dist/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        digest = sha256((folder / library.archive).read_bytes()).hexdigest()
        libraries.append(library._replace(sha256=digest))
    return folder, tuple(libraries)


@pytest.fixture
def runtime(packed, monkeypatch):
    monkeypatch.setattr(web, "LIBRARIES", packed[1])
    return str(packed[0])


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    task = replace(SINGLE, name="</script><b>toy", labels=("<no>", "yes"), names=())
    folder = make_student(tmp_path_factory.mktemp("made") / "student", task)
    Calibration(99, 0.9, Familiar(0.5, 20), [1.25], [0.05, 0.2], [0.5, 1.0]).save(folder / "calibration.json")
    return folder


def config_of(page):
    return json.loads(re.search(r'<script type="application/json" id="config">(.*?)</script>', page, re.DOTALL)[1])


def test_a_folder(tmp_path, student, runtime):
    found = export_web(student=student, output=tmp_path / "web", runtime=runtime)
    assert set(found.megabytes) == FILES == {path.name for path in (tmp_path / "web").iterdir()} - {".kdfiles"}
    page = (tmp_path / "web" / "index.html").read_text("utf-8")
    assert "</script><b>" not in page and "://" not in page.replace("data:", "")
    assert all(f"{library.name} {library.version} ({library.licence})" in page for library in LIBRARIES)
    config = config_of(page)
    assert config["task"]["labels"] == ["<no>", "yes"] and config["max_length"] == 12
    assert config["deferral"] == {"agree": 0.9, "threshold": 1.25, "unknown": 0.5, "words": 20}
    with pytest.raises(DataError, match="exists already"):
        export_web(student=student, output=tmp_path / "web", runtime=runtime)


def test_a_single_file_holds_the_others(tmp_path, student, runtime, packed):
    export_web(student=student, output=tmp_path / "page.html", single=True, runtime=runtime)
    page = (tmp_path / "page.html").read_text("utf-8")
    held = dict(re.findall(r'<script type="text/plain" id="(.*?)">(.*?)</script>', page))
    assert set(held) == FILES - {"index.html"}
    for library in LIBRARIES:
        for name in library.files:
            assert gzip.decompress(base64.b64decode(held[name])).decode() == f"the content of {name}"


@pytest.mark.parametrize(("bounds", "threshold"), [([0.3, 0.4], None), ([0.01, 0.02], -1e300)])
def test_a_student_that_defers_all_texts_or_none(tmp_path, runtime, bounds, threshold):
    calibration = Calibration(99, 0.9, Familiar(0.5, 20), [1.25], bounds, [0.5, 1.0])
    assert calibration.threshold() == (inf if threshold is None else -inf)
    folder = make_student(tmp_path / "student")
    calibration.save(folder / "calibration.json")
    page = web._page(web.load_student(folder), {}, {})
    assert config_of(page)["deferral"]["threshold"] == threshold
    (folder / "calibration.json").unlink()
    assert config_of(web._page(web.load_student(folder), {}, {}))["deferral"] is None


def test_libraries_that_are_not_there(tmp_path, student, runtime, monkeypatch):
    def refused(kind, what, hint=(), **more):
        with raising(kind, what, hint=hint):
            export_web(student=student, output=tmp_path / "web", **more)
        assert not (tmp_path / "web").exists()

    (tmp_path / "empty").mkdir()
    pack = "npm pack onnxruntime-web@1.30.0 @huggingface/tokenizers@0.2.0"
    refused(MissingError, "onnxruntime-web-1.30.0.tgz is not in", pack, runtime=str(tmp_path / "empty"))
    other = shutil.copytree(runtime, tmp_path / "other")
    (other / LIBRARIES[1].archive).write_bytes(b"another")
    refused(DataError, "SHA-256", runtime=str(other))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refused(MissingError, "no npm", "--runtime https://REGISTRY")
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho npm error code ENOTFOUND >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(npm))
    refused(MissingError, "code ENOTFOUND", "--runtime")
    npm.write_text(f"#!/bin/sh\ncp {runtime}/*.tgz .\n")
    export_web(student=student, output=tmp_path / "web")


def test_libraries_of_a_registry(tmp_path, student, runtime, packed):
    registry = tmp_path / "registry"
    for library in packed[1]:
        folder = registry / library.name / "-"
        folder.mkdir(parents=True)
        shutil.copy(packed[0] / library.archive, folder / library.archive.removeprefix("huggingface-"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=registry))
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    export_web(student=student, output=tmp_path / "web", runtime=f"{url}/")
    with raising(MissingError, "404", hint="--runtime FOLDER"):
        export_web(student=student, output=tmp_path / "two", runtime=f"{url}/elsewhere")
    assert not (tmp_path / "two").exists()
    server.shutdown()
