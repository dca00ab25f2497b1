import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from made_student import KINDS, PAIR, TEXTS, columns, make_student

from kdcli.api import Task
from kdcli.cli.ui import plain
from kdcli.errors import DataError
from kdcli.serve.app import Limits, Together, create_app
from kdcli.student.deferral import Calibration, Familiar
from kdcli.student.student import load_student

SET = Task("toy", "single", ("a", "b", "c"), metric="micro_f1", multi_label=True, thresholds=(0.3, 0.5, 0.9))
LIMITS = Limits(texts=len(TEXTS), explained=2, characters=200, bytes=4000)


def client_of(student, **more):
    return TestClient(create_app(student, **{"limits": LIMITS, **more}))


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return load_student(make_student(tmp_path_factory.mktemp("made") / "student"))


@pytest.fixture(scope="module")
def client(student):
    return client_of(student)


@pytest.mark.parametrize("task", [*KINDS, SET], ids=["single", "pair", "score", "set"])
@pytest.mark.filterwarnings("ignore:.*texts are empty")
def test_the_answers_are_those_of_the_student(tmp_path, task):
    student = load_student(make_student(tmp_path / "student", task))
    client = client_of(student)
    texts = columns(task)[0] if task.kind == "single" else [list(pair) for pair in zip(*columns(task), strict=True)]
    found = client.post("/predict", json={"texts": texts})
    assert found.status_code == 200 and len(found.json()["results"]) == len(texts)
    for one, expected in zip(found.json()["results"], map(plain, student.predict(texts)), strict=True):
        values = "score" if task.is_score else "probabilities"
        assert one.pop(values) == pytest.approx(expected.pop(values), abs=1e-5)
        assert one == expected
    found = client.post("/explain", json={"texts": texts[:1]}).json()["results"]
    (expected,) = map(plain, student.explain(texts[:1]))
    assert found[0]["logit"] == pytest.approx(expected["logit"], abs=1e-5)
    assert [word["text"] for word in found[0]["words"]] == [word["text"] for word in expected["words"]]
    health = client.get("/health").json()
    assert health["labels"] == list(task.labels) and not health["calibrated"]


@pytest.mark.filterwarnings("ignore:.*texts are empty")
def test_a_calibrated_student_defers(student):
    middle = float(np.median(np.abs(np.diff(student.logits([TEXTS])))))
    calibration = Calibration(100, 0.9, Familiar(1.0, 100), [middle], [0.01, 0.2], [0.5, 1.0])
    calibrated = replace(student, calibration=calibration)
    found = client_of(calibrated).post("/predict", json={"texts": TEXTS}).json()["results"]
    deferred = [one["deferred"] for one in found]
    assert deferred == [one.deferred for one in calibrated.predict(TEXTS, defer=True)] and len(set(deferred)) == 2


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"texts": ["good"] * (len(TEXTS) + 1)}, "too_long"),
        ({"texts": []}, "too_short"),
        ({"texts": ["secret " * 30]}, "string_too_long"),
        ({"texts": "secret"}, "list_type"),
        ({"texts": [["secret", "good"]]}, "string_type"),
        ({"texts": ["secret \ud800"]}, "string_unicode"),
        ({}, "missing"),
    ],
)
def test_what_is_no_request_is_refused_and_not_repeated(client, content, kind):
    answer = client.post("/predict", content=json.dumps(content), headers={"Content-Type": "application/json"})
    (detail,) = answer.json()["detail"]
    assert answer.status_code == 422 and detail["type"] == kind and detail["loc"][0] == "body"
    assert "secret" not in answer.text


def test_other_bodies(client, tmp_path):
    json_type = {"Content-Type": "application/json"}
    answer = client.post("/predict", content='{"texts": [', headers=json_type)
    assert answer.json()["detail"][0]["type"] == "json_invalid"
    assert client.post("/predict", content=b"\xff\xfe", headers=json_type).status_code in (400, 422)
    assert client.post("/predict", content='{"texts": ["good"]}').status_code == 415
    assert client.post("/explain", json={"texts": ["good"] * 3}).status_code == 422
    pairs = client_of(load_student(make_student(tmp_path / "pairs", PAIR)))
    for row in ("good", ["good"], ["good", "bad", "dull"]):
        assert pairs.post("/predict", json={"texts": [row]}).status_code == 422


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_body_is_not_read(client, announced):
    sent = []

    def chunks():
        for _ in range(100):
            sent.append(1000)
            yield b"a" * 1000

    body = b"a" * 5000 if announced else chunks()
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and "4,000 bytes" in answer.json()["detail"]


def test_a_token(student):
    client = client_of(student, token="geheim-ß")
    for header in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic geheim"}):
        for path in ("/predict", "/explain"):
            answer = client.post(path, json={"texts": ["good"]}, headers=header)
            assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/metrics", headers=header).status_code == 401
    right = {"Authorization": "Bearer geheim-ß".encode()}
    assert client.post("/predict", json={"texts": ["good"]}, headers=right).status_code == 200
    assert client.get("/health").status_code == 200


def test_metrics_count_requests_and_texts(student):
    client = client_of(student)
    client.post("/predict", json={"texts": ["good", "bad"]})
    client.post("/predict", json={})
    client.get("/nowhere")
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        "kd_texts_total 2.0",
        'kd_requests_total{path="/predict",status="200"} 1.0',
        'kd_requests_total{path="/predict",status="422"} 1.0',
        'kd_requests_total{path="other",status="404"} 1.0',
        'kd_request_seconds_count{path="/predict"} 2.0',
    ):
        assert line in lines
    schema = client.get("/openapi.json").json()
    assert schema["components"]["schemas"]["PredictRequest"]["properties"]["texts"]["maxItems"] == len(TEXTS)


def test_the_page(student, tmp_path):
    assert client_of(student).get("/").status_code == 404
    with pytest.raises(DataError, match="no web page"):
        create_app(student, web=tmp_path)
    (tmp_path / "index.html").write_text("a page")
    client = client_of(student, web=tmp_path)
    assert client.get("/").text == "a page" and client.get("/health").status_code == 200
    assert client.get("/../test_app.py").status_code == 404


def test_requests_that_wait_are_computed_together():
    calls, first = [], threading.Event()

    def compute(texts):
        calls.append(list(texts))
        first.wait(60)
        if "broken" in texts:
            raise ValueError("broken")
        return [text.upper() for text in texts]

    async def ask():
        with ThreadPoolExecutor(1) as thread:
            together = Together(compute, thread)
            tasks = [asyncio.create_task(together(["one"]))]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            tasks += [asyncio.create_task(together(texts)) for texts in (["two", "three"], ["four"])]
            await asyncio.sleep(0)
            first.set()
            found = await asyncio.gather(*tasks)
            with pytest.raises(ValueError, match="broken"):
                await together(["broken"])
            return found, await together(["five"])

    assert asyncio.run(ask()) == ([["ONE"], ["TWO", "THREE"], ["FOUR"]], ["FIVE"])
    assert calls == [["one"], ["two", "three", "four"], ["broken"], ["five"]]
