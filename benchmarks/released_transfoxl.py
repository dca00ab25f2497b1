"""Texts a second of transformers 4.35.2's Transformer-XL in the plain loop of papers' code: one text at a time.

Not for itself: `benchmarks/sampling.py --oracle PYTHON` runs it in an environment that holds that version (see
tests/oracle/transfoxl.py), with a JSON of the configuration, first words and lengths on stdin.
"""

import json
import sys
import time

import torch
import transformers

request = json.load(sys.stdin)
assert transformers.__version__ == "4.35.2", transformers.__version__
torch.manual_seed(1)
model = transformers.TransfoXLLMHeadModel(transformers.TransfoXLConfig(**request["config"])).eval()


@torch.no_grad()
def go_through(texts: list[tuple[int, int]]) -> None:
    """Draw each text, a word at a time, from the softmax over all words."""
    for first, length in texts:
        word, mems = torch.tensor([[first]]), None
        for _ in range(length - 1):
            output = model(word, mems=mems)
            mems = output.mems
            word = torch.multinomial(output.prediction_scores[:, -1].exp(), 1)


texts = list(zip(request["first"], request["lengths"], strict=True))
go_through(texts[:2])
best = float("inf")
for _ in range(request["rounds"]):
    begin = time.perf_counter()
    go_through(texts)
    best = min(best, time.perf_counter() - begin)
print(len(texts) / best)
