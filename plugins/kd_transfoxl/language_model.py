"""The model that learns the task's texts, and how texts are sampled from it."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kd_transfoxl.model import TransfoXLConfig, TransfoXLLMHeadModel
from kd_transfoxl.words import Words, WordTokenizer, detect_words
from kdcli.api import Corpus, DataError, GeneratorSettings, Reporter, Sampler
from kdcli.lm.causal import CausalDecoder, CausalSampler, Draw
from kdcli.lm.language_model import LanguageModel
from kdcli.lm.texts import IGNORED
from kdcli.models.hf import find_model, load_lm, load_lm_config

if TYPE_CHECKING:
    from kd_transfoxl import Options

KEY = "generators.transfoxl"
HUB = {"wt103": "transfo-xl/transfo-xl-wt103"}  # the hub names of the published weights
_SAMPLE = 1000  # texts in which unknown words are counted


def prepare(options: "Options", corpus: Corpus, reporter: Reporter) -> LanguageModel:
    """Find the model that the options name."""
    words = detect_words(corpus.train) if options.words == "auto" else options.words
    folder = find_model(HUB.get(options.model, options.model), reporter, key=f"{KEY}.model")
    config = _load_config(folder)
    tokenizer = _load_tokenizer(folder, config, words)
    _report_unknown(tokenizer, corpus.train, reporter)
    return LanguageModel(KEY, tokenizer, config, folder, options.max_length, nats=nats, check=check)


def sampler(checkpoint: Path, settings: GeneratorSettings, max_length: int, reporter: Reporter) -> Sampler:
    """Return the sampler of a saved model, for texts of at most ``max_length`` words.

    The text of a pair ends with the second ``<eos>``: the first is its tab.
    """
    config = _load_config(checkpoint)
    tokenizer = _load_tokenizer(checkpoint, config)
    model = load_lm(checkpoint, config, settings.precision).to(settings.device).eval()
    check(model, max_length)
    how = {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p}
    draw = partial(model.crit.draw, **how, without=tokenizer.unk_token_id)
    ends = 2 if settings.kind == "pair" else 1
    return CausalSampler(
        model, tokenizer, settings, max_length, reporter, decoder=decoder(model, draw), ends=ends, nats=nats
    )


def decoder(model: TransfoXLLMHeadModel, draw: Draw | None = None) -> CausalDecoder:
    """Return a decoder that draws words ``[rows]`` from hidden states ``[rows, d_model]`` and uniforms ``[rows]``."""
    return CausalDecoder(model, draw or model.crit.draw, read=lambda output: output.hidden)


def nats(losses: Tensor, labels: Tensor) -> Tensor:
    """Return the nats of each row, of ``losses [rows, time - 1]`` where ``labels [rows, time]`` are not ignored."""
    return losses.masked_fill(labels[:, 1:] == IGNORED, 0.0).sum(dim=1)


@torch.inference_mode()
def check(model: TransfoXLLMHeadModel, length: int) -> None:
    """Make sure that the probabilities of a model are finite in texts of ``length`` words."""
    words = torch.arange(length - 1, device=model.device) % model.config.vocab_size
    hidden = model.transformer(words[None])
    if not model.crit.log_probs(hidden[0, -1:]).isfinite().all():
        what = f"the model cannot be sampled from: its probabilities are not finite in {model.dtype}"
        raise DataError(what, hint="sample in fp32, or fine-tune it again")


def _report_unknown(tokenizer: WordTokenizer, texts: Sequence[str], reporter: Reporter) -> None:
    """Report how many words are outside the vocabulary; all of them are an error."""
    sample = texts[:_SAMPLE]
    tokens = list(chain.from_iterable(tokenizer(sample)["input_ids"]))
    words, unknown = len(tokens) - tokens.count(tokenizer.eos_token_id), tokens.count(tokenizer.unk_token_id)
    if words and unknown == words:
        hint = "is it the model of another language?"
        raise DataError("the model knows no word of the training texts", hint=hint, key=f"{KEY}.model")
    if unknown:
        share = f"{unknown / words:.1%} of the words of {len(sample)} training texts"
        reporter.info(f"{share} are outside the vocabulary of {len(tokenizer)}, and are learned as one, <unk>")


def _load_config(folder: Path) -> TransfoXLConfig:
    config = load_lm_config(folder)
    if not isinstance(config, TransfoXLConfig):
        what = f"a {config.model_type} model is not a Transformer-XL"
        raise DataError(what, file=folder, hint='take it with the generator "gpt2"')
    config.check(folder / "config.json")
    return config


def _load_tokenizer(folder: Path, config: TransfoXLConfig, words: Words | None = None) -> WordTokenizer:
    tokenizer = WordTokenizer.from_pretrained(folder, words)
    if len(tokenizer) != config.vocab_size:
        what = f"the vocabulary is another model's: it has {len(tokenizer)} words, the model knows {config.vocab_size}"
        raise DataError(what, file=folder, hint="copy the model again, its vocabulary with it")
    return tokenizer
