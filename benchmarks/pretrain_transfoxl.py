"""Train a small Transformer-XL from scratch on plain texts: what stands in for the published weights.

    python benchmarks/pretrain_transfoxl.py OUTPUT TEXTS.txt...

One text a line; every hundredth is a dev text. The training is the plugin's own. OUTPUT is a folder for
`--set generators.transfoxl.model=OUTPUT`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import kd_transfoxl
from kd_transfoxl.language_model import KEY, check, nats
from kd_transfoxl.model import TransfoXLConfig
from kd_transfoxl.words import END, UNKNOWN, WordTokenizer, detect_words, split
from kdcli.api import Corpus, GeneratorSettings
from kdcli.cli import ui
from kdcli.lm.language_model import LanguageModel, fine_tune_language_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--max-steps", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--precision", default="bf16")
    args = parser.parse_args()
    lines = [line.strip() for path in args.texts for line in path.read_text("utf-8").split("\n")]
    lines = [" ".join(line.split()) for line in lines if line]
    corpus = Corpus("single", [line for i, line in enumerate(lines) if i % 100], lines[::100])
    options = kd_transfoxl.Options(
        epochs=args.epochs, max_steps=args.max_steps, batch_size=args.batch_size, lr=args.lr, warmup=0.05
    )
    rules = detect_words(corpus.train)
    counts = Counter(word for text in corpus.train for word in split(text, rules))
    frequent = [word for word, count in counts.most_common() if count > 1 and word not in (END, UNKNOWN)]
    tokenizer = WordTokenizer([END, UNKNOWN, *frequent], rules)
    shares = [round(cutoff * len(tokenizer) / 267_735) for cutoff in (20_000, 40_000, 200_000)]  # those of wt103
    sizes = {"n_layer": args.layers, "d_model": args.width, "d_embed": args.width, "d_inner": 4 * args.width}
    sizes |= {"n_head": args.width // 64, "d_head": 64, "div_val": 2}
    config = TransfoXLConfig(vocab_size=len(tokenizer), cutoffs=shares, **sizes)
    model = LanguageModel(KEY, tokenizer, config, None, options.max_length, nats=nats, check=check)
    settings = GeneratorSettings(options, "single", seed=1, device="cpu", precision=args.precision)
    with ui.reporting("pretrain") as reporter:
        print(fine_tune_language_model(model, corpus, args.output, settings, reporter))


if __name__ == "__main__":
    main()
