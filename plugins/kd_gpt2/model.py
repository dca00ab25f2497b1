"""The model that learns the task's texts: pretrained, or from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast, set_seed

from kdcli.api import Corpus, Reporter
from kdcli.lm.language_model import LanguageModel
from kdcli.models.hf import find_model, fit_max_length, load_lm, load_lm_config, load_lm_tokenizer, sha256

if TYPE_CHECKING:
    from kd_gpt2 import Options

KEY = "generators.gpt2"
SIZES = {
    "tiny": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "117M": {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
    "345M": {"n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 1024},
}
"""The two sizes of Tang, Lu, Lin 2019, and one for tests."""
HUB = {"117M": "gpt2", "345M": "gpt2-medium"}
"""The hub names of the published weights."""
END = "<|endoftext|>"


def prepare(options: Options, corpus: Corpus, reporter: Reporter) -> LanguageModel:
    """Find the model that the options name, or configure one with random weights."""
    scratch = options.from_scratch or options.model == "tiny"
    identity: dict[str, Any]
    if scratch and options.model in SIZES:
        config: Any = GPT2Config(**SIZES[options.model])
    else:
        folder = find_model(HUB.get(options.model, options.model), reporter, key=f"{KEY}.model")
        config = load_lm_config(folder)
    if scratch:
        tokenizer = _tokenizer(options, corpus, reporter)
        config.vocab_size = len(tokenizer)
        config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = None  # the configuration's own belongs to another vocabulary
        identity = {"vocabulary": tokenizer.get_vocab()}
    else:
        tokenizer, identity = load_lm_tokenizer(folder), {"weights": sha256(folder)}

    def build(seed: int) -> Any:
        set_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32) if scratch else load_lm(folder, config)

    length = fit_max_length(options.max_length, config, key=f"{KEY}.max_length", reporter=reporter)
    return LanguageModel(KEY, tokenizer, build, load_fine_tuned, identity, config, length)


def load_fine_tuned(folder: Path) -> Any:
    """Load the model that a training has saved, in float32."""
    return load_lm(folder, load_lm_config(folder))


def train_bpe(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on texts: GPT-2's tokenizer with a vocabulary of its own."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=2, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=END, eos_token=END, unk_token=END)


def _tokenizer(options: Options, corpus: Corpus, reporter: Reporter) -> Any:
    if not options.tokenizer:
        return train_bpe(corpus.train, options.vocab_size)
    return load_lm_tokenizer(find_model(options.tokenizer, reporter, key=f"{KEY}.tokenizer", weights=False))
