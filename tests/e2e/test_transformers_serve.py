"""A language model as teacher, behind ``transformers serve`` with a tiny model; skipped without its packages."""

import json
import os
import socket
import subprocess
import sys
import time
from itertools import pairwise
from urllib.request import Request, urlopen

import numpy as np
import pytest
from notes import Notes

from kdcli import registry

pytestmark = pytest.mark.slow
LABELS = ("negative", "neutral", "positive")


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
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package)
    folder = make_chat_model(tmp_path_factory.mktemp("chat"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder, "--host", "127.0.0.1"]
    with subprocess.Popen(
        [*map(str, command), "--port", str(port), "--device", "cpu"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
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


def load(server, labels=LABELS, **options):
    endpoint, model = server
    made = registry.options("teachers", "llm", {"endpoint": endpoint, "concurrency": 4, **options})
    notes = Notes()
    return registry.load("teachers", "llm").load(model, made, labels=labels, reporter=notes), notes


def test_system_one_in_all_orders(server):
    texts = ["a good film", "a dull film", "{text}"]
    teacher, notes = load(server, descriptions={"neutral": "neither of the two"})
    found = teacher.logits([texts], 8)
    assert np.isfinite(found).all() and len(notes.infos) == 1 and not notes.warnings
    for text, row in zip(texts, found, strict=True):
        means = np.zeros(3)
        for order in (LABELS, LABELS[1:] + LABELS[:1], LABELS[2:] + LABELS[:2]):
            criteria = {label: "neither of the two" if label == "neutral" else None for label in order}
            question = {"type": "choice", "instructions": teacher.options.question, "criteria": criteria}
            body = {"model": server[1], "state": text, "questions": {"x": question}}
            request = Request(f"{server[0]}/systemone", json.dumps(body).encode(), {"content-type": "application/json"})
            answer = json.loads(urlopen(request, timeout=60).read())["answers"]["x"]["probabilities"]
            means += [answer[label] / 3 for label in LABELS]
        np.testing.assert_allclose(np.exp(row), means, atol=1e-5)
    assert not all(np.allclose(one, other) for one, other in pairwise(found))


def test_a_server_that_ignores_n_and_does_not_sample(server):
    teacher, notes = load(server, labels=tuple(f"class {number}" for number in range(27)), votes=3)
    teacher._named = lambda said: 1  # the tiny model says nothing of sense
    found = teacher.logits([["a good film", "a dull film"]], 8)
    one_vote = [(0.5 + (number == 1)) / (1 + 27 / 2) for number in range(27)]
    np.testing.assert_allclose(np.exp(found), [one_vote] * 2, atol=1e-6)
    assert len(notes.warnings) == 1
