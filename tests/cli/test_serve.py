import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from made_student import make_student

SERVE = [sys.executable, "-m", "kdcli", "serve", "--port", "0", "--json", "--student"]


def url_of(service):
    """Wait until it listens."""
    return json.loads("".join(iter(service.stdout.readline, "}\n")) + "}")["url"]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return make_student(tmp_path_factory.mktemp("made") / "student")


def test_what_cannot_be_served(student, tmp_path, kd, monkeypatch):
    serve = ("serve", "--student", student, "--port")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        kd.says(1, (f"port {port} is taken", "--port 0"), *serve, port)
    kd.says(1, ("192.0.2.1", "KD_TOKEN"), *serve, 0, "--host", "192.0.2.1")
    assert kd(*serve, 70_000)[0] == 2 and kd(*serve, 0, "--token", "")[0] == 2
    monkeypatch.setenv("KD_TOKEN", "")  # as `docker run -e KD_TOKEN=$NOT_SET` has it
    kd.says(2, "KD_TOKEN", *serve, 0)
    monkeypatch.delenv("KD_TOKEN")
    kd.says(4, "kd export web", *serve, 0, "--web", tmp_path)
    for name in [name for name in sys.modules if name.startswith("kdcli.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    kd.says(6, ("uvicorn", "pip install 'kdcli[serve]'"), *serve, 0)


def test_the_dockerfile_names_what_there_is(kd):
    root = Path(__file__).resolve().parents[2]
    lines = [line.partition(" ") for line in (root / "examples/Dockerfile").read_text().splitlines()]
    copied = [name for word, _, rest in lines if word == "COPY" for name in rest.split()[:-1]]
    shown = (root / "examples/Dockerfile.dockerignore").read_text().split()
    assert copied and all((root / name).exists() and f"!{name}" in shown for name in copied)
    (command,) = (json.loads(rest) for word, _, rest in lines if word == "CMD")
    code, out, _ = kd(*command[1:], "--help")
    assert code == 0 and command[0] == "kd" and all(flag in out for flag in command if flag.startswith("--"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_requests_are_answered(student, number):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*SERVE, student], env={**os.environ, "KD_TOKEN": "geheim"}, **pipes) as service:
        url = url_of(service)
        many = threading.Semaphore(0)

        def ask(client):
            body = json.dumps({"texts": [f"a good film {client}"] * 50}).encode()
            headers = {"Content-Type": "application/json", "Authorization": "Bearer geheim"}
            answered = 0
            while True:
                try:
                    with urllib.request.urlopen(urllib.request.Request(f"{url}/predict", body, headers)) as answer:
                        assert len(json.load(answer)["results"]) == 50
                except (urllib.error.URLError, ConnectionError) as error:
                    refused = getattr(error, "reason", error)
                    assert isinstance(refused, ConnectionError), error
                    return answered
                answered += 1
                many.release()

        with ThreadPoolExecutor(8) as clients:
            asking = [clients.submit(ask, client) for client in range(8)]
            for _ in range(40):
                assert many.acquire(timeout=60)
            service.send_signal(number)
            answered = sum(one.result(timeout=60) for one in asking)
        out, err = service.communicate(timeout=60)
    assert service.returncode == 0 and answered >= 40
    assert out == "" and err == "", "nothing is logged, least of all the token"


@pytest.mark.slow
def test_a_client_that_sends_half_a_request_does_not_keep_it(student):
    with subprocess.Popen([*SERVE, student], stdout=subprocess.PIPE, text=True) as service:
        url = url_of(service)
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
            client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 100")  # it waits for the body
            service.terminate()
            service.wait(timeout=60)
