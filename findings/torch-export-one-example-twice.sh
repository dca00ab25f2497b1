#!/usr/bin/env bash
# torch 2.13.0, transformers 5.23.0: torch.export.export (and torch.onnx.export on top of it) takes two inputs for one where
# their examples are the same tensor. An encoder that is exported with `ones` as both input_ids and attention_mask reads
# its attention mask as the tokens too: all texts of a length get the same logits, whatever their words. The program still
# asks for both inputs, the call with the examples gives the model's own logits, and nothing is raised or logged.
# What to do: give every input an example of its own (`ones.clone()`), and compare the program with the model on a text
# that is not the example.
# Seen: as said; with a clone the logits are the model's. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 venv/bin/python - 2>/dev/null <<'PY'
import torch
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99}
model = BertForSequenceClassification(BertConfig(**sizes, initializer_range=0.5)).eval()
texts = torch.tensor([[2, 11, 12, 13, 3], [2, 51, 52, 53, 3]])
mask = torch.ones_like(texts)
with torch.no_grad():
    right = model(input_ids=texts, attention_mask=mask).logits


def exported(second):
    """Export the model with `ones` and a second example, and return its logits of the texts and of the examples."""
    ones = torch.ones((2, 5), dtype=torch.int64)
    examples = {"input_ids": ones, "attention_mask": second(ones)}
    program = torch.export.export(model, (), kwargs=examples)
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    assert names == ["input_ids", "attention_mask"], names
    with torch.no_grad():
        found = program.module()(input_ids=texts, attention_mask=mask).logits
        same = program.module()(**examples).logits - model(**examples).logits
    assert same.abs().max() < 1e-5, "wrong on the examples, too"
    return found


wrong, sound = exported(lambda ones: ones), exported(torch.clone)
print("the model   ", right.round(decimals=3).tolist())
print("one example ", wrong.round(decimals=3).tolist())
print("two examples", sound.round(decimals=3).tolist())
assert (right[0] - right[1]).abs().max() > 0.01
assert torch.equal(wrong[0], wrong[1]) or (wrong[0] - wrong[1]).abs().max() < 1e-5, "it reads the words now"
assert (wrong - right).abs().max() > 0.01
assert (sound - right).abs().max() < 1e-5
PY
echo "as described"
