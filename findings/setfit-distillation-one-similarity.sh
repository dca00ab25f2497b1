#!/usr/bin/env bash
# SetFit 1.2.0: DistillationTrainer, which is to teach a small student the similarities between texts that its teacher
# sees, teaches it one number for all pairs: the similarity of the first text to itself, 1. The pairs are made before
# the texts are numbered, so that every look into the table of cosines reads row 0, column 0. The student's body learns
# to put all texts on one point, its loss falls as it should, and nothing is raised or logged; the head is then fitted
# on what is left.
# What to do: train the body on pairs and cosines of your own with sentence-transformers' CosineSimilarityLoss, or on
# the teacher's vectors, and fit the head after that.
# Seen: all 36 pairs of 8 texts have the target 1, where the teacher's cosines go down to below 0.8; the least similar
# two texts have a cosine of below 0.8 in the student before the training and above 0.95 after it. This script fails if
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0 \
    setfit==1.2.0 datasets==5.2.0 scikit-learn==1.9.1 accelerate==1.15.0
HF_HUB_OFFLINE=1 venv/bin/python - 2>/dev/null <<'PY'
import contextlib
import sys

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from setfit import DistillationTrainer, SetFitModel, TrainingArguments
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

good, bad = "good great fine warm".split(), "bad poor dull cold".split()
words = ["[PAD]", "[UNK]", "film", *good, *bad]
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, model_max_length=32)
small = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
small |= {"intermediate_size": 16, "initializer_range": 1.0}


def made(name, seed):
    """Return a model of SetFit on an encoder with random weights."""
    torch.manual_seed(seed)
    BertModel(BertConfig(**small)).save_pretrained(name)
    tokenizer.save_pretrained(name)
    body = SentenceTransformer(modules=[Transformer(name), Pooling(small["hidden_size"])], device="cpu")
    return SetFitModel(body, LogisticRegression())


def cosines(model):
    vectors = torch.nn.functional.normalize(torch.tensor(model.model_body.encode(texts)), dim=1)
    return vectors @ vectors.T


texts = [f"{word} film" for word in good + bad]
teacher, student = made("teacher", 0), made("student", 1)
teacher.fit(texts, [0] * len(good) + [1] * len(bad), num_epochs=1)  # its head
steps = {"batch_size": 36, "num_epochs": 100, "body_learning_rate": 3e-3, "end_to_end": False}
options = TrainingArguments(output_dir="o", **steps, report_to="none", save_strategy="no")
table = Dataset.from_dict({"text": texts})
trainer = DistillationTrainer(teacher_model=teacher, student_model=student, args=options, train_dataset=table)

pairs, _ = trainer.get_dataset(texts, None, options)
targets, wanted, before = torch.tensor(pairs["label"][:]), cosines(teacher), cosines(student)
print(f"{len(pairs)} pairs, their targets from {targets.min():.3f} to {targets.max():.3f}", end="; ")
print(f"the teacher's cosines from {wanted.min():.3f} to {wanted.max():.3f}")
with contextlib.redirect_stdout(sys.stderr):
    trainer.train()
after = cosines(student)
print(f"the student's least cosine: {before.min():.3f} before the training, {after.min():.3f} after it")
assert len(pairs) == 36 and (targets - 1).abs().max() < 1e-5, "the targets are others now"
assert wanted.min() < 0.8 and before.min() < 0.8
assert after.min() > 0.95, "the student does not put all texts on one point now"
PY
echo "as described"
