"""GPT-2, or any causal language model of Hugging Face, as a generator (Tang, Lu, Lin 2019)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api import API_VERSION, Corpus, GeneratorSettings, Reporter, Sampler
from kdcli.lm import LanguageModelOptions, Positive

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kdcli.lm.language_model import LanguageModel

api_version = API_VERSION

KEY = "generators.gpt2"
SIZES = {
    "tiny": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "117M": {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
    "345M": {"n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 1024},
}  # the two sizes of Tang, Lu, Lin 2019, and one for tests
HUB = {"117M": "gpt2", "345M": "gpt2-medium"}  # the hub names of the published weights


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
    from kdcli.lm.language_model import fine_tune_language_model

    assert isinstance(settings.options, Options)
    return fine_tune_language_model(prepare(settings.options, corpus, reporter), corpus, checkpoint, settings, reporter)


def load(checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> Sampler:
    """Load a fine-tuned model to sample from."""
    from kdcli.lm.causal import CausalSampler
    from kdcli.models.hf import fit_max_length, load_lm, load_lm_config, load_lm_tokenizer

    assert isinstance(settings.options, Options)
    config, tokenizer = load_lm_config(checkpoint), load_lm_tokenizer(checkpoint)
    length = fit_max_length(settings.options.max_length, config, key=f"{KEY}.max_length", reporter=reporter)
    model = load_lm(checkpoint, config, settings.precision).to(settings.device).eval()
    return CausalSampler(model, tokenizer, settings, length, reporter)


def prepare(options: Options, corpus: Corpus, reporter: Reporter) -> "LanguageModel":
    """Find the model that the options name, or configure one with random weights."""
    from transformers import GPT2Config

    from kdcli.lm.language_model import LanguageModel
    from kdcli.models.hf import find_model, fit_max_length, load_lm_config, load_lm_tokenizer

    scratch = options.from_scratch or options.model == "tiny"
    folder: Path | None = None
    if scratch and options.model in SIZES:
        config: Any = GPT2Config(**SIZES[options.model])
    else:
        folder = find_model(HUB.get(options.model, options.model), reporter, key=f"{KEY}.model")
        config = load_lm_config(folder)
    if folder and not scratch:
        tokenizer = load_lm_tokenizer(folder)
    else:
        if options.tokenizer:
            named = find_model(options.tokenizer, reporter, key=f"{KEY}.tokenizer", weights=False)
            tokenizer = load_lm_tokenizer(named)
        else:
            tokenizer = train_bpe(corpus.train, options.vocab_size)
        config.vocab_size = len(tokenizer)
        config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = None  # the configuration's own belongs to another vocabulary
    length = fit_max_length(options.max_length, config, key=f"{KEY}.max_length", reporter=reporter)
    return LanguageModel(KEY, tokenizer, config, None if scratch else folder, length)


def train_bpe(texts: Sequence[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE on texts: GPT-2's tokenizer with a vocabulary of its own."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=2, special_tokens=[end], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end, unk_token=end)
