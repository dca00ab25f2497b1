"""Predict with an exported student: onnxruntime and tokenizers alone, no torch and no kd.

python onnx_predict.py FOLDER "a text" "another"      or lines on stdin; a tab between the two texts of a pair
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

folder, lines = Path(sys.argv[1]), sys.argv[2:] or [line.rstrip("\n") for line in sys.stdin]
config = json.loads((folder / "config.json").read_text("utf-8"))
task = config["task"]
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
session = InferenceSession(folder / "model.onnx")  # or model.int8.onnx

for begin in range(0, len(lines), 32):
    rows = [line.split("\t", 1) if task["kind"] == "pair" else [line] for line in lines[begin : begin + 32]]
    inputs = []
    for texts in zip(*rows, strict=True):
        found = tokenizer.encode_batch(texts, add_special_tokens=False)
        ids = [text.ids[: config["max_length"]] or [1] for text in found]  # 1: an unknown word
        lengths = np.array([len(words) for words in ids])
        inputs += [np.array([words + [0] * (lengths.max() - len(words)) for words in ids]), lengths]  # 0: padding
    (logits,) = session.run(None, dict(zip((given.name for given in session.get_inputs()), inputs, strict=True)))
    for row in logits:
        score = row[0].clip(*(task["score_range"] or (-np.inf, np.inf)))
        odds = np.exp(row - row.max())
        if task["multi_label"]:
            yes = 1 / (1 + np.exp(-row)) > (task["thresholds"] or 0.5)
            print("|".join(np.array(task["labels"])[yes]))
        elif task["labels"]:
            print(f"{task['labels'][row.argmax()]}\t{odds.max() / odds.sum():.4f}")
        else:
            print(f"{score:.6g}")
