"""Writes what the tests of the vocabulary of Transformer-XL compare with, by transformers 4.35.2 itself.

That version needs an environment of its own, outside the repository:

    python3 -m venv ENV
    ENV/bin/pip install transformers==4.35.2 "numpy<2" torch==2.13.0 sacremoses==0.2.0
    PYTHONHASHSEED=0 ENV/bin/python tests/oracle/transfoxl_vocabulary.py [REFERENCE]

REFERENCE, by default beside the tests, becomes:

    wt103/       a small model in the published form: configuration, weights in both forms, vocabulary in all three
    forms/       the vocabulary as torch saves it today, and as transformers 4.35.2 saved what it had loaded
    texts.json   texts, their words, ids and what is made of them again; the loss of each word of one text
    shared.json  hashes of the words of many texts in ../shared
"""

import contextlib
import hashlib
import json
import pickle
import random
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import TransfoXLConfig, TransfoXLLMHeadModel, TransfoXLTokenizer

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests/unit/plugins/transfoxl/reference"
SHARED = ROOT.parent / "shared/data"
WORDS = 300
MADE = 150
ROWS = 400

PUBLISHED = ("counter", "special", "min_freq", "max_size", "lower_case", "delimiter", "vocab_file", "idx2sym")
PUBLISHED += ("sym2idx", "eos_idx")
WRITTEN = (ROOT / "tests/oracle/transfoxl_texts.txt").read_text("utf-8").splitlines()
PIECES = sorted({piece for text in WRITTEN for piece in text.split()} - {"<eos>"})
GLUED = ("", " ", " ", " ", " ", "  ")
FILES = {
    "glue/MRPC/dev.tsv": 3,
    "glue/QQP/dev.tsv": 3,
    "glue/CoLA/dev.tsv": 3,
    "glue/STS-B/dev.tsv": 7,
    "glue/RTE/dev.tsv": 1,
    "glue/QNLI/dev.tsv": 2,
    "glue/SST-2/dev.tsv": 0,
    "text/wikitext-2.test.txt": 0,
    "text/movie_reviews_sentences.txt": 0,
}
"""Files in ../shared, and the column with texts."""


def main(reference: Path) -> None:
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
    if SHARED.exists():
        write_json(reference / "shared.json", {name: digest(tokenizer, name, column) for name, column in FILES.items()})


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


def digest(tokenizer: TransfoXLTokenizer, name: str, column: int) -> dict[str, str | int]:
    """Hash the words of the first texts of a file, and what is made of them again."""
    lines = (SHARED / name).read_text("utf-8").split("\n")[:ROWS]
    texts = [row[column] for line in lines if len(row := line.split("\t")) > column]
    cut = [tokenizer.tokenize(text, split_special_tokens=True) for text in texts]
    joined = [tokenizer.convert_tokens_to_string(words) for words in cut]
    hashed = hashlib.sha256(json.dumps([cut, joined]).encode()).hexdigest()
    return {"column": column, "rows": ROWS, "texts": len(texts), "sha256": hashed}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else REFERENCE)
