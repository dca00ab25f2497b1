import gc
import weakref

import pytest
import torch
import transformers
from decoding import LENGTH, check_rows
from raising import raising
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from kdcli.api import DataError
from kdcli.lm.causal import CausalDecoder

WORDS = 40
COMMON = {
    **{"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 0},
    "pad_token_id": None,
}
GROUPED = {**COMMON, "num_key_value_heads": 2}
GPT = {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
WORK = {
    "GPT2": GPT,
    "Llama": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": {**GROUPED, "head_dim": 8},
    "OPT": {**COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "GPTNeoX": COMMON,
    "Mistral": {**GROUPED, "sliding_window": LENGTH},
    "Gemma": {**GROUPED, "head_dim": 8},
    "Gemma2": {**GROUPED, "head_dim": 8, "sliding_window": LENGTH},
    "Gemma3Text": {**GROUPED, "head_dim": 8, "sliding_window": LENGTH},
    "Phi": COMMON,
    "GPTNeo": {
        **{"vocab_size": WORDS, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 32},
        **{"attention_types": [[["global", "local"], 1]], "window_size": LENGTH},
    },
    "Falcon": {**COMMON, "alibi": False},
    "GPTBigCode": GPT,
}
FAIL = {
    "Mistral": {**GROUPED, "sliding_window": 5},  # it would see more than it has learned with
    "Gemma3Text": {**GROUPED, "head_dim": 8, "sliding_window": 5},
    "GPTNeo": {**WORK["GPTNeo"], "window_size": 5},
    "Bloom": {"vocab_size": WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4},  # ALiBi
    "Mamba": {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2},
    "Rwkv": {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "OpenAIGPT": GPT,  # no cache
    "Roberta": {**COMMON, "is_decoder": True, "pad_token_id": 1},  # places count from 2
}


def loud(model):
    """Make the weights of a random model so great that places and other words matter."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(6)
    return model.eval()


def build(name, sizes, seed=0):
    torch.manual_seed(seed)
    return loud(AutoModelForCausalLM.from_config(getattr(transformers, f"{name}Config")(**sizes)))


@pytest.mark.parametrize("name", WORK)
def test_rows_read_as_texts_alone_and_pass_the_check(name):
    model = build(name, WORK[name])
    decoder = CausalDecoder(model)
    check_rows(decoder, decoder.logits, lambda text: model(input_ids=text[None]).logits[0], WORDS)
    for length in (2, 3, LENGTH):
        CausalDecoder(model).check(length)
    CausalDecoder(model.to(torch.bfloat16)).check(LENGTH)


@pytest.mark.parametrize("name", FAIL)
def test_what_does_not_work_is_refused(name):
    with pytest.raises(DataError, match=r"cannot be sampled from: .*position"):
        CausalDecoder(build(name, FAIL[name])).check(LENGTH)


class Placeless(GPT2LMHeadModel):
    """Ignores ``position_ids``: each token gets the next position."""

    def forward(self, position_ids=None, **arguments):
        return super().forward(**arguments)


class Maskless(GPT2LMHeadModel):
    """Sees all that the cache holds."""

    def forward(self, attention_mask=None, **arguments):
        return super().forward(**arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Placeless, Maskless])
def test_a_model_that_ignores_positions_or_masks_is_refused(kind, dtype):
    torch.manual_seed(0)
    model = loud(kind(transformers.GPT2Config(**GPT))).to(dtype)
    with raising(DataError, f"{kind.__name__} cannot be sampled from", hint=True):
        CausalDecoder(model).check(LENGTH)


def test_a_model_that_has_broken_down_is_refused_and_one_that_begins_with_zeros_is_not():
    model = build("GPT2", GPT)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.bias[0] = torch.nan
    with pytest.raises(DataError, match=r"its logits are not finite in torch.float32"):
        CausalDecoder(model).check(LENGTH)
    model = build("Llama", GROUPED)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    CausalDecoder(model).check(LENGTH)


def test_memory_that_does_not_suffice_is_no_fault_of_the_model(monkeypatch):
    model = build("GPT2", GPT)

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        CausalDecoder(model).check(LENGTH)


def test_the_cache_of_the_last_part_does_not_wait_for_the_garbage_collector():
    decoder = CausalDecoder(build("GPT2", GPT))
    gc.collect()
    gc.disable()
    try:
        decoder.open(2, LENGTH)
        zeros = torch.zeros(2, dtype=torch.int64)
        with torch.no_grad():
            decoder.logits(zeros + 1, zeros, 1)
        keys = weakref.ref(decoder.cache.layers[0].keys)
        assert keys().shape == (2, 4, LENGTH, 8)
        decoder.open(2, LENGTH)
        assert keys() is None
    finally:
        gc.enable()
