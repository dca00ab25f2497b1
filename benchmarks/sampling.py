"""Finished texts a second: the sampler whose batch stays full, one text at a time, and `model.generate`.

    python benchmarks/sampling.py --texts DATA/SST-2/train.tsv --tokenizer DATA/tokenizers/gpt2 [--oracle PYTHON]

GPT-2 of 117M parameters with random weights, which never end a text by themselves: so each text ends at a length drawn
from those of the real texts, the same ones for all sides, and begins with a real first token. Every side draws each
token from the model's softmax. All sides run in turns in this one process; the best of the rounds counts for each.

Then a Transformer-XL of 4 layers, 256 wide, with wt103's vocabulary and cutoffs: against the same model with the full
softmax at each step in a batch that runs on to its longest text, and, with --oracle, against transformers 4.35.2's one
text at a time, in the interpreter of an environment of its own (see tests/oracle/transfoxl.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessor, LogitsProcessorList
from transformers.utils import logging

from kdcli.lm.causal import CausalDecoder
from kdcli.lm.sampling import Decoder, draw, sample
from kdcli.models.hf import DTYPES, load_lm_tokenizer
from kdcli.tables.read import read_table

END_NOW = 2.0
"""In the place of a draw: here the text ends. No draw is as large."""
TARGETS = {("cpu", "fp32"): (7, 3), ("cpu", "bf16"): (15, 3), ("cuda", "fp32"): (100, None), ("cuda", "bf16"): (100, 4)}
"""At least so many times one text at a time, and `model.generate`."""
XL: dict[str, Any] = {
    **{"vocab_size": 267_735, "cutoffs": [20_000, 40_000, 200_000], "div_val": 4, "mem_len": 160, "clamp_len": 160},
    **{"n_layer": 4, "d_model": 256, "d_embed": 256, "n_head": 4, "d_head": 64, "d_inner": 1024},
}
"""wt103's vocabulary and cutoffs, in a smaller model."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="table with a column `sentence`")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of GPT-2's vocabulary")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--larger", type=int, default=256, help="a second batch size for the full batch")
    parser.add_argument("--draws", type=int, default=1024, help="texts of the full batch")
    parser.add_argument("--generated", type=int, default=256, help="texts of `model.generate`")
    parser.add_argument("--one", type=int, default=16, help="texts one at a time")
    parser.add_argument("--oracle", help="python of an environment with transformers 4.35.2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.manual_seed(1)

    tokenizer = load_lm_tokenizer(args.tokenizer)
    end = tokenizer.eos_token_id
    texts = read_table(args.texts, columns=["sentence"]).frame()["sentence"].to_list()
    chosen = np.random.default_rng(1).choice(len(texts), max(args.draws, args.generated, args.one), replace=False)
    encoded = tokenizer([texts[row].strip() for row in chosen])["input_ids"]
    first = torch.tensor([tokens[0] for tokens in encoded])
    lengths = torch.tensor([min(len(tokens) + 1, 128) for tokens in encoded])  # the end is one more

    for precision in ("fp32", "bf16"):
        model = GPT2LMHeadModel(GPT2Config()).to(args.device, DTYPES[precision]).eval()
        job = Job(model, first.to(args.device), lengths.to(args.device), end)
        ways: dict[str, tuple[int, Callable[[int], None]]] = {
            "one text at a time": (args.one, job.one_by_one),
            f"model.generate, batch {args.batch_size}": (args.generated, partial(job.generate, args.batch_size)),
        }
        for rows in dict.fromkeys((args.batch_size, args.larger)):
            ways[f"kd, a full batch of {rows}"] = (args.draws, partial(job.full_batch, rows))
        report(args, precision, job, {name: rate(way, count, args) for name, (count, way) in ways.items()})
    transformer_xl(args, [texts[row] for row in chosen])


class Job:
    """The same texts, by each of the ways."""

    def __init__(self, model: Any, first: Tensor, lengths: Tensor, end: int) -> None:
        self.model, self.first, self.lengths, self.end = model, first, lengths, end

    @torch.inference_mode()
    def one_by_one(self, count: int) -> None:
        """Go through each text alone, with transformers' own cache of keys and values."""
        for row in range(count):
            token, cache = self.first[row : row + 1, None], None
            for _ in range(int(self.lengths[row]) - 1):
                output = self.model(token, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                token = torch.multinomial(output.logits[:, -1].float().softmax(-1), 1)

    def generate(self, batch: int, count: int) -> None:
        """Go through batches that each run on to their longest text."""
        for start in range(0, count, batch):
            rows = slice(start, min(start + batch, count))
            ends = LogitsProcessorList([EndAt(self.lengths[rows], self.end)])
            self.model.generate(
                self.first[rows, None],
                attention_mask=torch.ones_like(self.first[rows, None]),
                do_sample=True,
                top_k=0,
                max_length=128,
                eos_token_id=self.end,
                pad_token_id=self.end,
                logits_processor=ends,
            )

    @torch.inference_mode()
    def run_on(self, batch: int, decoder: Decoder, count: int) -> None:
        """Go through batches that each run on to their longest text, a decoder's step for each word."""
        for start in range(0, count, batch):
            token, lengths = self.first[start : start + batch], self.lengths[start : start + batch]
            longest = int(lengths.max())
            decoder.open(len(token), longest)
            for place in range(longest - 1):
                uniforms = torch.rand(len(token), dtype=torch.float64, device=token.device)
                token = decoder.step(token, torch.full_like(token, place), place + 1, uniforms)

    def full_batch(self, rows: int, count: int, decoder: Decoder | None = None) -> None:
        """Go through a batch whose rows take up the next text when one ends."""
        uniforms = torch.rand(count, 128, dtype=torch.float64, device=self.first.device)
        uniforms.scatter_(1, self.lengths[:count, None] - 1, END_NOW)
        ended = Ended(decoder or CausalDecoder(self.model), self.end)
        found = sample(ended, self.first[:count], uniforms, end=self.end, rows=rows)
        reached = (found[:, 1:] == self.end).int().argmax(dim=1) + 2
        assert torch.equal(reached, self.lengths[:count].clamp(min=2)), "a text did not end where it should"


class Ended:
    """A decoder of `kd`, with texts that end when they are told to and not before."""

    def __init__(self, decoder: Decoder, end: int) -> None:
        self.decoder, self.end = decoder, end
        self.device, self.open, self.keep = decoder.device, decoder.open, decoder.keep

    def step(self, tokens: Tensor, places: Tensor, width: int, uniforms: Tensor) -> Tensor:
        """Draw the next token of each row, or end its text."""
        now = uniforms == END_NOW
        following = self.decoder.step(tokens, places, width, uniforms.clamp(max=0.5))
        following = torch.where(following == self.end, 0, following)
        return torch.where(now, self.end, following)


class EndAt(LogitsProcessor):
    """Texts that end when they are told to and not before, for `model.generate`."""

    def __init__(self, lengths: Tensor, end: int) -> None:
        self.lengths, self.end = lengths, end

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Make the end certain, or impossible."""
        now = input_ids.shape[1] == self.lengths - 1
        scores = scores.masked_fill(now[:, None], -torch.inf)
        scores[:, self.end] = torch.where(now, 0.0, -torch.inf)
        return scores


def rate(way: Callable[[int], None], count: int, args: argparse.Namespace) -> float:
    """Return the texts a second of the best round, after a warm-up."""
    way(min(count, args.batch_size))
    best = float("inf")
    for _ in range(args.rounds):
        synchronise(args.device)
        begin = time.perf_counter()
        way(count)
        synchronise(args.device)
        best = min(best, time.perf_counter() - begin)
    return count / best


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def transformer_xl(args: argparse.Namespace, texts: list[str]) -> None:
    """Compare the ways of a Transformer-XL: its words are those of a text, whichever they are."""
    from kd_transfoxl.language_model import decoder as decoder_of
    from kd_transfoxl.model import TransfoXLConfig, TransfoXLLMHeadModel

    rows, end = args.batch_size, 0
    lengths = torch.tensor([min(len(text.split()) + 1, 80) for text in texts]).clamp(min=2)
    first = torch.randint(1, XL["cutoffs"][0], lengths.shape)
    model = TransfoXLLMHeadModel(TransfoXLConfig(**XL)).to(args.device).eval()
    job = Job(model, first.to(args.device), lengths.to(args.device), end)
    full = decoder_of(model, lambda hidden, uniforms: draw(model.crit.log_probs(hidden), uniforms))
    rates = {}
    if args.oracle:
        some = {"first": first[: args.one].tolist(), "lengths": lengths[: args.one].tolist()}
        sent = json.dumps({"config": XL, "rounds": args.rounds, **some})
        script = Path(__file__).with_name("released_transfoxl.py")
        run = subprocess.run([args.oracle, script], input=sent, capture_output=True, text=True, check=True)
        rates["transformers 4.35.2, one text at a time"] = float(run.stdout)
    run_on = partial(job.run_on, rows, full)
    rates[f"ours, full softmax, batch {rows} to its longest text"] = rate(run_on, args.generated, args)
    ours = partial(job.full_batch, rows, decoder=decoder_of(model))
    rates[f"kd, a full batch of {rows}"] = rate(ours, args.draws, args)
    table = Table(title=f"Transformer-XL, {XL['vocab_size']:,} words, on {args.device}, fp32")
    for column in ("", "texts/s", *(f"to the {place}" for place in ("first", "second")[: len(rates) - 1])):
        table.add_column(column, justify="left" if not column else "right")
    for name, found in rates.items():
        table.add_row(name, f"{found:,.1f}", *(f"{found / other:.2f}x" for other in list(rates.values())[:-1]))
    table.add_row("at least", "", *(["30x", "4x"] if args.oracle else ["4x"]))
    Console(width=110).print(table)


def report(args: argparse.Namespace, precision: str, job: Job, rates: dict[str, float]) -> None:
    least = TARGETS.get((torch.device(args.device).type, precision), (None, None))
    one, generated = list(rates.values())[:2]
    tokens = float(job.lengths.float().mean()) - 1
    title = f"GPT-2 117M on {args.device} in {precision}, {torch.get_num_threads()} threads, {tokens:.1f} tokens a text"
    table = Table(title=title)
    for column in ("", "texts/s", "tokens/s", "to one at a time", "to generate"):
        table.add_column(column, justify="left" if not column else "right")
    for name, found in rates.items():
        row = [name, f"{found:,.1f}", f"{found * tokens:,.0f}", f"{found / one:.2f}x", f"{found / generated:.2f}x"]
        table.add_row(*row)
    table.add_row("at least", "", "", *("" if value is None else f"{value}x" for value in least))
    console = Console(width=110)
    console.print(table)
    if args.device.startswith("cuda"):
        console.print(against_the_memory(args, job, list(rates.values())[-1] * tokens, args.larger))
        console.print(f"800,000 such texts: {800_000 / max(list(rates.values())[2:]):,.0f} s")


def against_the_memory(args: argparse.Namespace, job: Job, tokens: float, rows: int) -> str:
    """Compare with what the memory allows: each step reads all weights once, and the keys and values so far."""
    block = torch.empty(2**30, dtype=torch.uint8, device=args.device)
    other = torch.empty_like(block)
    other.copy_(block)
    synchronise(args.device)
    begin = time.perf_counter()
    for _ in range(20):
        other.copy_(block)
    synchronise(args.device)
    bandwidth = 20 * 2 * block.numel() / (time.perf_counter() - begin)
    config, size = job.model.config, job.model.dtype.itemsize
    weights = sum(parameter.numel() for parameter in job.model.parameters()) * size
    cached = rows * float(job.lengths.float().mean()) / 2 * config.n_layer * 2 * config.n_embd * size
    logits = rows * config.vocab_size * (size + 3 * 4)  # written, read, and as weights of the draw
    limit = rows * bandwidth / (weights + cached + logits)
    return f"memory: {bandwidth / 1e12:.2f} TB/s, so at most {limit:,.0f} tokens/s; reached {tokens / limit:.0%}"


if __name__ == "__main__":
    main()
