"""GPT-2, or any causal language model of Hugging Face, as a generator (Tang, Lu, Lin 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdcli.api import API_VERSION, Corpus, GeneratorSettings, Reporter, Sampler
from kdcli.lm import LanguageModelOptions, Positive

api_version = API_VERSION


class Options(LanguageModelOptions):
    """The table ``[generators.gpt2]`` of a profile."""

    model: str = "117M"
    """GPT-2 by size (117M, 345M; tiny has no pretrained weights), or any causal model's hub name or folder."""
    from_scratch: bool = False
    """Start from random weights: only the model's configuration is used."""
    tokenizer: str = ""
    """From scratch: hub name or folder of the tokenizer; empty trains a byte-level BPE on the training texts."""
    vocab_size: Positive = 16_000
    """From scratch: size of the vocabulary trained on the texts."""


def fine_tune(corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> dict[str, Any]:
    """Fine-tune all parameters on the task's texts; the best model on dev is kept."""
    from kd_gpt2.model import prepare
    from kdcli.lm.language_model import fine_tune_language_model

    assert isinstance(settings.options, Options)
    return fine_tune_language_model(prepare(settings.options, corpus, reporter), corpus, checkpoint, settings, reporter)


def load(checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> Sampler:
    """Load a fine-tuned model to sample from."""
    from kd_gpt2.model import KEY
    from kdcli.lm.causal import CausalSampler
    from kdcli.models.hf import fit_max_length, load_lm, load_lm_config, load_lm_tokenizer

    assert isinstance(settings.options, Options)
    config, tokenizer = load_lm_config(checkpoint), load_lm_tokenizer(checkpoint)
    length = fit_max_length(settings.options.max_length, config, key=f"{KEY}.max_length", reporter=reporter)
    model = load_lm(checkpoint, config, settings.precision).to(settings.device).eval()
    return CausalSampler(model, tokenizer, settings, length, reporter)
