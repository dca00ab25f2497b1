"""Masked-language-model filling as a generator: words of the task's texts are drawn anew (Tang, Lu, Lin 2019)."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from kdcli.api import API_VERSION, Corpus, GeneratorSettings, Reporter, Sampler
from kdcli.lm import LanguageModelOptions, Positive

if TYPE_CHECKING:
    from kdcli.lm.language_model import LanguageModel

api_version = API_VERSION

KEY = "generators.mlm"
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]


class Options(LanguageModelOptions):
    """The table ``[generators.mlm]`` of a profile."""

    model: str = "bert-base-uncased"
    """Any masked language model's hub name or folder; `tiny` has no pretrained weights."""
    mask_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the words of a text that are masked, and drawn anew; at least one is."""
    max_length: Annotated[int, Field(ge=5)] = 128
    """Longest text in word pieces: longer ones are cut in training, and no samples are drawn from them."""
    vocab_size: Positive = 8000
    """Of the model `tiny`: size of the vocabulary that is trained on the texts."""


def fine_tune(corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> dict[str, Any]:
    """Fine-tune all parameters on the task's texts with words masked; the best model on dev is kept."""
    from kdcli.lm.language_model import fine_tune_language_model

    assert isinstance(settings.options, Options)
    return fine_tune_language_model(prepare(settings.options, corpus, reporter), corpus, checkpoint, settings, reporter)


def load(checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> Sampler:
    """Load a fine-tuned model to fill masks with."""
    from kdcli.lm.masked import MaskedSampler
    from kdcli.models.hf import fit_max_length, load_lm, load_lm_config, load_lm_tokenizer

    options = settings.options
    assert isinstance(options, Options)
    config, tokenizer = load_lm_config(checkpoint, "masked"), load_lm_tokenizer(checkpoint, "masked")
    length = fit_max_length(options.max_length, config, tokenizer, key=f"{KEY}.max_length", reporter=reporter)
    model = load_lm(checkpoint, config, settings.precision, "masked").to(settings.device).eval()
    return MaskedSampler(model, tokenizer, settings, length, options.mask_share, reporter)


def prepare(options: Options, corpus: Corpus, reporter: Reporter) -> "LanguageModel":
    """Find the model that the options name, or configure one with random weights."""
    from transformers import BertConfig, PreTrainedTokenizerFast

    from kdcli.lm.language_model import LanguageModel
    from kdcli.lm.masked import MaskedTexts, check_masked, masked_fit, masked_nats
    from kdcli.lm.texts import SPECIAL, train_wordpiece
    from kdcli.models.hf import find_model, fit_max_length, load_lm_config, load_lm_tokenizer

    folder: Path | None = None
    if options.model == "tiny":
        pieces = train_wordpiece([list(corpus.train)], options.vocab_size)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, model_input_names=INPUTS, **SPECIAL)
        config = BertConfig(vocab_size=len(tokenizer), **TINY)
    else:
        folder = find_model(options.model, reporter, key=f"{KEY}.model")
        config, tokenizer = load_lm_config(folder, "masked"), load_lm_tokenizer(folder, "masked")
    return LanguageModel(
        KEY,
        tokenizer,
        config,
        folder,
        fit_max_length(options.max_length, config, tokenizer, key=f"{KEY}.max_length", reporter=reporter),
        kind="masked",
        nats=masked_nats,
        check=partial(check_masked, mask=tokenizer.mask_token_id),
        texts=partial(MaskedTexts, share=options.mask_share),
        fit=masked_fit,
        metric="bits_per_masked_token",
    )
