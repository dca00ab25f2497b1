import json
import socket
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest
from raising import raising

from kdcli import registry
from kdcli.errors import MissingError
from kdcli.parts import ray_engine
from kdcli.parts.ray_actor import fault_of, report
from kdcli.parts.ray_engine import RayEngine

WORK = Path(__file__).resolve().parents[2] / "ray_work.py"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """What the work of ``ray_work`` has given on a Ray of this machine."""
    folder = tmp_path_factory.mktemp("ray")
    done = subprocess.run([sys.executable, str(WORK), str(folder)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    assert printed.count("a line of a task") == 5  # those of the local engine alone
    return json.loads(last)


def test_both_engines_make_the_same_parts_and_what_a_task_writes_into_its_data_is_its_own(work):
    assert work["ray"] == work["local"] != ""
    assert work["local"].splitlines()[4] == "4 500000.0 from a file"
    assert work["untouched"]


def test_models_come_back_as_folders_with_what_their_training_said(work):
    local, ray = work["learned"]["local"], work["learned"]["ray"]
    assert ray["text"] == local["text"] == ["7 from a file", "2 from a file"]
    points = [["student", part, {"loss": 0.5}] for part in (2, 7)]
    assert ray["said"] == local["said"] == [["2 is odd", "7 is odd"], points]
    assert ray["values"] == {"7": [7, "1"], "2": [2, "1"]}, "as many threads as cores"


def test_errors_of_kd_arrive_as_they_are_at_once(work):
    assert (work["kd"]["kind"], work["kd"]["code"], work["kd"]["tries"]) == ("ProfileError", 3, 1)
    assert work["kd"]["what"] == "wrong (key a.key)" and work["kd"]["hint"].startswith("set it")
    assert work["several"]["kind"] == "ValidationErrors"
    assert work["several"]["what"] == "wrong (key a); wrong (key b)"


@pytest.mark.parametrize(("kind", "said"), [("exit", "enough"), ("die", "died"), ("error", "disk of this node")])
def test_a_part_that_fails_three_times_stops_the_run_with_its_rows(work, kind, said):
    assert work[kind]["tries"] == 3 and 3 not in work[kind]["finished"]
    assert "rows 10 to 12" in work[kind]["what"] and said in work[kind]["what"]


def test_a_part_whose_process_dies_is_made_again(work):
    assert work["die once"] == {"tries": 2, "finished": [0, 1, 2, 3, 4]}
    assert work["shown"].keys() == {"nodes", "in_flight"} and work["shown"]["nodes"] == "1"


@pytest.mark.parametrize("name", ["Python", "kd", "torch"])
def test_a_node_with_another_version_is_named(name):
    ours = report({})
    assert fault_of({**ours, "node": "elsewhere"}, ours) is None
    fault = fault_of({**ours, "node": "elsewhere", name: "0.1"}, ours)
    assert isinstance(fault, MissingError) and "elsewhere" in fault.what
    assert f"{name} 0.1" in fault.what and ours[name] in fault.what


def test_a_node_without_a_plugin_that_is_needed_is_named(make_plugin, monkeypatch):
    monkeypatch.setattr(registry, "used", {})
    ours = report(registry.used)
    make_plugin("kd-own", "[kdcli.taggers]\nown = kd_own\n", "api_version = 2\ndef tag(texts): ...", module="kd_own")
    assert fault_of({**ours, "node": "elsewhere"}, report(registry.used)) is None, "it has not been chosen"
    registry.load("taggers", "own")
    ours, (name,) = report(registry.used), registry.used
    assert fault_of(report(registry.all_versions()), ours) is None
    for there in ({}, {name: "0.0.1"}):
        node = {key: value for key, value in ours.items() if key != name} | {"node": "elsewhere", **there}
        fault = fault_of(node, ours)
        assert isinstance(fault, MissingError) and "elsewhere" in fault.what and f"{name} {ours[name]}" in fault.what
        assert (f"{name} 0.0.1" if there else f"no {name}") in fault.what


def test_a_gpu_that_no_node_has_is_an_error(monkeypatch):
    for gpus, asked, given in ((0, "auto", "cpu"), (2, "auto", "cuda"), (2, "cuda", "cuda"), (2, "cpu", "cpu")):
        monkeypatch.setattr(RayEngine, "_slots", lambda self, device, gpus=gpus: gpus)
        assert RayEngine("", asked).device("cpu") == given
    monkeypatch.setattr(RayEngine, "_slots", lambda self, device: 0)
    with raising(MissingError, key="device", exit_code=6):
        RayEngine("", "cuda:1").device("cpu")


def test_builds_of_one_torch_are_the_same(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0+cu130")
    assert report({})["torch"] == "2.13.0"


def test_without_ray_the_error_has_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with raising(MissingError, exit_code=6, hint="pip install 'kdcli[ray]'"):
        RayEngine().start()


def answering(answer: bytes | None):
    """Return the port of a server that answers every connection so; None: not at all."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        connections = []
        while True:
            connections.append(server.accept()[0])
            if answer is not None:
                connections[-1].sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_an_address_where_no_ray_answers_is_an_error_soon(monkeypatch, answer):
    monkeypatch.setattr(ray_engine, "_SECONDS", 0.4)
    address = f"127.0.0.1:{answering(answer)}"
    with raising(MissingError, key="ray_address", what=address):
        RayEngine(address).start()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"])
def test_an_address_without_a_server_is_an_error(address):
    with raising(MissingError, key="ray_address"):
        RayEngine(address).start()
