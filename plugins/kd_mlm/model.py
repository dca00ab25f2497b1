"""The masked language model that learns the task's texts: pretrained, or a tiny one from scratch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, set_seed

from kdcli.api import Corpus, Reporter
from kdcli.lm.language_model import LanguageModel
from kdcli.lm.masked import check_masked
from kdcli.lm.masked_texts import MaskedTexts, masked_fit, masked_nats
from kdcli.lm.wordpiece import SPECIAL, train_wordpiece
from kdcli.models.hf import find_model, fit_max_length, load_lm, load_lm_config, load_lm_tokenizer, sha256

if TYPE_CHECKING:
    from kd_mlm import Options

KEY = "generators.mlm"
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]


def prepare(options: Options, corpus: Corpus, reporter: Reporter) -> LanguageModel:
    """Find the model that the options name, or configure one with random weights."""
    identity: dict[str, Any]
    if options.model == "tiny":
        pieces = train_wordpiece([list(corpus.train)], options.vocab_size)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, model_input_names=INPUTS, **SPECIAL)
        config, identity = BertConfig(vocab_size=len(tokenizer), **TINY), {"vocabulary": tokenizer.get_vocab()}
    else:
        folder = find_model(options.model, reporter, key=f"{KEY}.model")
        config, tokenizer = load_lm_config(folder, "masked"), load_lm_tokenizer(folder, "masked")
        identity = {"weights": sha256(folder)}

    def build(seed: int) -> Any:
        set_seed(seed)
        return BertForMaskedLM(config) if options.model == "tiny" else load_lm(folder, config, kind="masked")

    return LanguageModel(
        KEY,
        tokenizer,
        build,
        load_fine_tuned,
        identity,
        config,
        fit_max_length(options.max_length, config, tokenizer, key=f"{KEY}.max_length", reporter=reporter),
        nats=masked_nats,
        check=partial(check_masked, mask=tokenizer.mask_token_id),
        texts=partial(MaskedTexts, share=options.mask_share),
        fit=masked_fit,
        metric="bits_per_masked_token",
    )


def load_fine_tuned(folder: Path) -> Any:
    """Load the model that a training has saved, in float32."""
    return load_lm(folder, load_lm_config(folder, "masked"), kind="masked")
