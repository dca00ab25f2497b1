import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kdcli.api import QuietReporter
from kdcli.download.fetch import fetch as fetch_file
from kdcli.errors import DataError, KdError, MissingError

BODY = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()


def fetch(url, output, *, digest=None, size=None, reporter=None):
    fetch_file(url, output, digest=digest, size=size, by_hand=output, reporter=reporter or QuietReporter())


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

    def send(self, status, body=b"", *, length=None, **headers):
        """Send so much body, whatever length is announced; a wrong one ends the connection."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
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


def broken(count):
    """Break off after so many bytes of a file that is announced whole."""
    return lambda handler: handler.send(200, BODY[:count], length=len(BODY))


def says(status, **headers):
    return lambda handler: handler.send(status, b"no", **headers)


def parts(folder):
    return sorted(path.name for path in folder.iterdir())


class Counting(QuietReporter):
    def __init__(self):
        self.count = 0

    def progress(self, title, total=None, unit="rows"):
        self.shown = title, total, unit
        return super().progress(title, total, unit)

    def advance(self, steps=1, **shown):
        self.count += steps


def test_a_file_comes_whole(server, tmp_path):
    server.answers = [whole]
    output, counting = tmp_path / "new" / "a.zip", Counting()
    fetch(f"{server.url}/a.zip", output, digest=DIGEST, size=len(BODY), reporter=counting)
    assert (tmp_path / "new" / "a.zip").read_bytes() == BODY
    assert parts(tmp_path / "new") == ["a.zip"]
    assert counting.shown == ("a.zip", len(BODY), "bytes")
    assert counting.count >= len(BODY)
    assert len(server.asked) == 1 and server.asked[0][1]["Accept-Encoding"] == "identity"


def test_a_file_without_the_expected_hash_is_refused_and_leaves_nothing(server, tmp_path):
    server.answers = [lambda handler: handler.send(200, BODY[:-1], length="none")]
    with pytest.raises(DataError) as raised:
        fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert DIGEST in raised.value.what and raised.value.file == f"{server.url}/a"
    assert parts(tmp_path) == []
    fetch(f"{server.url}/a", tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == len(BODY) - 1


def test_a_break_is_an_error_and_leaves_nothing(server, tmp_path):
    (tmp_path / "a").write_text("old")
    server.answers = [broken(1000), whole]
    with pytest.raises(MissingError) as raised:
        fetch(f"{server.url}/a", tmp_path / "a")
    assert raised.value.file == f"{server.url}/a"
    assert parts(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"
    fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_file_that_is_not_there(status, server, tmp_path):
    server.answers = [says(status)]
    with pytest.raises(MissingError, match=f"cannot be downloaded: {status}") as raised:
        fetch(f"{server.url}/a", tmp_path / "a")
    error = raised.value
    assert error.exit_code == 6 and error.file == f"{server.url}/a"
    assert "--url" in error.hint and str(tmp_path / "a") in error.hint
    assert len(server.asked) == 1
    assert parts(tmp_path) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a", "ftp://127.0.0.1/a", "http://", "nonsense://x"])
def test_no_server_or_no_address(url, tmp_path):
    with pytest.raises(MissingError) as raised:
        fetch(url, tmp_path / "a")
    assert "HTTPS_PROXY" in raised.value.hint and str(tmp_path / "a") in raised.value.hint


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
    assert parts(tmp_path) == ["a"]
