"""Transformer-XL, which transformers has dropped, as a generator (Dai et al. 2019; Tang, Lu, Lin 2019)."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kdcli.api import API_VERSION, Corpus, GeneratorSettings, Reporter, Sampler
from kdcli.lm import LanguageModelOptions

api_version = API_VERSION
SIZES = ("n_layer", "d_model", "n_head", "d_head", "d_inner", "div_val", "cutoffs", "mem_len")
EARLIER = {
    "from_scratch": False,
    "max_size": 0,
    "min_freq": 2,
    **dict.fromkeys(SIZES, "auto"),
}  # options that are no more


class Options(LanguageModelOptions):
    """The table ``[generators.transfoxl]`` of a profile."""

    model: str = "wt103"
    """wt103, as published, or a hub name or folder of the published form."""
    words: Literal["auto", "moses", "whitespace"] = "auto"
    """Split texts by the rules of Moses, or at white space; `auto`: at white space if they are tokenised already."""
    max_length: Annotated[int, Field(ge=2)] = 80
    """Longest text in words, its end included: longer ones are cut in training, and rejected in sampling."""

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accept what profiles of earlier versions hold without effect."""
        return {name: value for name, value in values.items() if name not in EARLIER or value != EARLIER[name]}


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
