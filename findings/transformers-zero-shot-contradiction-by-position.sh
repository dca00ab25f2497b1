#!/usr/bin/env bash
# transformers 5.23.0: the zero-shot pipeline finds the output that means entailment by its name, and the one that means
# contradiction by its place: output 0, or the last one where entailment is 0. With multi_label=True (and with a single
# label) a score is the softmax of these two. So a model of natural language inference whose outputs are named neutral,
# entailment, contradiction has the probability against neutral, and the same model with its outputs in another order,
# each named rightly, gives other scores and another order of the labels. Nothing is said; only a model that names no
# entailment at all (LABEL_0, LABEL_1, LABEL_2) is warned of, and then its last output is taken.
# What to do: take the logits of the pairs and apply the softmax yourself, over the outputs found by name.
# Seen: 0.07 and 0.97 for the same label by two orders of the same outputs; right are the orders with contradiction at 0,
# and the one with entailment at 0 and contradiction last. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 venv/bin/python - 2>/dev/null <<'PY'
from itertools import permutations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, pipeline

words = "[PAD] [UNK] [CLS] [SEP] this is about . a plot health money film".split()
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)

torch.manual_seed(0)
small = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
model = BertForSequenceClassification(BertConfig(**small, intermediate_size=16, num_labels=3, initializer_range=0.5))
rows = dict(zip(("entailment", "neutral", "contradiction"), model.classifier.weight.detach().clone(), strict=True))
asked = {"candidate_labels": ["film", "health", "money"], "hypothesis_template": "this is about {} ."}

pairs = tokenizer(["a plot"] * 3, [f"this is about {label} ." for label in asked["candidate_labels"]], return_tensors="pt")
right, found = None, {}
for order in permutations(rows):
    model.config.id2label = dict(enumerate(order))
    model.config.label2id = {name: number for number, name in enumerate(order)}
    model.classifier.weight.data = torch.stack([rows[name] for name in order])
    model.classifier.bias.data.zero_()
    with torch.no_grad():
        logits = model.eval()(**pairs).logits
    by_name = logits[:, [order.index("contradiction"), order.index("entailment")]].softmax(1)[:, 1]
    right = by_name if right is None else right
    assert torch.allclose(by_name, right, atol=1e-5)  # the models are the same, but for the order of their outputs
    given = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)("a plot", multi_label=True, **asked)
    scores = dict(zip(given["labels"], given["scores"], strict=True))
    found[order] = max(abs(scores[label] - float(p)) for label, p in zip(asked["candidate_labels"], right, strict=True))
    print(f"{', '.join(order)}: {', '.join(f'{label} {score:.3f}' for label, score in scores.items())}", end="; ")
    print(f"off by {found[order]:.3f}")
for order, distance in found.items():
    first, last = order[0], order[-1]
    by_luck = first == "contradiction" or (first == "entailment" and last == "contradiction")
    assert (distance < 1e-5) == by_luck, f"{order} is read otherwise now"
PY
echo "as described"
