"""The model that learns the task's texts, and how texts are sampled from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional

from kd_transfoxl.model import TransfoXLConfig, TransfoXLLayer, TransfoXLLMHeadModel
from kd_transfoxl.words import Words, WordTokenizer, detect_words, fitting_cutoffs
from kdcli.api import Corpus, DataError, GeneratorSettings, Reporter, Sampler
from kdcli.lm.causal import CausalSampler
from kdcli.lm.language_model import LanguageModel
from kdcli.lm.texts import IGNORED
from kdcli.models.hf import find_model, load_lm, load_lm_config

if TYPE_CHECKING:
    from kd_transfoxl import Options

KEY = "generators.transfoxl"
TINY = {"n_layer": 2, "d_model": 64, "d_embed": 64, "n_head": 2, "d_head": 32, "d_inner": 128, "div_val": 2}
HUB = {"wt103": "transfo-xl/transfo-xl-wt103"}  # the hub names of the published weights
_SAMPLE = 1000  # texts in which unknown words are counted


def prepare(options: Options, corpus: Corpus, reporter: Reporter) -> LanguageModel:
    """Find the model that the options name, or configure the tiny one."""
    words = detect_words(corpus.train) if options.words == "auto" else options.words
    folder: Path | None = None
    if options.model == "tiny":
        tokenizer = WordTokenizer.train(corpus.train, words, min_freq=options.min_freq)
        config = configuration(tokenizer, **TINY)
    else:
        folder = find_model(HUB.get(options.model, options.model), reporter, key=f"{KEY}.model")
        config = _load_config(folder)
        tokenizer = _load_tokenizer(folder, config, words)
    _report_unknown(tokenizer, corpus.train, reporter)
    return LanguageModel(KEY, tokenizer, config, folder, options.max_length, nats=nats, check=check)


def configuration(tokenizer: WordTokenizer, **sizes: int) -> TransfoXLConfig:
    """Return the published configuration with other sizes and a vocabulary, its clusters in the same proportions."""
    words = len(tokenizer)
    own = {"vocab_size": words, "cutoffs": fitting_cutoffs(words), "eos_token_id": tokenizer.eos_token_id}
    return TransfoXLConfig(**own, **sizes)


def sampler(checkpoint: Path, settings: GeneratorSettings, max_length: int, reporter: Reporter) -> Sampler:
    """Return the sampler of a saved model, for texts of at most ``max_length`` words.

    The text of a pair ends with the second ``<eos>``: the first is its tab.
    """
    config = _load_config(checkpoint)
    tokenizer = _load_tokenizer(checkpoint, config)
    model = load_lm(checkpoint, config, settings.precision).to(settings.device).eval()
    check(model, max_length)
    how = {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p}
    decoder = TransfoXLDecoder(model, partial(model.crit.draw, **how, without=tokenizer.unk_token_id))
    ends = 2 if settings.kind == "pair" else 1
    return CausalSampler(model, tokenizer, settings, max_length, reporter, decoder=decoder, ends=ends, nats=nats)


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
    try:
        config.check()
    except DataError as error:
        raise DataError(error.what, hint=error.hint, file=folder / "config.json", key=error.key) from error
    return config


def _load_tokenizer(folder: Path, config: TransfoXLConfig, words: Words | None = None) -> WordTokenizer:
    tokenizer = WordTokenizer.from_pretrained(folder, words)
    if len(tokenizer) != config.vocab_size:
        what = f"the vocabulary is another model's: it has {len(tokenizer)} words, the model knows {config.vocab_size}"
        raise DataError(what, file=folder, hint="copy the model again, its vocabulary with it")
    return tokenizer


class TransfoXLDecoder:
    """A Transformer-XL with preallocated keys and values: a ``kdcli.lm.sampling.Decoder``.

    ``draw`` draws words ``[rows]`` from hidden states ``[rows, d_model]`` and uniforms ``[rows]``; by default,
    ``model.crit.draw``.
    """

    def __init__(self, model: TransfoXLLMHeadModel, draw: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        self.model = model
        self.draw: Callable[[Tensor, Tensor], Tensor] = draw or model.crit.draw
        self.layers = cast(list[TransfoXLLayer], list(model.transformer.layers))
        self.open(0, 0)

    @property
    def device(self) -> torch.device:
        """See ``Decoder``."""
        return torch.device(self.model.device)

    @torch.no_grad()
    def open(self, rows: int, length: int) -> None:
        """See ``Decoder``."""
        config = self.model.config
        shape = (config.n_layer, rows, config.n_head, length, config.d_head)
        self.keys = torch.zeros(shape, dtype=self.model.dtype, device=self.device)
        self.values = torch.zeros_like(self.keys)
        sines = self.model.transformer.sines(torch.arange(length, device=self.device), self.model.dtype)
        keys = [layer.dec_attn.distance_keys(sines).permute(1, 2, 0) for layer in self.layers]
        self.distance_keys = torch.stack(keys)  # [layers, heads, d_head, length], the same for all texts

    def step(self, tokens: Tensor, positions: Tensor, width: int, uniforms: Tensor) -> Tensor:
        """See ``Decoder``."""
        return self.draw(self.hidden(tokens, positions, width), uniforms)

    def hidden(self, tokens: Tensor, positions: Tensor, width: int) -> Tensor:
        """Read a word of each row; return the last hidden states ``[rows, d_model]``."""
        distances = positions[:, None] - torch.arange(width, device=positions.device)  # [rows, width]
        unseen = (distances < 0) | (distances >= self.model.config.window)
        distances = distances.masked_fill(unseen, 0)
        hidden: Tensor = self.model.transformer.word_emb(tokens)
        for number, layer in enumerate(self.layers):
            hidden = self._layer(number, layer, hidden, positions, distances, unseen)
        return hidden

    def keep(self, rows: Tensor) -> None:
        """See ``Decoder``."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def _layer(
        self, number: int, layer: TransfoXLLayer, hidden: Tensor, positions: Tensor, distances: Tensor, unseen: Tensor
    ) -> Tensor:
        """Return the output of a layer for ``[rows, d_model]``; ``distances`` and ``unseen`` are ``[rows, width]``."""
        attention, width = layer.dec_attn, distances.shape[1]
        queries, keys, values = attention.heads(hidden)  # [rows, heads, d_head]
        rows = torch.arange(len(positions), device=positions.device)
        self.keys[number, rows, :, positions] = keys
        self.values[number, rows, :, positions] = values
        distance_keys = self.distance_keys[number, :, :, :width]
        by_distance = torch.einsum("bhd,hdj->bhj", queries + attention.r_r_bias, distance_keys)
        by_position = by_distance.gather(2, distances[:, None].expand(-1, by_distance.shape[1], -1))
        found = functional.scaled_dot_product_attention(
            (queries + attention.r_w_bias)[:, :, None],
            self.keys[number, :, :, :width],
            self.values[number, :, :, :width],
            attn_mask=(attention.scale * by_position).masked_fill(unseen[:, None], -torch.inf)[:, :, None],
            scale=attention.scale,
        )
        output: Tensor = layer.pos_ff(attention.out(hidden, found[:, :, 0]))
        return output
