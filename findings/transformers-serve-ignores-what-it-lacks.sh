#!/usr/bin/env bash
# transformers 5.23.0: `transformers serve` answers 200 to a chat completion that asks for logprobs and n, and leaves both
# out: the choice has no log-probabilities, and for n = 3 there is one choice. A client that reads what it asked for
# breaks, or takes one draw for three. Temperature 1 has no effect either, unless the folder's generation config samples.
# What to do: look at each reply for what was asked for, and compare a few draws, before answers are counted as votes.
# Seen: HTTP 200, one choice, logprobs null or absent, eight equal answers. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check torch==2.13.0 'transformers[serving]==5.23.0'
venv/bin/python - 2>/dev/null <<'PY'
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
names = [*special.values(), *map(chr, range(32, 127)), "\n"]
tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, [], unk_token="<unk>"))
tokenizer.decoder = decoders.Fuse()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
fast.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
fast.save_pretrained("chat")
torch.manual_seed(1)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(names), max_position_embeddings=512, **sizes, **ids))
model.generation_config = GenerationConfig(do_sample=False, **ids)
model.save_pretrained("chat")
PY
port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
HF_HUB_OFFLINE=1 venv/bin/transformers serve "$folder/chat" --host 127.0.0.1 --port "$port" --device cpu >log 2>&1 &
server=$!
venv/bin/python - "$port" "$folder/chat" <<'PY'
import json
import sys
import time
from urllib.request import Request, urlopen

address, model = f"http://127.0.0.1:{sys.argv[1]}", sys.argv[2]
for _ in range(600):
    try:
        urlopen(f"{address}/health", timeout=5)
        break
    except OSError:
        time.sleep(0.5)


def ask(**more):
    body = {"model": model, "messages": [{"role": "user", "content": "Ten letters."}], "max_tokens": 10, **more}
    request = Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=120) as reply:
        return reply.status, json.load(reply)["choices"]


status, choices = ask(n=3, logprobs=True, top_logprobs=5, temperature=1)
print(f"status {status}, choices {len(choices)} of 3, logprobs {choices[0].get('logprobs')}")
assert status == 200 and len(choices) == 1 and not choices[0].get("logprobs"), "it gives more now"
draws = {ask(temperature=1)[1][0]["message"]["content"] for _ in range(8)}
print(f"different answers of 8 at temperature 1: {len(draws)}")
assert len(draws) == 1, "it samples now"
PY
echo "as described"
