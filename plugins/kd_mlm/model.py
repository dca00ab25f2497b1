"""The masked language model that learns the task's texts: pretrained, or a tiny one from scratch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, set_seed

from kd_mlm import Options
from kdcli.api import Corpus, Reporter
from kdcli.lm.language_model import LanguageModel
from kdcli.lm.masked_sampler import check
from kdcli.lm.masked_texts import MaskedFit, MaskedTexts, masked_nats
from kdcli.lm.pretrained import find_model, fitting_length, read_config, read_tokenizer, read_weights, sha256
from kdcli.lm.wordpiece import SPECIAL, train_wordpiece

TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
KEY = "generators.mlm"


def prepare(options: Options, corpus: Corpus, reporter: Reporter) -> LanguageModel:
    """Find the model that the options name, or lay one out with random weights.

    Raises:
        DataError: The folder holds no masked language model, or its tokenizer does not serve.
        MissingError: There is no such model.
    """
    identity: dict[str, Any]
    if options.model == "tiny":
        pieces = train_wordpiece([list(corpus.train)], options.vocab_size)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, model_input_names=INPUTS, **SPECIAL)
        config, identity = BertConfig(vocab_size=len(tokenizer), **TINY), {"vocabulary": tokenizer.get_vocab()}
    else:
        folder = find_model(options.model, reporter, key=f"{KEY}.model")
        config, tokenizer = read_config(folder, "masked"), read_tokenizer(folder, kind="masked")
        identity = {"weights": sha256(folder)}

    def build(seed: int) -> Any:
        set_seed(seed)
        return BertForMaskedLM(config) if options.model == "tiny" else read_weights(folder, config, kind="masked")

    length = fitting_length(options.max_length, config, KEY, reporter, tokenizer)
    return LanguageModel(
        KEY,
        tokenizer,
        build,
        load,
        identity,
        config,
        length,
        nats=masked_nats,
        check=partial(check, mask=tokenizer.mask_token_id),
        texts=partial(MaskedTexts, share=options.mask_share),
        fit=MaskedFit.of,
        metric="bits_per_masked_token",
    )


def load(folder: Path) -> Any:
    """Read the model that a training has saved, in float32."""
    return read_weights(folder, read_config(folder, "masked"), kind="masked")
