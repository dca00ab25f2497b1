"""Write what transformers 4.35.2's Transformer-XL computes into the files that the tests of ``kd_transfoxl`` read.

That version is the last whose Transformer-XL was looked after; it needs an environment of its own, outside this
repository:

    python3 -m venv ORACLE
    ORACLE/bin/pip install "transformers==4.35.2" "numpy<2" "torch==2.13.0" "sacremoses==0.2.0"
    ORACLE/bin/python tests/oracle/transfoxl.py

Each file holds weights, inputs and outputs of a small random model that reads texts segment by segment. Three things
are asked of the old code in another way than it does by itself: the losses in the order of the words
(``keep_order``), memories that are empty at the start (it starts with ``mem_len`` places of zeros), and all numbers
written as float32. The tests read the first segment.
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import TransfoXLConfig, TransfoXLLMHeadModel

FOLDER = Path(__file__).resolve().parents[1] / "unit" / "plugins" / "transfoxl" / "reference" / "model"
ROWS, TIMES, IGNORED = 3, (6, 4, 1, 7), -100
SMALL = {"vocab_size": 40, "d_model": 12, "d_embed": 12, "n_head": 2, "d_head": 5, "d_inner": 20, "n_layer": 2}
CASES = {
    "untied": {
        **{"cutoffs": [6, 20], "div_val": 2, "mem_len": 5, "clamp_len": 4, "same_length": True},
        **{"tie_word_embeddings": False, "tie_projs": [False, False, False]},
    },
    "plain_softmax": {"cutoffs": [], "div_val": 2, "mem_len": 30, "clamp_len": 5, "same_length": True},
}
SEEDS = {"untied": 6, "plain_softmax": 7}


def build(changes: dict, seed: int) -> TransfoXLLMHeadModel:
    """Make a model whose weights are so great that everything matters."""
    torch.manual_seed(seed)
    model = TransfoXLLMHeadModel(TransfoXLConfig(**{**SMALL, "dropout": 0.0, "eos_token_id": 0, **changes})).eval()
    model.crit.keep_order = True
    for name, weights in model.named_parameters():
        torch.nn.init.normal_(weights, 1.0 if "layer_norm.weight" in name else 0.0, 0.3)
    return model


@torch.no_grad()
def read(model: TransfoXLLMHeadModel) -> dict[str, torch.Tensor]:
    """Read random texts in segments, the last of which has padding behind two of the texts."""
    config, found = model.config, {}
    mems = None
    if config.mem_len:
        mems = [torch.empty(0, ROWS, config.d_model) for _ in range(config.n_layer)]
    for number, time in enumerate(TIMES):
        words = torch.randint(1, config.vocab_size, (ROWS, time))
        labels = words.clone()
        if number == len(TIMES) - 1:
            for row, padding in ((1, 3), (2, 5)):
                words[row, -padding:], labels[row, -padding:] = 0, IGNORED
        output = model(input_ids=words, mems=mems)
        segment = {"input_ids": words, "labels": labels, "log_probs": output.logits}
        if time > 1:
            segment["losses"] = model(input_ids=words, mems=mems, labels=labels).losses.view(ROWS, time - 1)
        mems = output.mems
        if mems is not None:
            segment["mems"] = torch.stack(list(mems)).transpose(1, 2)  # [layers, rows, places, d_model]
        found |= {f"{number}.{name}": values.contiguous() for name, values in segment.items()}
    return found


def ties(model: TransfoXLLMHeadModel) -> list[list[str]]:
    """Return the names of weights that share their memory."""
    names: dict[int, list[str]] = {}
    for name, weights in model.state_dict().items():
        names.setdefault(weights.data_ptr(), []).append(name)
    return sorted(sorted(group) for group in names.values() if len(group) > 1)


def main() -> None:
    """Write a file for each case."""
    assert transformers.__version__ == "4.35.2", "another version is another oracle"
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, changes in CASES.items():
        model = build(changes, SEEDS[name])
        weights = {f"weights.{name}": values.clone() for name, values in model.state_dict().items()}
        about = {"config": model.config.to_diff_dict(), "ties": ties(model), "start": "empty"}
        # One entry: several would be in another order each time.
        metadata = {"about": json.dumps(about, sort_keys=True)}
        save_file({**weights, **read(model)}, FOLDER / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main()
