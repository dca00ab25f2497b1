import hashlib
import io
import os
import tarfile
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from raising import raising

from kdcli.api import QuietReporter
from kdcli.download.fetch import fetch as fetch_file, is_archive, unpack
from kdcli.errors import DataError, KdError, MissingError

BODY = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()


def fetch(url, output, *, digest=None, size=None, reporter=QuietReporter()):
    fetch_file(url, output, digest=digest, size=size, by_hand=output, reporter=reporter)


class Server(ThreadingHTTPServer):
    """Answers each request as the next of its ``answers`` wants, and after the last as that one."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = []
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Say nothing: connections break off here on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, self.headers))
        number = min(len(self.server.asked), len(self.server.answers)) - 1
        self.server.answers[number](self)

    def log_message(self, *args):
        pass

    def send(self, status, body=b"", *, length=None):
        """Send so much body, whatever length is announced; a wrong one ends the connection."""
        self.send_response(status)
        length = len(body) if length is None else length
        if length != "none":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = length != len(body)


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def whole(handler):
    handler.send(200, BODY)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_comes_whole(server, tmp_path, notes):
    server.answers = [whole]
    output = tmp_path / "new" / "a.zip"
    fetch(f"{server.url}/a.zip", output, digest=DIGEST, size=len(BODY), reporter=notes)
    assert contents(output.parent) == {"a.zip": BODY}
    assert notes.rows >= notes.total == len(BODY)
    assert len(server.asked) == 1 and server.asked[0][1]["Accept-Encoding"] == "identity"


def test_a_file_without_the_expected_hash_is_refused_and_leaves_nothing(server, tmp_path):
    server.answers = [lambda handler: handler.send(200, BODY[:-1], length="none")]
    with raising(DataError, file=f"{server.url}/a", what=DIGEST):
        fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert contents(tmp_path) == {}
    fetch(f"{server.url}/a", tmp_path / "a")
    assert contents(tmp_path) == {"a": BODY[:-1]}


def test_a_break_is_an_error_and_leaves_nothing(server, tmp_path):
    (tmp_path / "a").write_text("old")
    server.answers = [lambda handler: handler.send(200, BODY[:1000], length=len(BODY)), whole]
    with raising(MissingError, file=f"{server.url}/a"):
        fetch(f"{server.url}/a", tmp_path / "a")
    assert contents(tmp_path) == {"a": b"old"}
    fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert contents(tmp_path) == {"a": BODY}


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_file_that_is_not_there(status, server, tmp_path):
    server.answers = [lambda handler: handler.send(status, b"no")]
    url, hint = f"{server.url}/a", ("--url", str(tmp_path / "a"))
    with raising(MissingError, f"cannot be downloaded: {status}", exit_code=6, file=url, hint=hint):
        fetch(url, tmp_path / "a")
    assert len(server.asked) == 1 and contents(tmp_path) == {}


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a", "ftp://127.0.0.1/a", "http://", "nonsense://x"])
def test_no_server_or_no_address(url, tmp_path):
    with raising(MissingError, hint=("HTTPS_PROXY", str(tmp_path / "a"))):
        fetch(url, tmp_path / "a")


def test_two_at_once_do_not_write_the_same_part(server, tmp_path):
    inside, outcome = threading.Event(), []

    def slow(handler):
        try:
            fetch(f"{server.url}/a", tmp_path / "a")
        except KdError as error:
            outcome.append(str(error))
        inside.set()
        whole(handler)

    server.answers = [slow]
    fetch(f"{server.url}/a", tmp_path / "a")
    assert inside.is_set() and outcome and "another kd downloads this file now" in outcome[0]
    assert contents(tmp_path) == {"a": BODY}


FILES = {"a.txt": b"one\ntwo\n", "deep/empty": b"", "deep/er/b.tsv": b"sentence\tlabel\n"}


def zipped(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path, files=FILES, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


FORMS = {"zip": zipped, "tar": tarred, "tar.gz": partial(tarred, mode="w:gz")}
every_form = pytest.mark.parametrize("form", FORMS)


@every_form
def test_all_files_are_unpacked_or_one_alone(form, tmp_path):
    archive = FORMS[form](tmp_path / "download")
    assert is_archive(archive)
    assert unpack(archive, tmp_path / "out") == [tmp_path / "out" / name for name in FILES]
    assert contents(tmp_path / "out") == FILES
    assert unpack(archive, tmp_path / "one", only="b.tsv") == [tmp_path / "one" / "deep/er/b.tsv"]
    assert list(contents(tmp_path / "one")) == ["deep/er/b.tsv"]
    with pytest.raises(DataError, match=r"holds no c\.txt"):
        unpack(archive, tmp_path / "out2", only="c.txt")


@every_form
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil"])
def test_nothing_leaves_the_folder(form, name, tmp_path):
    archive = FORMS[form](tmp_path / "x", {"first": b"1", name: b"evil"})
    try:
        found = unpack(archive, tmp_path / "in" / "out")
    except DataError:  # of a tar
        found = []
    assert all(path.is_relative_to(tmp_path / "in" / "out") for path in found)
    assert {path.name for path in tmp_path.iterdir()} <= {"x", "in"}


def test_links_out_of_the_folder(tmp_path):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with pytest.raises(DataError):
        unpack(tarred(tmp_path / "tar", {link: b""}), tmp_path / "out")


@every_form
def test_an_archive_that_is_cut_or_is_none(form, tmp_path):
    archive = FORMS[form](tmp_path / "x", {"a": os.urandom(5000), "b": os.urandom(5000)})
    data = archive.read_bytes()
    for content in (data[: len(data) // 2], data[:700], b"<!DOCTYPE html><title>Sign in</title>", b""):
        archive.write_bytes(content)
        with raising(DataError, file=archive, hint=True):
            unpack(archive, tmp_path / "out")
