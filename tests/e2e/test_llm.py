import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from urllib.request import Request, urlopen

import numpy as np
import polars as pl
import pytest
from llm_server import LLMServer, score_of
from notes import Notes

from kdcli import registry
from kdcli.testing import run_cli, tiny_corpus

KEY = "sk-very-secret-0123456789"
TEXTS = [f"{text} {number}" for number in range(3) for text in tiny_corpus().train]


def settings(server, **more):
    values = {"teacher.plugin": "llm", "teacher.model": "m", "teacher.train": "false"}
    values |= {"teachers.llm.endpoint": server.endpoint, "teachers.llm.concurrency": 4, **more}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def export(folder, server, *more, **how):
    texts = folder / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text in TEXTS))
    arguments = ["teacher", "export", "--profile", "sst2", "--input", texts, "--output", folder / "l.safetensors"]
    return [*map(str, [*arguments, *settings(server, **how), *more])]


def kill_after(arguments, server, answers):
    process = subprocess.Popen([sys.executable, "-m", "kdcli", *arguments], stderr=subprocess.DEVNULL)
    try:
        while len(server.texts) < answers and process.poll() is None:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


def test_a_killed_export_asks_again_for_what_was_in_flight_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LLMServer(seconds=0.05) as server:
        for answers in (20, 60):
            kill_after(export(tmp_path, server), server, answers)
        run = run_cli(*export(tmp_path, server), "--json")
        assert run.code == 0, run.stderr
        assert run.json["result"]["distinct"] == len(TEXTS) and run.json["result"]["unanswered"] == 0
        counts = Counter(server.texts)
    assert set(counts) == set(TEXTS) and sum(counts.values()) <= len(TEXTS) + 2 * 4
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_limits_and_the_dry_run_of_an_export(tmp_path):
    with LLMServer() as server:
        arguments = export(tmp_path, server, **{"teachers.llm.input_price": 1.0})
        dry = run_cli(*arguments, "--dry-run", "--json")
        assert dry.json["stages"][0]["result"]["requests"] == len(TEXTS) and not server.paths
        run = run_cli(*arguments, "--max-requests", "10")
        assert run.code == 1 and "--max-requests" in run.stderr and len(server.paths) == 10
        dry = run_cli(*arguments, "--dry-run", "--json")
        assert dry.json["stages"][0]["result"]["requests"] == len(TEXTS) - 10
        run = run_cli(*export(tmp_path, server, "--max-cost", "0.5"))
        assert run.code == 3 and "max_cost" in run.stderr


def test_a_wrong_key_stops_the_command_and_names_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LLMServer(fault=lambda number, path: (401, {}, KEY.encode())) as server:
        run = run_cli(*export(tmp_path, server), "--debug")
    assert run.code == 6 and "OPENAI_API_KEY" in run.stderr and KEY not in run.stderr + run.stdout


def test_texts_without_an_answer_are_left_out_and_counted(tmp_path):
    with LLMServer(answer=lambda text: "neither" if "music" in text else None) as server:
        without = sum("music" in text for text in TEXTS)
        run = run_cli(*export(tmp_path, server), "--json")
        assert run.json["result"]["unanswered"] == without > 0
        logits = ("--logits", tmp_path / "l.safetensors")
        joined = ["join", "--profile", "sst2", "--input", tmp_path / "texts.txt", *logits]
        run = run_cli(*joined, "--output", tmp_path / "j.parquet", "--json")
        assert run.json["result"]["unanswered"] == without and run.json["result"]["rows"] == len(TEXTS) - without
        table = pl.read_parquet(tmp_path / "j.parquet")
        assert not table["sentence"].str.contains("music").any()
        scores = np.array([score_of(text) for text in table["sentence"]])
        np.testing.assert_allclose(table["logits_1"] - table["logits_0"], scores, atol=1e-4)
        predict = ["predict", "--teacher", "m", "--profile", "sst2", "--input", tmp_path / "t.tsv"]
        (tmp_path / "t.tsv").write_text("sentence\na good film\nthe music\n")
        run = run_cli(*predict, "--output", tmp_path / "p.tsv", *settings(server))
        assert run.code == 0, run.stderr
        asked = len(server.paths)
        assert run_cli(*predict, "--output", tmp_path / "p.tsv", "--force", *settings(server)).code == 0
        assert len(server.paths) == asked
    assert (tmp_path / "p.tsv").read_text().splitlines()[1:] == ["0\t1", "1\t"]


def test_distil_from_a_language_model(tmp_path):
    texts = tmp_path / "texts.csv"
    texts.write_text("text\n" + "".join(f'"{text}"\n' for text in TEXTS))
    with LLMServer(answer=lambda text: "neither" if "music" in text and "2" in text else None) as server:
        arguments = ["distil", "m", texts, "--labels", "negative,positive", "--run-dir", tmp_path / "run"]
        arguments += [*settings(server), "--set", "student.epochs=2", "--set", "student.dimension=16"]
        dry = run_cli(*arguments, "--dry-run")
        assert dry.code == 0 and not server.paths, dry.stderr
        run = run_cli(*arguments, "--json")
        assert run.code == 0, run.stderr
        counts = Counter(server.prompts)
        assert max(counts.values()) == 1  # the comparison asks for no text of dev again
        notes = run.json["results"]["notes"]
        assert any("has not answered" in note for note in notes)
        asked = len(server.paths)
        again = run_cli("run-all", "--profile", tmp_path / "run/profile.toml", "--run-dir", tmp_path / "run", "--json")
        assert again.code == 0, again.stderr
        assert len(server.paths) == asked and not [one for one in again.json["stages"] if one["reasons"]]
        anew = ["--run-dir", tmp_path / "other", "--dry-run", "--json"]
        dry = run_cli("run-all", "--profile", tmp_path / "run/profile.toml", *anew)
        stages = {one["name"]: one["result"] for one in dry.json["stages"]}
        assert stages["export-dev"]["requests"] == 12 and len(server.paths) == asked
        forced = ["--only", "export", "--force", "--set", "teachers.llm.concurrency=2"]
        again = run_cli("run-all", "--profile", tmp_path / "run/profile.toml", "--run-dir", tmp_path / "run", *forced)
        assert again.code == 0 and len(server.paths) == asked, again.stderr
    teacher = next(row for row in run.json["results"]["rows"] if row["model"] == "teacher")
    assert teacher["per_second"] < 20_000  # not that of reading a file


def test_audit_of_a_teacher(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    gold = [str(int(number % 3 != 0)) for number in range(len(TEXTS))]
    rows = "".join(f"{text}\t{label}\n" for text, label in zip(TEXTS, gold, strict=True))
    for split in ("train", "dev"):
        (data / f"{split}.tsv").write_text(f"sentence\tlabel\n{rows}")
    with LLMServer(answer=lambda text: "" if "music" in text else None) as server:
        arguments = ["teacher", "audit", "--profile", "sst2", "--data-dir", data, "--run-dir", tmp_path / "run"]
        arguments += settings(server)
        dry = run_cli(*arguments, "--rows", "30", "--dry-run", "--json")
        assert dry.json["estimate"]["requests"] == 30 and not server.paths
        run = run_cli(*arguments, "--rows", "1000", "--json")
        assert run.code == 0, run.stderr
        result, asked = run.json, len(server.paths)
        assert run_cli(*arguments, "--rows", "30").code == 0 and len(server.paths) == asked
        assert run_cli(*arguments, "--max-requests", "1").code == 0  # all is answered already
    kept = [(score_of(text) > 0, label == "1") for text, label in zip(TEXTS, gold, strict=True) if "music" not in text]
    result = result["tables"]["sample"]
    assert result["rows"] == len(kept) and result["unanswered"] == len(TEXTS) - len(kept)
    teacher = result["models"]["teacher"]
    confusion = [[sum(one == (bool(answer), bool(label)) for one in kept) for answer in (0, 1)] for label in (0, 1)]
    assert teacher["confusion"] == confusion
    for number, one in enumerate(teacher["labels"]):
        right, column = confusion[number][number], sum(row[number] for row in confusion)
        assert one["rows"] == sum(confusion[number])
        assert one["recall"] == pytest.approx(right / one["rows"])
        assert one["precision"] == pytest.approx(right / column)
    assert teacher["metrics"]["accuracy"]["value"] == pytest.approx(sum(a == b for a, b in kept) / len(kept))


THREE = ("negative", "neutral", "positive")


def make_chat_model(folder):
    """Write a random chat model whose tokens are characters."""
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    names = [*special.values(), *map(chr, range(32, 127)), "\n"]
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, [], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    fast.save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig(vocab_size=len(names), max_position_embeddings=4096, initializer_range=0.3, **sizes, **ids)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, **ids)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = make_chat_model(tmp_path_factory.mktemp("chat"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder, "--host", "127.0.0.1"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "HF_HUB_OFFLINE": "1"}}
    with subprocess.Popen([*map(str, command), "--port", str(port), "--device", "cpu"], **silent) as process:
        try:
            while process.poll() is None:
                try:
                    urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            process.kill()


def load(server, labels=THREE, **options):
    endpoint, model = server
    made = registry.options("teachers", "llm", {"endpoint": endpoint, "concurrency": 4, **options})
    notes = Notes()
    return registry.load("teachers", "llm").load(model, made, labels=labels, reporter=notes), notes


@pytest.mark.slow
def test_system_one_in_all_orders(server):
    texts = ["a good film", "a dull film", "{text}"]
    teacher, notes = load(server, descriptions={"neutral": "neither of the two"})
    found = teacher.logits([texts], 8)
    assert np.isfinite(found).all() and len(notes.infos) == 1 and not notes.warnings
    for text, row in zip(texts, found, strict=True):
        means = np.zeros(3)
        for order in (THREE, THREE[1:] + THREE[:1], THREE[2:] + THREE[:2]):
            criteria = {label: "neither of the two" if label == "neutral" else None for label in order}
            question = {"type": "choice", "instructions": teacher.options.question, "criteria": criteria}
            body = {"model": server[1], "state": text, "questions": {"x": question}}
            request = Request(f"{server[0]}/systemone", json.dumps(body).encode(), {"content-type": "application/json"})
            answer = json.loads(urlopen(request, timeout=60).read())["answers"]["x"]["probabilities"]
            means += [answer[label] / 3 for label in THREE]
        np.testing.assert_allclose(np.exp(row), means, atol=1e-5)
    assert not all(np.allclose(one, other) for one, other in pairwise(found))
