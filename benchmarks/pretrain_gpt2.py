"""Pretrain a small GPT-2 on plain texts: what stands in for the published weights on a machine that cannot fetch them.

    python benchmarks/pretrain_gpt2.py OUTPUT TEXTS.txt...

One text a line, each a sequence of its own with the end-of-text token behind it. The tokenizer is a byte-level BPE
trained on the same texts. OUTPUT is a Hugging Face folder for `--set generators.gpt2.model=OUTPUT`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

END = "<|endoftext|>"


def batches(lengths: np.ndarray, budget: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut the shuffled texts into batches of like length and about `budget` tokens, in random order."""
    order = np.argsort(lengths + rng.random(len(lengths)), kind="stable")
    cuts, start = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > budget:
            cuts.append(order[start:end])
            start = end
    return [cuts[i] for i in rng.permutation(len(cuts))]


class HeadLoss(torch.autograd.Function):
    """Mean cross entropy behind the output head, a few rows at a time: all logits at once are 4x the time on a CPU."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of `hidden` [rows, width] and, already here, both gradients."""
        rows, table = hidden.bfloat16(), weight.bfloat16()
        by_rows, by_weight, total = torch.empty_like(hidden), torch.zeros_like(weight), hidden.new_zeros(())
        for start in range(0, len(rows), 512):
            part, wanted = rows[start : start + 512], targets[start : start + 512, None]
            logits = (part @ table.T).float()
            normal = logits.logsumexp(1, keepdim=True)
            total += (normal - logits.gather(1, wanted)).sum()
            wrong = logits.sub_(normal).exp_().scatter_add_(1, wanted, -torch.ones_like(normal)).bfloat16()
            by_rows[start : start + 512] = (wrong @ table).float()
            by_weight += (wrong.T @ part).float()
        ctx.save_for_backward(by_rows / len(rows), by_weight / len(rows))
        return total / len(rows)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        """Return the gradients of the rows and of the head."""
        by_rows, by_weight = ctx.saved_tensors
        return above * by_rows, above * by_weight, None


def main() -> None:
    """Train the tokenizer and the model, and write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=16_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens a batch")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--minutes", type=float, default=30.0, help="the schedule shrinks to end within this time")
    args = parser.parse_args()
    torch.manual_seed(1)
    rng = np.random.default_rng(1)

    bpe = ByteLevelBPETokenizer()
    bpe.train([str(path) for path in args.texts], vocab_size=args.vocabulary, min_frequency=2, special_tokens=[END])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=END, eos_token=END, unk_token=END, model_max_length=256
    )
    lines = [line.strip() for path in args.texts for line in path.read_text("utf-8").split("\n")]
    encoded = [[*ids[:127], tokenizer.eos_token_id] for ids in tokenizer([line for line in lines if line])["input_ids"]]
    lengths = np.array([len(ids) for ids in encoded])
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=256,
        n_embd=args.width,
        n_layer=args.layers,
        n_head=args.width // 64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        activation_function="gelu_pytorch_tanh",  # the same function as gelu_new, in one kernel
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    print(f"{len(encoded)} texts, {lengths.sum()} tokens, {model.num_parameters()} parameters", flush=True)

    began, done, total = time.monotonic(), 0, args.epochs * int(lengths.sum())
    for epoch in range(args.epochs):
        losses = []
        for rows in batches(lengths, args.tokens, rng):
            # The progress is that of the tokens or that of the clock, whichever is further.
            progress = max(done / total, (time.monotonic() - began) / (60 * args.minutes))
            if progress >= 1:
                break
            warmed = min(1.0, done / (0.03 * total) + 0.01)
            optimizer.param_groups[0]["lr"] = args.lr * warmed * 0.5 * (1 + math.cos(math.pi * progress))
            longest = int(lengths[rows].max())
            ids = torch.full((len(rows), longest), tokenizer.eos_token_id)
            labels = torch.full((len(rows), longest), -100)
            for row, text in enumerate(rows):
                ids[row, : lengths[text]] = labels[row, : lengths[text]] = torch.tensor(encoded[text])
            with torch.autocast("cpu", torch.bfloat16):
                hidden = model.transformer(ids).last_hidden_state[:, :-1]
                real = labels[:, 1:] != -100
            loss = HeadLoss.apply(hidden[real].float(), model.lm_head.weight, labels[:, 1:][real])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += int(lengths[rows].sum())
            losses.append(loss.item())
            if len(losses) % 50 == 0:
                rate = done / (time.monotonic() - began)
                print(f"epoch {epoch} {done / total:.3f} loss {np.mean(losses[-50:]):.3f} {rate:.0f} tok/s", flush=True)
        model.save_pretrained(args.output)
        tokenizer.save_pretrained(args.output)
    print(f"wrote {args.output} after {(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr)


if __name__ == "__main__":
    main()
