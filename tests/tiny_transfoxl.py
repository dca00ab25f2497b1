"""A tiny Transformer-XL in the published form: random weights, and the words of some texts."""

from collections import Counter

import torch

from kd_transfoxl.model import TransfoXLConfig, TransfoXLLMHeadModel
from kd_transfoxl.words import END, UNKNOWN, WordTokenizer, split

TINY = {"n_layer": 2, "d_model": 64, "d_embed": 64, "n_head": 2, "d_head": 32, "d_inner": 128, "div_val": 2}


def tokenizer_of(texts, words="whitespace", min_freq=1):
    """The tokenizer of the words that occur ``min_freq`` times, the most frequent first."""
    counts = Counter(word for text in texts for side in text.split("\t") for word in split(side, words))
    kept = [word for word, count in counts.items() if count >= min_freq and word not in (END, UNKNOWN)]
    return WordTokenizer([END, UNKNOWN, *sorted(kept, key=lambda word: (-counts[word], word))], words)


def write_tiny(folder, texts, min_freq=1):
    """Write a model, and return its folder as a text."""
    tokenizer = tokenizer_of(texts, min_freq=min_freq)
    size = len(tokenizer)
    config = TransfoXLConfig(vocab_size=size, cutoffs=sorted({size // 3, size // 2} - {0, 1}), **TINY)
    torch.manual_seed(2)
    TransfoXLLMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
