"""Write what transformers 4.35.2's Transformer-XL computes into the files that the tests of ``kd_transfoxl`` read.

That version is the last whose Transformer-XL was looked after; it needs an environment of its own, outside this
repository:

    python3 -m venv ORACLE
    ORACLE/bin/pip install "transformers==4.35.2" "numpy<2" "torch==2.13.0" "sacremoses==0.2.0"
    ORACLE/bin/python tests/oracle/transfoxl.py

Each file holds weights, inputs and outputs of a small random model that reads texts segment by segment. Three things
are asked of the old code in another way than it does by itself: the losses in the order of the words
(``keep_order``), memories that are empty at the start where ``start`` says so (it starts with ``mem_len`` places of
zeros), and all numbers written as float32.
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
    # As published, but for the sizes.
    "published": {"cutoffs": [8, 15, 28], "div_val": 2, "mem_len": 5, "clamp_len": 3, "same_length": True},
    "one_table": {"cutoffs": [8, 15], "div_val": 1, "mem_len": 9, "clamp_len": -1, "same_length": False},
    "one_narrow_table": {
        **{"cutoffs": [8, 15], "div_val": 1, "d_embed": 8, "mem_len": 6, "clamp_len": -1, "same_length": True},
        "tie_projs": [True, False, True],
    },
    "pre_lnorm": {
        **{"cutoffs": [10, 25], "div_val": 3, "mem_len": 4, "clamp_len": 6, "same_length": False, "pre_lnorm": True},
        "tie_projs": [True, True, False],
    },
    "shared_biases": {
        **{"cutoffs": [10, 25], "div_val": 2, "mem_len": 7, "clamp_len": 2, "same_length": False, "untie_r": False},
        "proj_share_all_but_first": False,
    },
    "all_at_once": {
        **{"cutoffs": [12], "div_val": 2, "mem_len": 3, "clamp_len": 0, "same_length": True, "untie_r": False},
        **{"pre_lnorm": True, "d_model": 10, "tie_projs": [False, True]},
    },
    "untied": {
        **{"cutoffs": [6, 20], "div_val": 2, "mem_len": 5, "clamp_len": 4, "same_length": True},
        **{"tie_word_embeddings": False, "tie_projs": [False, False, False]},
    },
    "plain_softmax": {"cutoffs": [], "div_val": 2, "mem_len": 30, "clamp_len": 5, "same_length": True},
    "no_memory": {"cutoffs": [9], "div_val": 1, "mem_len": 0, "clamp_len": -1, "same_length": False},
}
ZEROS = ("published", "one_narrow_table", "shared_biases")
"""The cases whose memory is zeros at the start."""


def build(changes: dict, seed: int) -> TransfoXLLMHeadModel:
    """Make a model whose weights are so great that everything matters."""
    torch.manual_seed(seed)
    model = TransfoXLLMHeadModel(TransfoXLConfig(**{**SMALL, "dropout": 0.0, "eos_token_id": 0, **changes})).eval()
    model.crit.keep_order = True
    for name, weights in model.named_parameters():
        torch.nn.init.normal_(weights, 1.0 if "layer_norm.weight" in name else 0.0, 0.3)
    return model


@torch.no_grad()
def read(model: TransfoXLLMHeadModel, start: str) -> dict[str, torch.Tensor]:
    """Read random texts in segments, the last of which has padding behind two of the texts."""
    config, found = model.config, {}
    mems = None
    if start == "empty" and config.mem_len:
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
    for seed, (name, changes) in enumerate(CASES.items()):
        model = build(changes, seed)
        start = "zeros" if name in ZEROS else "empty"
        weights = {f"weights.{name}": values.clone() for name, values in model.state_dict().items()}
        about = {"config": model.config.to_diff_dict(), "ties": ties(model), "start": start}
        # One entry: several would be in another order each time.
        metadata = {"about": json.dumps(about, sort_keys=True)}
        save_file({**weights, **read(model, start)}, FOLDER / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main()
