"""Write what transformers 4.35.2's Transformer-XL computes into the files that the tests of ``kd_transfoxl`` read.

That version is the last whose Transformer-XL was looked after; it needs an environment of its own, outside this
repository:

    python3 -m venv ORACLE
    ORACLE/bin/pip install "transformers==4.35.2" "numpy<2" "torch==2.13.0" "sacremoses==0.2.0"
    PYTHONHASHSEED=0 ORACLE/bin/python tests/oracle/transfoxl.py [REFERENCE]

REFERENCE, by default beside the tests, becomes:

    model/       weights, inputs and outputs of small random models. Three things are asked in another way than the old
                 code does by itself: losses in the order of the words (``keep_order``), memories that are empty at
                 the start, all numbers as float32
    wt103/       a small model in the published form: configuration, weights in both forms, vocabulary in all three
    forms/       the vocabulary as torch saves it today, and as transformers 4.35.2 saved what it had loaded
    texts.json   texts, their words, ids and what is made of them again; the loss of each word of one text
"""

import contextlib
import json
import pickle
import random
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from safetensors.torch import save_file
from transformers import TransfoXLConfig, TransfoXLLMHeadModel, TransfoXLTokenizer

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests/unit/plugins/transfoxl/reference"
WORDS = 300
MADE = 150

PUBLISHED = ("counter", "special", "min_freq", "max_size", "lower_case", "delimiter", "vocab_file", "idx2sym")
PUBLISHED += ("sym2idx", "eos_idx")
WRITTEN = (ROOT / "tests/oracle/transfoxl_texts.txt").read_text("utf-8").splitlines()
PIECES = sorted({piece for text in WRITTEN for piece in text.split()} - {"<eos>"})
GLUED = ("", " ", " ", " ", " ", "  ")
ROWS, TIME = 3, 6
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
    """Read random texts."""
    mems = [torch.empty(0, ROWS, model.config.d_model) for _ in range(model.config.n_layer)]
    words = torch.randint(1, model.config.vocab_size, (ROWS, TIME))
    losses = model(input_ids=words, mems=mems, labels=words.clone()).losses.view(ROWS, TIME - 1)
    found = {"input_ids": words, "log_probs": model(input_ids=words, mems=mems).logits, "losses": losses}
    return {f"0.{name}": values.contiguous() for name, values in found.items()}


def ties(model: TransfoXLLMHeadModel) -> list[list[str]]:
    """Return the names of weights that share their memory."""
    names: dict[int, list[str]] = {}
    for name, weights in model.state_dict().items():
        names.setdefault(weights.data_ptr(), []).append(name)
    return sorted(sorted(group) for group in names.values() if len(group) > 1)


def write_cases(folder: Path) -> None:
    """Write a file for each case."""
    assert transformers.__version__ == "4.35.2", "another version is another oracle"
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, changes in CASES.items():
        model = build(changes, SEEDS[name])
        weights = {f"weights.{name}": values.clone() for name, values in model.state_dict().items()}
        about = {"config": model.config.to_diff_dict(), "ties": ties(model), "start": "empty"}
        # One entry: several would be in another order each time.
        metadata = {"about": json.dumps(about, sort_keys=True)}
        save_file({**weights, **read(model)}, folder / f"{name}.safetensors", metadata)


def main(reference: Path) -> None:
    write_cases(reference / "model")
    for name in ("wt103", "forms"):
        shutil.rmtree(reference / name, ignore_errors=True)
        (reference / name).mkdir(parents=True)
    texts = [*WRITTEN, *made_texts()]
    counting = TransfoXLTokenizer(special=["<eos>"], max_size=WORDS)
    cut = [counting.tokenize(text, split_special_tokens=True) for text in texts]
    write_vocabulary(counting, cut, reference)
    with TemporaryDirectory() as folder:
        shutil.copy(reference / "wt103/vocab.pkl", folder)  # alone: a vocab.txt would be read too
        with contextlib.chdir(folder):  # it pickles its path
            tokenizer = TransfoXLTokenizer.from_pretrained(".")
            tokenizer.save_pretrained(".")
        shutil.copy(Path(folder, "vocab.pkl"), reference / "forms/resaved.pkl")
    encoded = tokenizer(texts, split_special_tokens=True)["input_ids"]
    rows = [
        {"text": text, "words": words, "ids": ids, "joined": tokenizer.convert_tokens_to_string(words)}
        for text, words, ids in zip(texts, cut, encoded, strict=True)
    ]
    config = write_model(reference / "wt103", len(tokenizer))
    write_json(reference / "texts.json", {"rows": rows, "losses": losses(reference / "wt103", config, encoded[0])})


def made_texts() -> list[str]:
    draw = random.Random(0)
    lengths = [draw.randint(2, 14) for _ in range(MADE)]
    return ["".join(draw.choice(PIECES) + draw.choice(GLUED) for _ in range(length)) for length in lengths]


def write_vocabulary(counting: TransfoXLTokenizer, cut: list[list[str]], reference: Path) -> None:
    """Write the dictionary that was published: the attributes of what the authors had counted their words with."""
    counting.count_sents(cut)
    del counting.counter["<eos>"]
    counting.counter["<unk>"] = counting.counter["<formula>"] = 1000  # frequent, as in WikiText-103
    counting.build_vocab()
    published = {name: getattr(counting, name) for name in PUBLISHED}
    folder = reference / "wt103"
    with (folder / "vocab.pkl").open("wb") as stream:
        pickle.dump(published, stream, protocol=3)
    torch.save(published, folder / "vocab.bin", _use_new_zipfile_serialization=False)
    torch.save(published, reference / "forms/zip.bin")
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in counting.idx2sym), "utf-8")


def write_model(folder: Path, words: int) -> TransfoXLConfig:
    torch.manual_seed(0)
    shape = {"d_model": 8, "d_embed": 8, "n_head": 2, "d_head": 4, "d_inner": 16, "n_layer": 2, "mem_len": 8}
    config = TransfoXLConfig(vocab_size=words, cutoffs=[20, 60, 200], div_val=2, clamp_len=16, **shape)
    model = TransfoXLLMHeadModel(config)
    with torch.no_grad():  # the published initial values are near 0, and would hide what is mixed up
        for weights in model.parameters():
            weights.normal_(std=0.5)
    model.save_pretrained(folder, safe_serialization=False)
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "model.safetensors").chmod(0o644)
    return config


def losses(folder: Path, config: TransfoXLConfig, ids: list[int]) -> list[float]:
    """Return the nats of each word but the first, of the text and its end."""
    model = TransfoXLLMHeadModel.from_pretrained(folder, config=config).eval()
    model.crit.keep_order = True  # else the losses stand in the order of the clusters
    tokens = torch.tensor([[*ids, 0]])
    with torch.no_grad():
        nothing = [torch.empty(0, 1, config.d_model)] * config.n_layer  # else it remembers zeros
        found: list[float] = model(tokens, mems=nothing, labels=tokens).losses[0].tolist()
    return found


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else REFERENCE)
