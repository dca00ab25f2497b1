#!/usr/bin/env bash
# transformers 5.23.0: sequence classifiers on decoders (GPT-2, Llama, OPT, BLOOM, GPT-NeoX) read the state of the last token
# that is not config.pad_token_id; the attention mask is not looked at. Decoders have no padding token, so the usual advice
# is to pad with end-of-text. A text that itself ends in end-of-text, as training texts of language models do, is then
# read one token early: its score is that of the text without its end, and nothing is raised.
# GPT-2 also counts positions from the padding on, so that a text padded on the left gets other scores than alone.
# What to do: give the tokenizer and the config a padding token that no text contains, and pad on the right.
# Seen: the logits are exactly those of the last token but one. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2>/dev/null <<'PY'
import torch
import transformers

END = 0
small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 2}
small |= {"pad_token_id": END, "eos_token_id": END, "bos_token_id": 1, "initializer_range": 0.5}
more = {"Llama": {"intermediate_size": 32}, "GPTNeoX": {"intermediate_size": 32}}
more |= {"OPT": {"ffn_dim": 32, "word_embed_proj_dim": 16}, "GPT2": {}, "Bloom": {}}
for name, options in more.items():
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**small, **options)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).eval()
    torch.nn.init.normal_(model.score.weight)
    text = torch.cat([torch.randint(5, 50, (1, 5)), torch.tensor([[END]])], dim=1)
    mask = torch.ones_like(text)  # every token is the text's own
    padding = torch.zeros(1, 3, dtype=torch.long)
    with torch.no_grad():
        found = model(input_ids=text, attention_mask=mask).logits[0]
        each = model.score(model.base_model(input_ids=text, attention_mask=mask).last_hidden_state)[0]
        alone = model(input_ids=text[:, :5], attention_mask=mask[:, :5]).logits[0]
        left = torch.cat([padding, text[:, :5]], dim=1), torch.cat([padding, mask[:, :5]], dim=1)
        beside = model(input_ids=left[0], attention_mask=left[1]).logits[0]
    moved = (alone - beside).abs().max().item()
    print(f"{name}: at the end {each[-1].tolist()}, one before {each[-2].tolist()}, given {found.tolist()}", end="; ")
    print(f"padded on the left it differs by {moved:.2g}")
    assert torch.equal(found, each[-2]) and not torch.allclose(found, each[-1], atol=0.01), f"{name} has changed"
    assert moved > 0.01 if name == "GPT2" else moved < 1e-4, f"{name} counts positions otherwise now"
PY
echo "as described"
