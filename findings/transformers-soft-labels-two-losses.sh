#!/usr/bin/env bash
# transformers 5.23.0: labels that are float probabilities [texts, classes], as distillation and label smoothing use them,
# mean another loss from one architecture to the next. BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT and MPNet take each class
# for a yes or no of its own (binary cross-entropy); DeBERTa and DeBERTa-v2 take the row for a distribution (cross-entropy).
# The first six also write problem_type = "multi_label_classification" into the model's config, so that the folder saved
# after the training says that it is multi-label, and a text-classification pipeline answers by sigmoid, not by softmax.
# What to do: compute the loss of soft labels yourself from the logits, and give the model no labels.
# Seen: the loss of three classes is 0.69 for the six and 1.10 for the two. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 venv/bin/python - 2>/dev/null <<'PY'
import json
from pathlib import Path

import torch
import transformers
from torch.nn import functional

torch.manual_seed(0)
words = torch.randint(5, 50, (4, 6))
probabilities = torch.softmax(torch.randn(4, 3), dim=1)
small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 3}
small |= {"intermediate_size": 16, "max_position_embeddings": 32}
for name in ("Bert", "Roberta", "DistilBert", "Electra", "Albert", "MPNet", "Deberta", "DebertaV2"):
    config = getattr(transformers, f"{name}Config")(**small)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).eval()
    assert model.config.problem_type is None
    with torch.no_grad():
        output = model(input_ids=words, labels=probabilities)
    each = functional.binary_cross_entropy_with_logits(output.logits, probabilities)
    row = functional.cross_entropy(output.logits, probabilities)
    model.save_pretrained(name)
    said = json.loads(Path(name, "config.json").read_text()).get("problem_type")
    print(f"{name}: loss {output.loss:.4f}, of each class {each:.4f}, of the row {row:.4f}, saved problem_type {said}")
    by_row = name.startswith("Deberta")
    assert torch.isclose(output.loss, row if by_row else each), f"{name} has another loss now"
    assert said == (None if by_row else "multi_label_classification"), f"{name} saves another problem_type now"
PY
echo "as described"
