import gc
import math
import re
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from decoding import LENGTH, check_rows, loud, nats_one_by_one
from raising import raising
from scipy.stats import chisquare, kstest
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from kdcli.api import Corpus, DataError, Part
from kdcli.lm.causal import BROKEN, UNFINISHED, CausalDecoder, CausalSampler
from kdcli.lm.sampling import part_uniforms, sample

WORDS = 40
COMMON = {"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
COMMON |= {"num_attention_heads": 4, "max_position_embeddings": 32}
COMMON |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
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


def test_a_model_that_has_broken_down_is_refused_and_memory_that_does_not_suffice_is_no_fault(monkeypatch):
    model = build("GPT2", GPT)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.bias[0] = torch.nan
    with pytest.raises(DataError, match=r"its logits are not finite in torch.float32"):
        CausalDecoder(model).check(LENGTH)
    model = build("Llama", GROUPED)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    CausalDecoder(model).check(LENGTH)
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


TRAIN = ["a good film", "the plot is dull", "the dog", "naïve fun", "the end", "very bad", "fun !"] * 3
CORPUS = Corpus("single", TRAIN, ["fun"])


@pytest.fixture
def make_sampler(make_model, tokenizer, make_settings, notes):
    def make(*, max_length=12, model=None, **settings):
        model = model or make_model(scale=2.0, seed=1)
        return CausalSampler(model, tokenizer, make_settings(**{"rows": 16, **settings}), max_length, notes)

    return make


@pytest.fixture
def sampler(make_sampler, tokenizer):
    return ending(make_sampler(), tokenizer)


def ending(sampler, tokenizer, every=0.2):
    """Make a share of the uniforms end the text, which random weights do too seldom; the rest stays the model's."""
    draw, end = sampler.decoder.draw, tokenizer.eos_token_id
    sampler.decoder.draw = lambda logits, uniforms: torch.where(uniforms < every, end, draw(logits, uniforms))
    return sampler


def drawn(sampler, first=0, count=60, seed=3):
    return sampler.sample(sampler.prefixes(CORPUS), Part(first, count, seed))


def test_prefixes_are_the_first_tokens_of_the_training_texts(sampler, tokenizer):
    prefixes = sampler.prefixes(CORPUS)
    counts = Counter(tokenizer(text)["input_ids"][0] for text in TRAIN)
    assert dict(zip(prefixes["tokens"], prefixes["counts"], strict=True)) == counts
    assert prefixes["counts"] == sorted(counts.values(), reverse=True)
    assert prefixes["texts"] == [tokenizer.decode([token]) for token in prefixes["tokens"]]


def test_a_part_is_the_same_whatever_was_drawn_before(make_sampler, tokenizer):
    one = ending(make_sampler(), tokenizer)
    found = drawn(one)
    drawn(one, first=60)
    assert drawn(one) == found == drawn(ending(make_sampler(), tokenizer))
    assert drawn(one, seed=4).texts != found.texts and drawn(one, first=60).texts != found.texts
    assert len(set(found.texts)) > 10


def test_every_draw_is_a_text_or_is_rejected_for_a_reason(make_sampler, tokenizer):
    sampler = ending(make_sampler(max_length=6), tokenizer)
    found = drawn(sampler, count=400)
    assert len(found.texts) + sum(found.rejected.values()) == 400
    # Five words but the first, each an end for a fifth of the uniforms, and now and then by the model.
    assert found.rejected[UNFINISHED] / 400 == pytest.approx(0.8**5, abs=0.07)
    assert found.rejected[BROKEN] > 20, "random bytes are seldom UTF-8"
    assert not any("\ufffd" in text or "<|" in text for text in found.texts)
    sampler = ending(make_sampler(rows=4096), tokenizer, every=1.0)
    found = drawn(sampler, count=20_000)
    prefixes = sampler.prefixes(CORPUS)
    observed = [Counter(found.texts)[text] for text in prefixes["texts"]]
    expected = np.array(prefixes["counts"]) * 20_000 / sum(prefixes["counts"])
    assert sum(observed) == 20_000 and chisquare(observed, expected).pvalue > 0.01


def test_options_reach_the_draw(make_sampler, tokenizer):
    # The most likely next token, always: the texts of one prefix are one.
    tokens, uniforms = torch.full((20,), tokenizer("the")["input_ids"][0]), part_uniforms(Part(0, 20, 1), 12)

    def different(one):
        rows = sample(one.decoder, tokens, torch.from_numpy(uniforms), end=tokenizer.eos_token_id, rows=20)
        return len(np.unique(rows, axis=0))

    for one in (make_sampler(top_k=1), make_sampler(top_p=1e-6), make_sampler(temperature=1e-4)):
        assert different(one) == 1
    assert different(make_sampler()) == 20


@pytest.mark.parametrize(("rows", "halved"), [(48, [24, 12, 6]), ("auto", [30, 15, 7])])
def test_a_batch_for_which_memory_does_not_suffice_is_halved(make_sampler, tokenizer, notes, rows, halved):
    expected = drawn(ending(make_sampler(), tokenizer))
    sampler = ending(make_sampler(rows=rows), tokenizer)
    step, steps = sampler.decoder.step, []

    def limited(tokens, *arguments):
        steps.append(len(tokens))
        if len(tokens) > 8 and len(steps) % 4 == 0:  # not at once: when the texts have grown
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return step(tokens, *arguments)

    sampler.decoder.step = limited
    assert drawn(sampler) == expected
    said = [re.findall(r"(\d+) from here on", warning) for warning in notes.warnings]
    assert said == [[str(at_once)] for at_once in halved]
    notes.warnings.clear()
    assert drawn(sampler) == expected and notes.warnings == []


def test_a_text_that_is_too_long_is_judged_by_its_beginning(make_sampler, make_model, tokenizer):
    model, text = make_model(seed=2), "the plot is very dull and so on"
    tokens = tokenizer(text)["input_ids"][:12]
    read = len(tokenizer.decode(tokens))
    found = make_sampler(model=model).bits([text])[0]
    bits = nats_one_by_one(model, tokens) / math.log(2)
    assert read < len(text) and found == pytest.approx(bits * len(text) / read)


@pytest.mark.parametrize(
    "wrong",
    [
        {"texts": ["other"] * 5},
        {"tokens": [10_000] * 5},
        {"tokens": [70], "texts": ["?"]},
        {"counts": [0] * 5},
        {"counts": [1, 2]},
        {"counts": [-1, 9, 9, 9, 9]},
        {"tokens": [], "counts": [], "texts": []},
    ],
)
def test_prefixes_that_are_not_its_own(sampler, wrong):
    prefixes = sampler.prefixes(CORPUS)
    assert len(prefixes["tokens"]) == 5
    for bad in (prefixes | wrong, {name: values for name, values in prefixes.items() if name not in wrong}):
        with raising(DataError, "prefixes", hint="--only prefixes"):
            sampler.sample(bad, Part(0, 5, 1))


def test_uniforms_of_a_draw_depend_on_the_seed_and_its_number_alone():
    for length in (1, 4, 5, 130):
        whole = part_uniforms(Part(0, 50, 7), length)
        assert whole.shape == (50, length) and len(np.unique(whole)) == 50 * length
        np.testing.assert_array_equal(part_uniforms(Part(20, 30, 7), length), whole[20:])
        assert not np.isin(part_uniforms(Part(0, 50, 8), length), whole).any()
        assert kstest(part_uniforms(Part(10**12, 2000, 7), length).ravel(), "uniform").pvalue > 1e-3
