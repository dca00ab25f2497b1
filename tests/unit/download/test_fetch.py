import errno
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kdcli.api import QuietReporter
from kdcli.download import fetch as fetch_module
from kdcli.download.fetch import fetch
from kdcli.errors import DataError, KdError, MissingError, UsageError

BODY = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()
TAG = '"one"'


class Server(ThreadingHTTPServer):
    """Answers each request as the next of its ``answers`` wants, and after the last as that one."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = []
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self):
        return [headers.get("Range") for _, headers in self.asked]

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
def server(monkeypatch):
    monkeypatch.setattr(fetch_module, "BACKOFF", 0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def whole(handler, body=BODY, tag=TAG):
    """Serve a file as a good server does, pieces of it too."""
    wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if wanted and handler.headers.get("If-Range") == tag:
        begin = int(wanted[1])
        if begin >= len(body):
            return handler.send(416, Content_Range=f"bytes */{len(body)}")
        piece = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        return handler.send(206, body[begin:], ETag=tag, Content_Range=piece)
    return handler.send(200, body, ETag=tag)


def broken(count, **headers):
    """Break off after so many bytes of a file that is announced whole."""
    return lambda handler: handler.send(200, BODY[:count], length=len(BODY), **{"ETag": TAG, **headers})


def says(status, **headers):
    return lambda handler: handler.send(status, b"no", **headers)


def parts(folder):
    return sorted(path.name for path in folder.iterdir())


class Progress(QuietReporter):
    def __init__(self):
        self.steps, self.total, self.said = [], None, []

    def progress(self, title, total=None, unit="rows"):
        self.total, self.unit = total, unit
        return super().progress(title, total, unit)

    def advance(self, steps=1, **shown):
        self.steps.append(steps)

    def info(self, message):
        self.said.append(message)


def test_a_file_comes_whole(server, tmp_path):
    server.answers = [whole]
    progress = Progress()
    fetch(f"{server.url}/a.zip", tmp_path / "new" / "a.zip", digest=DIGEST.upper(), reporter=progress)
    assert (tmp_path / "new" / "a.zip").read_bytes() == BODY
    assert parts(tmp_path / "new") == ["a.zip"]
    assert (sum(progress.steps), progress.total, progress.unit) == (len(BODY), len(BODY), "bytes")
    assert len(server.asked) == 1 and server.asked[0][1]["Accept-Encoding"] == "identity"


def test_it_goes_on_after_a_break(server, tmp_path):
    def again(handler):
        whole(handler, BODY)

    server.answers = [broken(1000), again]
    progress = Progress()
    fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST, reporter=progress)
    assert (tmp_path / "a").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]
    assert server.asked[1][1]["If-Range"] == TAG
    assert sum(progress.steps) >= len(BODY)


def test_a_killed_process_leaves_a_part_that_another_goes_on_with(server, tmp_path):
    class Killed(BaseException):
        pass

    class Killer(Progress):
        def advance(self, steps=1, **shown):
            super().advance(steps)
            if sum(self.steps) > 0:
                raise Killed

    server.answers = [broken(200_000), whole]
    with pytest.raises(Killed):
        fetch(f"{server.url}/a", tmp_path / "a", reporter=Killer())
    assert parts(tmp_path) == ["a.part", "a.part.json"]
    begun = (tmp_path / "a.part").stat().st_size
    assert begun > 0
    fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert server.ranges == [None, f"bytes={begun}-"]


@pytest.mark.parametrize(
    "notes", [None, "{", "[]", '{"url": "http://127.0.0.1/other", "validator": "\\"one\\""}', '{"validator": 3}']
)
def test_a_part_of_something_else_is_not_gone_on_with(notes, server, tmp_path):
    (tmp_path / "a.part").write_bytes(b"something else")
    if notes:
        (tmp_path / "a.part.json").write_text(notes)
    server.answers = [whole]
    fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert server.ranges == [None]


def test_a_file_that_changes_between_two_tries_starts_again(server, tmp_path):
    other = BODY[::-1]
    server.answers = [broken(1000), lambda handler: whole(handler, other, '"two"')]
    fetch(f"{server.url}/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == other


def test_last_modified_serves_where_the_tag_is_weak(server, tmp_path):
    date = "Tue, 01 Jan 2019 00:00:00 GMT"
    server.answers = [broken(10, ETag='W/"weak"', Last_Modified=date), lambda handler: whole(handler, tag=date)]
    fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert server.asked[1][1]["If-Range"] == date


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler: handler.send(206, BODY[500:], Content_Range=f"bytes 500-{len(BODY) - 1}/{len(BODY)}"),
        lambda handler: handler.send(206, BODY, Content_Range="nonsense"),
        lambda handler: handler.send(416, Content_Range="bytes */20"),
    ],
    ids=["another piece", "no range", "not satisfiable"],
)
def test_a_piece_that_was_not_asked_for_is_not_appended(answer, server, tmp_path):
    server.answers = [broken(1000), answer, whole]
    fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert server.ranges == [None, "bytes=1000-", None]


def test_a_length_that_is_never_reached_is_given_up_and_the_part_stays(server, tmp_path):
    server.answers = [lambda handler: handler.send(200, BODY, length=len(BODY) + 1, ETag=TAG)]
    with pytest.raises(KdError, match="breaks off again and again, after 256,000 bytes") as raised:
        fetch(f"{server.url}/a", tmp_path / "a")
    assert raised.value.exit_code == 1 and raised.value.file == f"{server.url}/a"
    assert len(server.asked) == 1 + fetch_module.TRIES
    assert parts(tmp_path) == ["a.part", "a.part.json"]


def test_a_file_without_the_expected_hash_is_refused_and_leaves_nothing(server, tmp_path):
    server.answers = [lambda handler: handler.send(200, BODY[:-1], length="none")]
    with pytest.raises(DataError) as raised:
        fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert DIGEST in raised.value.what and raised.value.file == f"{server.url}/a"
    assert parts(tmp_path) == []
    fetch(f"{server.url}/a", tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == len(BODY) - 1


def test_redirects_are_followed(server, tmp_path):
    server.answers = [says(302, Location="/elsewhere"), whole]
    fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert [path for path, _ in server.asked] == ["/a", "/elsewhere"]


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_file_that_is_not_there(status, server, tmp_path):
    server.answers = [says(status)]
    with pytest.raises(MissingError, match=f"does not give the file: {status}") as raised:
        fetch(f"{server.url}/a", tmp_path / "a")
    error = raised.value
    assert error.exit_code == 6 and error.file == f"{server.url}/a"
    assert "--url" in error.hint and str(tmp_path / "a") in error.hint
    assert len(server.asked) == 1
    assert parts(tmp_path) == []


def test_a_server_that_stays_busy_is_given_up(server, tmp_path):
    server.answers = [says(503, Retry_After="0")]
    with pytest.raises(MissingError, match="503 Service Unavailable") as raised:
        fetch(f"{server.url}/a", tmp_path / "a")
    assert "--url" in raised.value.hint
    assert len(server.asked) == 1 + fetch_module.TRIES


def test_no_server(server, tmp_path):
    with pytest.raises(MissingError, match=r"cannot be reached: .*refused") as raised:
        fetch("http://127.0.0.1:9/a", tmp_path / "a")
    assert "HTTPS_PROXY" in raised.value.hint and str(tmp_path / "a") in raised.value.hint


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a", "http://", "nonsense://x"])
def test_no_address(url, tmp_path):
    with pytest.raises(UsageError, match="not the address"):
        fetch(url, tmp_path / "a")


def test_a_proxy_of_the_environment_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    server.answers = [whole]
    fetch("http://somewhere.invalid/a", tmp_path / "a", digest=DIGEST)
    assert server.asked[0][0] == "http://somewhere.invalid/a"


def test_a_full_disk_leaves_the_part(server, tmp_path, monkeypatch):
    class Full(Progress):
        def advance(self, steps=1, **shown):
            super().advance(steps)
            if sum(self.steps):
                raise OSError(errno.ENOSPC, "No space left on device")

    server.answers = [broken(100_000), whole]
    with pytest.raises(KdError, match="the disk is full"):
        fetch(f"{server.url}/a", tmp_path / "a", reporter=Full())
    assert 0 < (tmp_path / "a.part").stat().st_size <= 100_000
    fetch(f"{server.url}/a", tmp_path / "a", digest=DIGEST)
    assert server.ranges[1].startswith("bytes=")


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
