#!/usr/bin/env bash
# PEFT 0.21.2: an adapter for classification, made as its documentation says (LoraConfig(task_type="SEQ_CLS")), trains and
# saves of the new layers only those whose names end in "classifier" or "score". DeBERTa-v2 puts a new pooler below its
# classifier, ModernBERT a new dense layer, and BART's and T5's heads are called classification_head: these stay as random
# as they were made, in the training too, and are not in the adapter's folder. Whoever loads the folder gets other random
# ones, so that its answers differ from those after the training, and from one load to the next. No error is raised, and
# the report of newly made weights is the same for BERT, whose folder is whole. RoBERTa and DistilBERT are right, too.
# What to do: name the layers, LoraConfig(task_type="SEQ_CLS", modules_to_save=["pooler"]) (DeBERTa-v2), ["head"]
# (ModernBERT), ["classification_head"] (BART, T5), and compare the logits of a text before saving and after loading.
# Seen: as said, and the same logits with modules_to_save. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2
HF_HUB_OFFLINE=1 venv/bin/python - 2>/dev/null <<'PY'
import torch
import transformers
from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from safetensors import safe_open

small = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
encoder = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
distil = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
bart = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
t5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
kinds = {  # its configuration, the layer that LoRA changes, and the new layers that are lost
    "Bert": (encoder, "query", None),
    "Roberta": (encoder, "query", None),
    "DistilBert": (distil, "q_lin", None),
    "DebertaV2": (encoder, "query_proj", "pooler"),
    "ModernBert": (encoder, "Wqkv", "head"),
    "Bart": (bart, "q_proj", "classification_head"),
    "T5": (t5, "q", "classification_head"),
}
words = torch.tensor([[1, 7, 9, 11, 2]])


def distance(name, layer, lost, to_save):
    """Return how far the logits of a loaded adapter are from those before it was saved, twice, and what it holds."""
    model = getattr(transformers, f"{name}ForSequenceClassification").from_pretrained(f"{name}/base", num_labels=3)
    for part, tensor in model.named_parameters():
        if part.split(".")[0] in ("classifier", "pre_classifier", lost):  # larger numbers than a new layer's, to see more
            torch.nn.init.normal_(tensor)
    options = LoraConfig(task_type="SEQ_CLS", target_modules=[layer], modules_to_save=to_save)
    adapted = get_peft_model(model, options).eval()
    learned = [part for part, tensor in adapted.named_parameters() if tensor.requires_grad]
    learns = {part.split(".")[2] for part in learned if "lora_" not in part}
    with torch.no_grad():
        before = adapted(input_ids=words).logits
        adapted.save_pretrained(f"{name}/adapter")
        loads = [AutoPeftModelForSequenceClassification.from_pretrained(f"{name}/adapter", num_labels=3) for _ in "12"]
        after = [loaded.eval()(input_ids=words).logits for loaded in loads]
    with safe_open(f"{name}/adapter/adapter_model.safetensors", "pt") as file:
        saved = {part.split(".")[2] for part in file.keys() if "lora_" not in part}
    assert learns == saved, f"{name} learns {learns} and saves {saved} now"
    return [float((logits - before).abs().max()) for logits in after], float((after[0] - after[1]).abs().max()), saved


for name, (options, layer, lost) in kinds.items():
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**small, **options)
    getattr(transformers, f"{name}Model")(config).save_pretrained(f"{name}/base")  # as pretraining leaves it
    moved, between, saved = distance(name, layer, lost, None)
    print(f"{name}: beside LoRA it saves {sorted(saved)}; loaded, it is off by {moved[0]:.3f} and {moved[1]:.3f}")
    if lost is None:
        assert max(moved) < 1e-5, f"{name} changes now"
    else:
        assert min(moved) > 1e-3 and between > 1e-4 and lost not in saved, f"{name} is saved whole now"
        moved, _, saved = distance(name, layer, lost, [lost])
        print(f"    with modules_to_save {sorted(saved)}; off by {moved[0]:.3f} and {moved[1]:.3f}")
        assert max(moved) < 1e-5, f"{name} changes with modules_to_save, too"
PY
echo "as described"
