"""Masked-language-model filling as a generator: words of the task's texts are masked, and drawn anew.

Tang, Lu, Lin 2019 compare it with language models that write whole texts: a BERT, fine-tuned on the task's texts, and
20 % of the words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from kdcli.api import API_VERSION, Corpus, GeneratorSettings, Reporter, Sampler
from kdcli.lm.options import LanguageModelOptions, Positive

api_version = API_VERSION


class Options(LanguageModelOptions):
    """The table ``[generators.mlm]`` of a profile."""

    model: str = "bert-base-uncased"
    """Any masked language model's hub name or folder; `tiny` has no pretrained weights."""
    mask_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the words of a text that are masked, and drawn anew; at least one is."""
    max_length: Annotated[int, Field(ge=5)] = 128
    """Longest text in word pieces: longer ones are cut in training, and no samples are made of them."""
    vocab_size: Positive = 8000
    """Of the model `tiny`: size of the vocabulary that is trained on the texts."""


def fine_tune(corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> dict[str, Any]:
    """Fine-tune all parameters on the task's texts with words masked; the best model on dev is kept.

    Raises:
        DataError: The model cannot be read, is no masked language model, or its tokenizer does not serve.
        MissingError: There is no such model.
    """
    from kd_mlm.model import prepare
    from kdcli.lm.language_model import fine_tune_language_model

    assert isinstance(settings.options, Options)
    return fine_tune_language_model(prepare(settings.options, corpus, reporter), corpus, checkpoint, settings, reporter)


def load(checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> Sampler:
    """Load a fine-tuned model to fill masks with.

    Raises:
        DataError: The folder holds none, or one that cannot be sampled from.
    """
    from kd_mlm.model import KEY
    from kdcli.lm.masked_sampler import MaskedSampler
    from kdcli.lm.pretrained import fitting_length, read_config, read_tokenizer, read_weights

    options = settings.options
    assert isinstance(options, Options)
    config, tokenizer = read_config(checkpoint, "masked"), read_tokenizer(checkpoint, kind="masked")
    max_length = fitting_length(options.max_length, config, KEY, reporter, tokenizer)
    model = read_weights(checkpoint, config, settings.precision, "masked").to(settings.device).eval()
    return MaskedSampler(model, tokenizer, settings, max_length, options.mask_share, reporter)
