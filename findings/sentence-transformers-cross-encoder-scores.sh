#!/usr/bin/env bash
# sentence-transformers 6.2.0: CrossEncoder chooses the function of its scores by the number of outputs alone (sigmoid for
# one, none for several) and does not look at config.problem_type, by which transformers chooses. A model of similarity
# that was fine-tuned by transformers on scores from 0 to 5 (one output, "regression") gives 4.2 in a pipeline and 0.985
# as a CrossEncoder, whatever it said above 2.5 lies between 0.92 and 1, and nothing is said. A classifier of three classes
# gives raw logits in place of probabilities, "single_label_classification" and "multi_label_classification" alike.
# What to do: ask for logits, predict(pairs, activation_fn=torch.nn.Identity()), and apply the function yourself.
# Seen: as said: predict() is the sigmoid of the pipeline's score, or the logits. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0
HF_HUB_OFFLINE=1 venv/bin/python - 2>/dev/null <<'PY'
import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, pipeline

words = "[PAD] [UNK] [CLS] [SEP] a good bad film plot".split()
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, model_max_length=32)

pairs = [("a good film", "a bad film"), ("a good plot", "a good film"), ("a bad plot", "a film")]
small = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
small |= {"intermediate_size": 16, "initializer_range": 0.5, "max_position_embeddings": 32}
functions = {
    "regression": lambda logits: logits,
    "single_label_classification": lambda logits: logits.softmax(-1),
    "multi_label_classification": lambda logits: logits.sigmoid(),
}
for outputs, problem in ((1, "regression"), (3, "single_label_classification"), (3, "multi_label_classification")):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**small, num_labels=outputs, problem_type=problem)).eval()
    if outputs == 1:
        model.classifier.bias.data.fill_(3)  # scores around 3, as of a model that learned numbers from 0 to 5
    model.save_pretrained(problem)
    tokenizer.save_pretrained(problem)
    with torch.no_grad():
        logits = model(**tokenizer(*map(list, zip(*pairs, strict=True)), return_tensors="pt", padding=True)).logits
    answers = pipeline("text-classification", model=problem, top_k=None)(
        [{"text": one, "text_pair": two} for one, two in pairs]
    )
    piped = torch.tensor([[by["score"] for by in sorted(row, key=lambda by: by["label"])] for row in answers])
    encoder = CrossEncoder(problem)
    found = torch.tensor(encoder.predict(pairs)).reshape(len(pairs), -1)
    plain = torch.tensor(encoder.predict(pairs, activation_fn=torch.nn.Identity())).reshape(len(pairs), -1)
    print(f"{problem}: pipeline {piped[0].tolist()}, CrossEncoder {found[0].tolist()}")
    assert torch.allclose(piped, functions[problem](logits), atol=1e-5), "a pipeline chooses its function otherwise now"
    assert torch.allclose(found, logits.sigmoid() if outputs == 1 else logits, atol=1e-5), "CrossEncoder has changed"
    assert torch.allclose(plain, logits, atol=1e-5), "CrossEncoder gives no logits now"
PY
echo "as described"
