"""Transformer-XL, which transformers has dropped, as a generator (Dai et al. 2019; Tang, Lu, Lin 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from kdcli.api import API_VERSION, Corpus, GeneratorSettings, Reporter, Sampler
from kdcli.lm import LanguageModelOptions, Positive

api_version = API_VERSION

Natural = Annotated[int, Field(ge=0)]
Size = Positive | Literal["auto"]


class Options(LanguageModelOptions):
    """The table ``[generators.transfoxl]`` of a profile.

    Sizes and vocabulary are for a model from scratch; ``auto`` takes those of ``model``, or its proportions.
    """

    model: str = "wt103"
    """wt103, as published; tiny, which has no pretrained weights; or a hub name or folder of the published form."""
    from_scratch: bool = False
    """Start from random weights, with a vocabulary counted from the training texts."""
    words: Literal["auto", "moses", "whitespace"] = "auto"
    """Split texts by the rules of Moses, or at white space; `auto`: at white space if they are tokenised already."""
    min_freq: Positive = 2
    """From scratch: occurrences that a word needs."""
    max_size: Natural = 0
    """From scratch: the most words, the most frequent ones; 0 = no limit."""
    n_layer: Size = "auto"
    """From scratch: layers."""
    d_model: Size = "auto"
    """From scratch: width of the hidden states and of the embeddings of the most frequent words."""
    n_head: Size = "auto"
    """From scratch: heads."""
    d_head: Size = "auto"
    """From scratch: width of a head; `auto`: together the heads are `d_model` wide."""
    d_inner: Size = "auto"
    """From scratch: width inside the feed-forward layers; `auto` grows with `d_model`."""
    div_val: Size = "auto"
    """From scratch: the embeddings of each cluster are so many times narrower than of the one before; 1 = as wide."""
    cutoffs: tuple[Positive, ...] | Literal["auto"] = "auto"
    """From scratch: the first word of each cluster but the first; `auto`: in wt103's proportions; [] = one cluster."""
    mem_len: Natural | Literal["auto"] = "auto"
    """From scratch: positions that a layer remembers; 0 = none: a text is read at once."""
    max_length: Annotated[int, Field(ge=2)] = 80
    """Longest text in words, its end included: longer ones are cut in training, and rejected in sampling."""


def fine_tune(corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> dict[str, Any]:
    """Fine-tune all parameters on the task's texts; the best model on dev is kept."""
    from kd_transfoxl.language_model import prepare
    from kdcli.lm.language_model import fine_tune_language_model

    assert isinstance(settings.options, Options)
    return fine_tune_language_model(prepare(settings.options, corpus, reporter), corpus, checkpoint, settings, reporter)


def load(checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> Sampler:
    """Load a fine-tuned model to sample from. Its texts never hold ``<unk>``."""
    from kd_transfoxl.language_model import sampler

    assert isinstance(settings.options, Options)
    return sampler(checkpoint, settings, settings.options.max_length, reporter)
