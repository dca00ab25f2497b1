"""The model that learns the task's texts: pretrained, or from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast, set_seed

from kd_gpt2 import Options
from kdcli.api import Corpus, Reporter
from kdcli.lm.language_model import LanguageModel
from kdcli.lm.pretrained import (
    find_model,
    fitting_length,
    read_config,
    read_tokenizer,
    read_weights,
    sha256,
)

SIZES = {
    "tiny": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "117M": {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
    "345M": {"n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 1024},
}
"""The two sizes of Tang, Lu, Lin 2019, and one for tests."""
HUB = {"117M": "gpt2", "345M": "gpt2-medium"}
"""Where the weights of a size are published."""
END = "<|endoftext|>"
KEY = "generators.gpt2"


def prepare(options: Options, corpus: Corpus, reporter: Reporter) -> LanguageModel:
    """Find the model that the options name, or lay one out with random weights.

    Raises:
        DataError: The folder holds no causal language model, or its tokenizer has no end-of-text token.
        MissingError: There is no such model.
    """
    if options.from_scratch or options.model == "tiny":
        return _from_scratch(options, corpus, reporter)
    folder = find_model(HUB.get(options.model, options.model), reporter, key=f"{KEY}.model")
    config, tokenizer = read_config(folder), read_tokenizer(folder)

    def build(seed: int) -> Any:
        set_seed(seed)  # of dropout
        return read_weights(folder, config)

    length = fitting_length(options.max_length, config, KEY, reporter)
    return LanguageModel(KEY, tokenizer, build, load, {"weights": sha256(folder)}, config, length)


def load(folder: Path) -> Any:
    """Read the model that a training has saved, in float32."""
    return read_weights(folder, read_config(folder))


def train_bpe(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on texts: GPT-2's tokenizer in all but the vocabulary."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=2, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=END, eos_token=END, unk_token=END)


def _from_scratch(options: Options, corpus: Corpus, reporter: Reporter) -> LanguageModel:
    if options.model in SIZES:
        config = GPT2Config(**SIZES[options.model])
    else:
        config = read_config(find_model(options.model, reporter, key=f"{KEY}.model"))
    if options.tokenizer:
        tokenizer = read_tokenizer(options.tokenizer, key=f"{KEY}.tokenizer")
    else:
        tokenizer = train_bpe(corpus.train, options.vocab_size)
    config.vocab_size = len(tokenizer)
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = None  # that of another vocabulary

    def build(seed: int) -> Any:
        set_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)

    length = fitting_length(options.max_length, config, KEY, reporter)
    return LanguageModel(KEY, tokenizer, build, load, {"vocabulary": tokenizer.get_vocab()}, config, length)
