"""The model that learns the task's texts, published or from scratch, and the one that samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed

from kd_transfoxl import Options
from kd_transfoxl.configuration import TransfoXLConfig
from kd_transfoxl.decoder import TransfoXLDecoder
from kd_transfoxl.model import TransfoXLLMHeadModel
from kd_transfoxl.tokenizing import WordTokenizer, words_of
from kd_transfoxl.vocabulary import fitting_cutoffs
from kdcli.api import Corpus, DataError, GeneratorSettings, ProfileError, Reporter, Sampler
from kdcli.lm.causal_sampler import CausalSampler
from kdcli.lm.language_model import LanguageModel
from kdcli.lm.pretrained import find_model, read_config, read_weights, sha256
from kdcli.lm.texts import IGNORED

KEY = "generators.transfoxl"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "tiny": {"n_layer": 2, "d_model": 64, "d_embed": 64, "n_head": 2, "d_head": 32, "d_inner": 128, "div_val": 2},
    "wt103": {},
}
"""What differs from the published configuration."""
HUB = {"wt103": "transfo-xl/transfo-xl-wt103"}
"""Where the weights of a configuration are published."""
_LOOKED_AT = 1000
"""Texts that tell how many words are unknown."""
SIZES = ("n_layer", "d_model", "n_head", "d_head", "d_inner", "div_val", "cutoffs", "mem_len")


def prepare(options: Options, corpus: Corpus, reporter: Reporter) -> LanguageModel:
    """Find the model that the options name, or lay one out with random weights.

    Raises:
        DataError: The folder holds no Transformer-XL, or its vocabulary is another model's.
        MissingError: There is no such model.
        ProfileError: The options make no model.
    """
    words = words_of(corpus.train) if options.words == "auto" else options.words
    if options.from_scratch or options.model == "tiny":
        return _from_scratch(options, corpus.train, words, reporter)
    if given := [name for name in SIZES if getattr(options, name) != "auto"]:
        what = f"{given[0]} is for a model from scratch, and this one is trained already"
        raise ProfileError(what, key=f"{KEY}.{given[0]}", hint='leave it "auto", or set from_scratch')
    folder = find_model(HUB.get(options.model, options.model), reporter, key=f"{KEY}.model")
    config, tokenizer = _read(folder, words)
    _tell_unknown(tokenizer, corpus.train, reporter)

    def build(seed: int) -> Any:
        set_seed(seed)  # of dropout
        return read_weights(folder, config)

    identity = {"weights": sha256(folder), "words": words}
    return _language_model(tokenizer, build, identity, config, options.max_length)


def load(folder: Path) -> TransfoXLLMHeadModel:
    """Read the model that a training has saved, in float32.

    Raises:
        DataError: The folder holds none, or its tensors do not fit its configuration.
    """
    return read_weights(folder, _read_config(folder))  # type: ignore[no-any-return]


def sampler(checkpoint: Path, settings: GeneratorSettings, max_length: int, reporter: Reporter) -> Sampler:
    """Return what draws texts of at most ``max_length`` words from a saved model.

    The text of a pair ends with the second ``<eos>``: the first is its tab.

    Raises:
        DataError: The folder holds no such model, or one whose probabilities are no numbers.
    """
    config, tokenizer = _read(checkpoint)
    model = read_weights(checkpoint, config, settings.precision).to(settings.device).eval()
    check(model, max_length)
    draw = partial(
        model.crit.draw,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        without=tokenizer.unk_token_id,
    )
    ends = 2 if settings.kind == "pair" else 1
    decoder = TransfoXLDecoder(model, draw)
    return CausalSampler(model, tokenizer, settings, max_length, reporter, decoder=decoder, ends=ends, nats=nats)


def nats(losses: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of each row.

    Args:
        losses: ``[rows, time - 1]``, the nats of each word but the first.
        labels: ``int64 [rows, time]``, ``IGNORED`` for what does not count.

    Returns:
        ``[rows]``, in nats.
    """
    return losses.masked_fill(labels[:, 1:] == IGNORED, 0.0).sum(dim=1)


@torch.inference_mode()
def check(model: TransfoXLLMHeadModel, length: int) -> None:
    """Make sure that a model gives probabilities at each place of a text of ``length`` words.

    Raises:
        DataError: They are no numbers.
    """
    words = torch.arange(length - 1, device=model.device) % model.config.vocab_size
    hidden, _ = model.transformer(words[None])
    if not model.crit.log_probs(hidden[0, -1:]).isfinite().all():
        what = f"the model cannot be sampled from: its probabilities are no numbers in {model.dtype}"
        raise DataError(what, hint="sample in fp32, or fine-tune it again")


def _from_scratch(options: Options, texts: Sequence[str], words: Any, reporter: Reporter) -> LanguageModel:
    if options.model in CONFIGURATIONS:
        config = TransfoXLConfig(**CONFIGURATIONS[options.model])
    else:
        config = _read_config(find_model(options.model, reporter, key=f"{KEY}.model"))
    tokenizer = WordTokenizer.train(texts, words, min_freq=options.min_freq, max_size=options.max_size or None)
    _tell_unknown(tokenizer, texts, reporter)
    config = _laid_out(config, options, tokenizer)

    def build(seed: int) -> Any:
        set_seed(seed)
        return TransfoXLLMHeadModel(config)

    identity = {"vocabulary": list(tokenizer.vocabulary.words), "words": words}
    return _language_model(tokenizer, build, identity, config, options.max_length)


def _laid_out(config: TransfoXLConfig, options: Options, tokenizer: WordTokenizer) -> TransfoXLConfig:
    """Return a configuration with the sizes of the options, for a vocabulary.

    Raises:
        ProfileError: There is no such model.
    """
    given = {name: getattr(options, name) for name in SIZES if getattr(options, name) != "auto"}
    cutoffs = fitting_cutoffs(len(tokenizer), given.pop("cutoffs", None))
    d_model, n_head = given.get("d_model", config.d_model), given.get("n_head", config.n_head)
    mem_len = given.get("mem_len", config.mem_len)
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "cutoffs": cutoffs,
        "tie_projs": None,  # there may be another number of clusters: tied as the published ones, all but the first
        "same_length": config.same_length and mem_len > 0,  # it says that mem_len places are seen
    }
    if "d_model" in given:
        values |= {"d_embed": d_model, "d_inner": max(d_model * config.d_inner // config.d_model, 1)}
    if "d_model" in given or "n_head" in given:
        values["d_head"] = max(d_model // n_head, 1)
    made: TransfoXLConfig = TransfoXLConfig.from_dict({**config.to_dict(), **values, **given})
    try:
        made.check()
    except DataError as error:
        raise ProfileError(error.what, key=KEY, hint=error.hint) from error
    return made


def _tell_unknown(tokenizer: WordTokenizer, texts: Sequence[str], reporter: Reporter) -> None:
    """Tell how many words are outside the vocabulary.

    Raises:
        DataError: All of them.
    """
    looked_at = texts[:_LOOKED_AT]
    tokens = list(chain.from_iterable(tokenizer(looked_at)["input_ids"]))
    words, unknown = len(tokens) - tokens.count(tokenizer.eos_token_id), tokens.count(tokenizer.unk_token_id)
    if words and unknown == words:
        hint = "is it the model of another language? from_scratch counts a vocabulary of these texts"
        raise DataError("the model knows no word of the training texts", hint=hint, key=f"{KEY}.model")
    if unknown:
        share = f"{unknown / words:.1%} of the words of {len(looked_at)} training texts"
        reporter.info(f"{share} are outside the vocabulary of {len(tokenizer)}, and are learned as one, <unk>")


def _language_model(
    tokenizer: WordTokenizer, build: Any, identity: dict[str, Any], config: TransfoXLConfig, max_length: int
) -> LanguageModel:
    return LanguageModel(KEY, tokenizer, build, load, identity, config, max_length, nats, check)


def _read(folder: Path, words: Any = None) -> tuple[TransfoXLConfig, WordTokenizer]:
    """Read the configuration and the words of a model.

    Raises:
        DataError: The folder does not hold them, or they do not fit each other.
    """
    config, tokenizer = _read_config(folder), WordTokenizer.from_pretrained(folder, words)
    if len(tokenizer) != config.vocab_size:
        what = f"the vocabulary is another model's: it has {len(tokenizer)} words, the model knows {config.vocab_size}"
        raise DataError(what, file=folder, hint="copy the model again, its vocabulary with it")
    return config, tokenizer


def _read_config(folder: Path) -> TransfoXLConfig:
    config = read_config(folder)
    if not isinstance(config, TransfoXLConfig):
        what = f"a {config.model_type} model is no Transformer-XL"
        raise DataError(what, file=folder, hint='take it with the generator "gpt2"')
    try:
        config.check()
    except DataError as error:
        raise DataError(error.what, hint=error.hint, file=folder / "config.json") from error
    return config
