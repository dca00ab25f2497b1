import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from llm_server import LLMServer, score_of
from notes import Notes
from raising import raising

from kdcli import registry
from kdcli.api import DataError, KdError, MissingError, ProfileError
from kdcli.testing import check_plugin, tiny_corpus

TEXTS = [*tiny_corpus().train[:8], "", "  a {text} in {classes}  ", "naïve 電影"]
LABELS = ("negative", "positive")
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("kd_teachers.server.LONGEST", 0.01)


def load(server, *, labels=LABELS, notes=None, file=None, **options):
    endpoint = getattr(server, "endpoint", server)
    made = registry.options("teachers", "llm", {"endpoint": endpoint, "concurrency": 4, **options})
    return registry.load("teachers", "llm").load("m", made, labels=labels, reporter=notes or Notes(), answers=file)


def log_probabilities(scores):
    scores = np.array(scores)
    return np.stack([-np.log1p(np.exp(scores)), -np.log1p(np.exp(-scores))], 1)


def test_log_probabilities_of_the_letters_whose_tokens_add_up():
    with LLMServer() as server:
        found = load(server).logits([TEXTS], 8)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, log_probabilities([score_of(text.strip()) for text in TEXTS]), atol=1e-5)
    assert len(server.texts) == len(set(server.texts)) == len(TEXTS)
    assert "a {text} in {classes}" in server.texts
    assert all("A. negative\nB. positive" in prompt for prompt in server.prompts)
    teacher = load("http://127.0.0.1:9/v1", labels=("x", "y", "z"))
    said = {"A": -1.0, " A": -2.0, "B.": -3.0, "The": -4.0}
    listed = [{"token": token, "logprob": value} for token, value in said.items()]
    blank = {"token": "\n", "logprob": -0.1, "top_logprobs": [{"token": "C", "logprob": -0.2}]}
    tokens = [blank, {**listed[0], "top_logprobs": listed}]
    value = teacher._read_chat({"choices": [{"message": {"content": "A"}, "logprobs": {"content": tokens}}]})
    np.testing.assert_allclose(value["logprobs"], [np.logaddexp(-1, -2), -3, -4])


def test_system_one_is_averaged_over_the_orders(notes):
    with LLMServer(logprobs=False, system_one=True) as server:
        found = load(server, notes=notes).logits([["good film", "dull film"]], 8)
    odds = np.exp([score_of("good film"), score_of("dull film")])
    wanted = (odds / (odds + 2) + (odds + 1) / (odds + 2)) / 2
    np.testing.assert_allclose(np.exp(found), np.stack([1 - wanted, wanted], 1), atol=1e-5)
    assert len(notes.infos) == 1


@pytest.mark.parametrize(("several", "requests"), [(True, 1), (False, 7)])
def test_votes_of_draws_with_half_a_vote_for_each(several, requests, notes):
    with LLMServer(logprobs=False, several=several) as server:
        found = load(server, notes=notes, votes=7).logits([["good film", "a film"]], 8)
    counts = np.exp(found) * (7 + 2 * 0.5) - 0.5
    np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    np.testing.assert_allclose(counts.sum(1), 7, atol=1e-4)
    asked = [body for body in server.bodies if "Text: good" in body["messages"][0]["content"]]
    assert len(asked) == requests + 1 and len(notes.warnings) == 1  # the first one asks for log-probabilities


def test_one_answer_alone_many_classes_and_a_model_that_names_none(notes):
    with LLMServer(logprobs=False, several=False, samples=False) as server:
        found = load(server, notes=notes).logits([["good film", "bad film"]], 8)
    np.testing.assert_allclose(np.exp(found), [[0.25, 0.75], [0.75, 0.25]], atol=1e-6)
    assert len(notes.warnings) == 1 and server.texts.count("bad film") == 1
    labels = tuple(f"class {number}" for number in range(30))
    with LLMServer(answer=lambda text: "12") as server:
        found = load(server, labels=labels).logits([["a text"]], 8)
    assert found.argmax() == 11 and "12. class 11" in server.prompts[-1]
    with LLMServer(answer=lambda text: "") as server, raising(DataError, key="teachers.llm.template"):
        load(server).logits([[f"text {number}" for number in range(1000)]], 8)
    assert len(server.paths) < 150


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("B", 1), (" b", None), ("B.", 1), ("(A)", 0), ("A. negative", 0), ("Positive", 1), ("**B**", 1),
        ("<think>A or B?</think>\nB", 1), ("A positive film", None), ("C", None), ("", None), ("neutral", None),
    ],
)  # fmt: skip
def test_answers_are_checked_against_the_classes(said, wanted):
    assert load("http://127.0.0.1:9/v1")._named(said) == wanted


@pytest.mark.parametrize("logprobs", [True, False])
def test_a_text_without_an_answer_is_asked_about_once_more(logprobs, notes):
    with LLMServer(logprobs=logprobs, answer=lambda text: "neither" if "odd" in text else None) as server:
        teacher = load(server, notes=notes)
        found = teacher.logits([["good film", "odd film"]], 8)
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
    assert len({prompt for prompt in server.prompts if "odd" in prompt}) == 2


def test_parameters_that_a_server_refuses(notes):
    def fault(number, path):
        sent = server.sent[-1]
        if "max_tokens" in sent:
            said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return 400, {}, json.dumps({"error": {"message": said}}).encode()
        if sent.get("top_logprobs", 0) > 5:
            return 422, {}, b'{"detail": "top_logprobs must be at most 5"}'

    with LLMServer(fault=fault) as server:
        found = load(server, notes=notes, concurrency=1).logits([["good film", "bad film"]], 8)
    np.testing.assert_allclose(found, log_probabilities([2.25, -1.75]), atol=1e-5)
    assert server.bodies[-1]["max_completion_tokens"] == 16 and server.bodies[-1]["top_logprobs"] == 5
    assert len(server.paths) == 4 and len(notes.infos) == 2


def test_a_text_that_the_server_refuses_has_no_answer(tmp_path):
    def fault(number, path):
        if number == 2:
            return 400, {}, b'{"error": {"message": "context length exceeded"}}'

    with LLMServer(fault=fault) as server:
        teacher = load(server, concurrency=1, file=tmp_path / "a.jsonl")
        found = teacher.logits([["good film", "a long film", "bad film"]], 8)
        assert np.isnan(found).all(1).tolist() == [False, True, False]
        again = load(server, file=tmp_path / "a.jsonl").logits([["a long film"]], 8)
    assert np.isnan(again).all() and len(server.paths) == 3


def reply(status, headers, content):
    return lambda number, path: (status, headers, content)


def code(status, **headers):
    return reply(status, headers, json.dumps({"error": {"message": f"no: {KEY}"}}).encode())


html = reply(200, {"content-type": "text/html"}, b"<html>welcome</html>")
half = reply(200, {}, b'{"choices": [{"mess')
cut = reply(200, {"content-length": "500"}, b'{"choices": [{"mess')
empty = reply(200, {}, b"")


@pytest.mark.parametrize(
    ("fault", "kind", "requests"),
    [
        (code(401), MissingError, 1), (code(403), MissingError, 1), (code(404), MissingError, 1),
        (code(418), DataError, 1), (html, DataError, 1), (half, DataError, 1), (empty, DataError, 1),
        (cut, KdError, 8), (code(429), KdError, 8), (code(500), KdError, 8),
        (code(503, **{"retry-after": "0"}), KdError, 8),
        (code(429, **{"retry-after": "3600"}), KdError, 1),
    ],
)  # fmt: skip
def test_faults_of_a_server(fault, kind, requests, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", KEY)
    with LLMServer(fault=fault) as server, pytest.raises(KdError) as caught:
        load(server, key_variable="MY_KEY", file=tmp_path / "a.jsonl").logits([["a film"]], 8)
    error = caught.value
    assert type(error) is kind and len(server.paths) == requests and error.hint
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert KEY not in f"{error} {error.hint}" and not (tmp_path / "a.jsonl").exists()
    if fault(1, "")[0] == 401:
        assert "MY_KEY" in error.what and error.key == "teachers.llm.key_variable"


def test_a_key_a_server_or_classes_that_are_missing(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with LLMServer(fault=code(401)) as server, raising(MissingError, hint="OPENAI_API_KEY"):
        load(server).logits([["a film"]], 8)
    assert server.keys == [None]
    with LLMServer() as server:
        pass
    with pytest.raises(MissingError):
        load(server).logits([["a film"]], 8)
    with pytest.raises(ProfileError):
        load("http://127.0.0.1:9/v1", labels=())


@pytest.mark.parametrize("fault", [html, half, cut, empty, code(500), code(429), code(529)])
def test_a_fault_in_between_is_asked_again(fault):
    with LLMServer(fault=lambda number, path: fault(number, path) if number in (3, 5, 6) else None) as server:
        found = load(server).logits([TEXTS], 8)
    np.testing.assert_allclose(found, log_probabilities([score_of(text.strip()) for text in TEXTS]), atol=1e-5)
    assert len(server.paths) == len(TEXTS) + 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured_by_all_requests(form):
    begin, times = time.time(), []
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    value = "1" if form == "seconds" else format_datetime(until, usegmt=True)

    def fault(number, path):
        times.append(time.time())
        return (429, {"retry-after": value}, b"{}") if number == 2 else None

    with LLMServer(fault=fault) as server:
        load(server, concurrency=1).logits([TEXTS], 8)
    wait = times[2] - times[1]
    assert wait >= 0.99 if form == "seconds" else times[2] >= until.timestamp() - 0.01
    assert begin < times[0] and len(times) == len(TEXTS) + 1


def test_a_server_that_stops_answering(tmp_path):
    def fault(number, path):
        if number > 3:
            time.sleep(0.6)

    with LLMServer(fault=fault) as server, raising(KdError, what="timeout") as caught:
        load(server, timeout=0.2, concurrency=1, file=tmp_path / "a.jsonl").logits([TEXTS], 8)
    assert type(caught.value) is KdError
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"endpoint": f"https://user:{KEY}@host/v1"}, "endpoint"),
        ({"endpoint": f"https://host/v1?key={KEY}"}, "endpoint"),
        ({"key_variable": KEY}, "key_variable"), ({"template": "no place"}, "template"), ({"max_cost": 1.0}, None),
        ({"descriptions": {"other": "x"}}, "descriptions"), ({"votes": 0}, "votes"),
    ],
)  # fmt: skip
def test_wrong_options(options, key):
    with pytest.raises(ProfileError) as caught:
        load("http://127.0.0.1:9/v1", **options)
    assert KEY not in f"{caught.value} {caught.value.hint}"
    assert key is None or caught.value.key == f"teachers.llm.{key}"


def test_the_number_of_requests_and_their_cost_are_limited(tmp_path):
    texts, file = [f"text {number} good" for number in range(40)], tmp_path / "a.jsonl"
    with LLMServer() as server:
        for limit in (5, 12):
            with pytest.raises(KdError):
                load(server, max_requests=limit, file=file).logits([texts], 8)
            assert len(server.paths) == limit
        prices = {"input_price": 10.0, "output_price": 50.0}  # 40 and 2 tokens: 0.0005
        with raising(KdError, hint="max-cost"):
            load(server, **prices, max_cost=0.01, file=file).logits([texts], 8)
        assert len(server.paths) == 20
        assert np.isfinite(load(server, file=file).logits([texts], 8)).all()
    assert len(server.paths) == 40


def test_answers_are_taken_from_the_file_and_another_file_is_not_written_into(tmp_path):
    file = tmp_path / "folder" / "a.jsonl"
    with LLMServer(seconds=0.02) as server:
        first = load(server, file=file).logits([TEXTS], 8)
        content = file.read_bytes()
        assert len(content.splitlines()) == len(TEXTS)
        file.write_bytes(content[:-30])  # killed while it wrote the last one
        again = load(server, file=file, concurrency=1)
        np.testing.assert_array_equal(again.logits([TEXTS], 8), first)
        assert len(server.paths) == len(TEXTS) + 1
        assert again.saved_seconds > 0.02 * (len(TEXTS) - 1)
        third = load(server, file=file, template="{classes} {question}\n\nText: {text}\n\nAnswer with {answers}")
        third.logits([TEXTS], 8)
    assert len(server.paths) == 2 * len(TEXTS) + 1
    assert len(load(server, file=file).server.answers.known) == 2 * len(TEXTS)
    file = tmp_path / "mine.jsonl"
    file.write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(DataError):
        load("http://127.0.0.1:9/v1", file=file)
    assert file.read_text() == '{"a": 1}\n{"a": 2}\n'


def test_an_estimate_asks_nothing_knows_the_answers_and_counts_votes(tmp_path):
    module, file = registry.load("teachers", "llm"), tmp_path / "a.jsonl"
    with LLMServer() as server:
        made = registry.options("teachers", "llm", {"endpoint": server.endpoint, "input_price": 2.0})
        load(server, concurrency=2, file=file).logits([TEXTS[:3]], 8)
        asked = len(server.paths)
        found = module.estimate("m", made, labels=LABELS, columns=[TEXTS], answers=file)
        assert len(server.paths) == asked
    assert found["requests"] == len(TEXTS) - 3
    assert found["cost"] == pytest.approx(found["input_tokens"] * 2e-6)
    assert not registry.effective("teachers", "llm", made.model_dump()).keys() & {"max_cost", "timeout"}
    with LLMServer(logprobs=False, several=False) as server:
        made = registry.options("teachers", "llm", {"endpoint": server.endpoint, "votes": 3})
        load(server, votes=3, file=file).logits([TEXTS[:4]], 8)
        found = module.estimate("m", made, labels=LABELS, columns=[TEXTS], answers=file)
    assert found["requests"] == 3 * (len(TEXTS) - 4)


def test_it_keeps_the_contract_of_teachers():
    with LLMServer() as server:
        outcomes = check_plugin("teachers", "llm", {"endpoint": server.endpoint})
    assert not [one for one in outcomes if one.result == "failed"]
