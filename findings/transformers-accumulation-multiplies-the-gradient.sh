#!/usr/bin/env bash
# transformers 5.23.0: with gradient_accumulation_steps = N the Trainer trains a text classifier by N times the gradient
# and logs N times the loss. It takes a model whose forward() has **kwargs for one that divides its loss by the rows of
# the whole update, and no longer divides by N itself; the classifiers of BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa-v2
# and ModernBERT have **kwargs and divide by the rows of the piece. A compute_loss() of one's own, as guides to
# distillation write it, is not divided either. 8 rows in one piece and 8 rows in 4 pieces should be the same update.
# SGD moves N times as far. Adam takes a factor out again, but clipping does not: max_grad_norm is 1 unless it is set.
# What to do: trainer.model_accepts_loss_kwargs = False before train(), or a compute_loss_func that divides a sum by
# num_items_in_batch.
# Seen: the step by SGD and the loss of 4 pieces are 4 times those of one, for classes, several labels a text, scores;
# with model_accepts_loss_kwargs = False they are the same. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
HF_HUB_OFFLINE=1 venv/bin/python - 2>/dev/null <<'PY'
import contextlib
import sys

import torch
import transformers
from torch.nn import functional
from transformers import Trainer, TrainingArguments

ROWS, PIECES = 8, 4
torch.manual_seed(1)
words = torch.randint(5, 50, (ROWS, 6))
answers = {
    "single_label_classification": torch.randint(0, 3, (ROWS,)),
    "multi_label_classification": torch.randint(0, 2, (ROWS, 3)).float(),
    "regression": 5 * torch.rand(ROWS),
}
small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
small |= {"intermediate_size": 16, "max_position_embeddings": 32}
small |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
distil = {"vocab_size": 50, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
distil |= {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
same = {"output_dir": "o", "max_steps": 1, "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant"}
same |= {"max_grad_norm": 0.0, "report_to": [], "save_strategy": "no", "use_cpu": True}


class Distilling(Trainer):
    """Compare the logits with a teacher's, whose answer is the first class."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logits = model(input_ids=inputs["input_ids"]).logits
        teacher = torch.tensor([[0.8, 0.1, 0.1]]).expand_as(logits)
        return functional.kl_div(logits.log_softmax(-1), teacher, reduction="batchmean")


def update(name, problem, pieces, kind, **attributes):
    """Return how far one update by SGD moves the model, and the loss that is reported."""
    torch.manual_seed(0)
    options = {"num_labels": 1 if problem == "regression" else 3, "problem_type": problem}
    config = getattr(transformers, f"{name}Config")(**(distil if name == "DistilBert" else small), **options)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    size = {"per_device_train_batch_size": ROWS // pieces, "gradient_accumulation_steps": pieces}
    rows = [{"input_ids": text, "labels": label} for text, label in zip(words, answers[problem], strict=True)]
    trainer = kind(model, TrainingArguments(**same, **size), train_dataset=rows)
    for key, value in attributes.items():
        setattr(trainer, key, value)
    with contextlib.redirect_stdout(sys.stderr):
        loss = trainer.train().training_loss
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach() - start, loss


def check(name, problem, times, kind=Trainer, **attributes):
    one, loss = update(name, problem, 1, kind, **attributes)
    several, reported = update(name, problem, PIECES, kind, **attributes)
    said = ", ".join([name, problem, kind.__name__, *attributes])
    print(f"{said}: the step times {several.norm() / one.norm():.3f}, the loss times {reported / loss:.3f}")
    assert (several - times * one).norm() < 1e-3 * several.norm(), f"{said}: another step now"
    assert abs(reported / loss - times) < 1e-3, f"{said}: another loss now"


for name in ("Bert", "Roberta", "DistilBert", "Electra", "DebertaV2", "ModernBert"):
    check(name, "single_label_classification", PIECES)
check("Bert", "multi_label_classification", PIECES)
check("Bert", "regression", PIECES)
check("Bert", "single_label_classification", PIECES, Distilling)
for kind in (Trainer, Distilling):
    check("Bert", "single_label_classification", 1, kind, model_accepts_loss_kwargs=False)
PY
echo "as described"
