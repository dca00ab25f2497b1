import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_teacher import rewrite
from notes import Notes
from pydantic import ValidationError
from raising import raising
from safetensors.torch import load_file, save_file
from tiny_transfoxl import write_tiny

import kd_transfoxl
from kd_transfoxl import Options
from kd_transfoxl.language_model import prepare
from kd_transfoxl.model import TransfoXLConfig
from kdcli.api import Corpus, DataError, GeneratorSettings, MissingError, Part

TRAIN = ["a good film about a dog", "the plot is very dull", "rare fun", "it was bad", "the dog is good"] * 4
TRAIN += ["once upon a dog", "", "the plot is once dull"]  # once: twice; upon: never
CORPUS = Corpus("single", TRAIN, ["the plot is very dull", "the dog is bad"], ["the fun"])
CLOSE = 2e-4
"""Of weights after a few updates of 1e-3: Adam makes as much of a gradient that is rounding as of any other."""
PUBLISHED = Path(__file__).parent / "reference/wt103"


def settings_of(*, kind="single", seed=2, precision="fp32", rows=16, resume=True, **options):
    recipe = {"lr": 1e-2, "batch_size": 6, "epochs": 2, "max_length": 12}
    own = {name: options.pop(name) for name in ("temperature", "top_k", "top_p") if name in options}
    options = Options(**{**recipe, **options})
    common = {"seed": seed, "device": "cpu", "precision": precision, "batch_size": rows, "resume": resume}
    return GeneratorSettings(options, kind, **common, **own)


def fine_tune(folder, notes, corpus=CORPUS, min_freq=2, **settings):
    settings.setdefault("model", write_tiny(folder.with_name(f"{folder.name}-start"), corpus.train, min_freq))
    return kd_transfoxl.fine_tune(corpus, folder, settings_of(kind=corpus.kind, **settings), notes)


def load(folder, notes, **settings):
    return kd_transfoxl.load(folder, settings_of(**settings), notes)


def drawn(sampler, count=60, corpus=CORPUS):
    prefixes = json.loads(json.dumps(sampler.prefixes(corpus)))
    found = sampler.sample(prefixes, Part(0, count, 1))
    assert len(found.texts) + sum(found.rejected.values()) == count
    return found


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A tiny model from scratch: its folder, what came of it, and what was before."""
    folder, notes = tmp_path_factory.mktemp("learned") / "model", Notes()
    return folder, fine_tune(folder, notes, epochs=6), notes


def test_it_learns_from_scratch_loads_with_the_same_numbers_and_starts_with_what_is_known(learned, notes):
    folder, result, before = learned
    assert before.scores[-1] < 0.7 * before.scores[0] and before.warnings == []
    assert {"dev_bits_per_character", "dev_word_perplexity", "test_bits_per_character"} <= set(result)
    assert {"model.safetensors", "config.json", "vocab.txt"} <= {path.name for path in folder.iterdir()}
    sampler = load(folder, notes)
    bits = sampler.bits(CORPUS.dev).sum() / sum(map(len, CORPUS.dev))
    assert bits == pytest.approx(result["dev_bits_per_character"], rel=1e-5)
    found = drawn(sampler)
    assert found == drawn(load(folder, notes, rows=3)) and len(set(found.texts)) > 5
    half = load(folder, notes, precision="bf16")
    assert half.bits(CORPUS.dev).sum() == pytest.approx(sampler.bits(CORPUS.dev).sum(), rel=0.02)
    with pytest.raises(DataError, match="no training text starts with a token that the model knows"):
        sampler.prefixes(Corpus("single", ["", "zebra is bad"], ["a"]))
    assert sampler.bits(["", "zebra"]).shape == (2,)


def test_gradient_checkpointing_and_pieces_change_nothing_but_memory(tmp_path, notes):
    found = []
    for number, how in enumerate(({}, {"gradient_checkpointing": True}, {"gradient_accumulation": 3})):
        folder = copied(tmp_path / f"from-{number}")
        rewrite(folder, dropout=0.0)
        fine_tune(tmp_path / str(number), notes, model=str(folder), lr=1e-3, **how)
        found.append(load_file(tmp_path / str(number) / "model.safetensors"))
    whole, checkpointed, pieces = found
    torch.testing.assert_close(checkpointed, whole, atol=0, rtol=0)
    torch.testing.assert_close(pieces, whole, atol=CLOSE, rtol=0)
    published = load_file(PUBLISHED / "model.safetensors")
    assert not torch.allclose(found[0]["crit.cluster_weight"], published["crit.cluster_weight"], atol=1e-4)


@pytest.mark.parametrize("how", [{}, {"top_k": 5, "top_p": 0.9}])
def test_unknown_words_are_no_prefix_and_are_never_drawn(tmp_path, notes, how):
    often = Corpus("single", ["zz the a xx", "the yy", "a the"] * 8 + ["uu a ww"], ["the a"])
    rare = Corpus("single", [text.replace("zz", f"z{n}").replace("yy", f"y{n}") for n, text in enumerate(often.train)],
                  often.dev)  # fmt: skip
    fine_tune(tmp_path / "model", notes, rare, epochs=6, min_freq=3)
    sampler = load(tmp_path / "model", notes, **how)
    prefixes = sampler.prefixes(rare)
    assert sorted(prefixes["texts"]) == ["a", "the"] and sum(prefixes["counts"]) == 16
    assert any("outside the vocabulary" in info for info in notes.infos)
    texts = drawn(sampler, 300, rare).texts
    assert len(texts) > 50 and not any("<unk>" in text for text in texts)
    with torch.inference_mode():  # though it is learned as likely
        hidden = sampler.model.transformer(torch.tensor(sampler.tokenizer(["the"])["input_ids"]))[:, -1]
        chances = sampler.model.crit.log_probs(hidden)
    assert chances[0, sampler.tokenizer.unk_token_id].exp() > 0.1


def copied(folder, *left_out):
    """Copy the folder of the published form, with safetensors for weights and vocab.txt for words unless left out."""
    shutil.copytree(PUBLISHED, folder, ignore=shutil.ignore_patterns(*left_out))
    return folder


def test_a_folder_of_the_published_form(tmp_path, notes):
    folder = copied(tmp_path / "wt103", "vocab.txt", "vocab.bin", "model.safetensors")
    corpus = Corpus("single", ["He said that the company visited 7 ones", "here they know 1,000 boys"] * 6, ["he is"])
    model = prepare(Options(model=str(folder)), corpus, notes)
    weights = model.build(0).state_dict()
    published = load_file(PUBLISHED / "model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in published.items() if name in weights)
    result = fine_tune(tmp_path / "model", notes, corpus, model=str(folder), epochs=8)
    assert notes.scores[-1] < notes.scores[0] and result["vocabulary"] == 301
    sampler = load(tmp_path / "model", notes)
    assert sampler.tokenizer.words == "moses" and sampler.model.config.same_length
    assert drawn(sampler, 40, corpus).texts
    assert sampler.bits(corpus.dev).sum() / 5 == pytest.approx(result["dev_bits_per_character"], rel=1e-5)


def test_what_was_trained_from_scratch_is_fine_tuned_on_other_texts(tmp_path, learned, notes):
    other = Corpus("single", ["the zebra is good fun", "a zebra was dull"] * 6, ["the zebra is dull"])
    fine_tune(tmp_path / "model", notes, other, model=str(learned[0]), epochs=4)
    assert any(info.startswith("22.2% of the words of 12 training texts are outside") for info in notes.infos)
    assert notes.scores[-1] < notes.scores[0]
    with pytest.raises(DataError, match="the model knows no word of the training texts"):
        fine_tune(tmp_path / "none", notes, Corpus("single", ["zebra zebra"], ["a"]), model=str(learned[0]))


def test_options_are_the_papers_and_those_of_earlier_versions_and_some_make_no_model(notes):
    options = Options()
    assert (options.model, options.lr, options.weight_decay, options.batch_size) == ("wt103", 5e-5, 1e-3, 48)
    assert (options.epochs, options.warmup, options.max_length) == (3, 0.1, 80)
    config = TransfoXLConfig()
    assert (config.n_layer, config.d_model, config.d_embed, config.n_head, config.d_head) == (18, 1024, 1024, 16, 64)
    assert (config.d_inner, config.div_val, config.mem_len, config.clamp_len) == (4096, 4, 1600, 1000)
    assert Options(min_freq=2, n_layer="auto", cutoffs="auto", from_scratch=False, max_size=0) == Options()
    for wrong in ({"n_layer": 4}, {"from_scratch": True}, {"words": "none"}, {"max_length": 1}):
        with pytest.raises(ValidationError):
            Options(**wrong)


def test_no_memory_and_another_kind_of_model(tmp_path, notes):
    folder = copied(tmp_path / "wt103")
    rewrite(folder, mem_len=0)
    with raising(DataError, "mem_len is 0", says=str(folder)):
        prepare(Options(model=str(folder)), CORPUS, notes)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(DataError, match="a gpt2 model is not a Transformer-XL"):
        prepare(Options(model=str(tmp_path)), CORPUS, notes)
    with raising(MissingError, key="generators.transfoxl.model"):
        prepare(Options(model=str(tmp_path / "none")), CORPUS, notes)


def test_a_vocabulary_that_is_another_models(tmp_path, notes):
    folder = copied(tmp_path / "wt103", "vocab.*")
    (folder / "vocab.txt").write_text("<eos>\n<unk>\na\n")
    for attempt in (lambda: prepare(Options(model=str(folder)), CORPUS, notes), lambda: load(folder, notes)):
        with pytest.raises(DataError, match="it has 3 words, the model knows 301"):
            attempt()


def test_probabilities_that_are_no_numbers(tmp_path, notes):
    folder = copied(tmp_path / "wt103", "pytorch_model.bin")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.layers.1.dec_attn.r_net.weight"][0, 0] = np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"its probabilities are not finite in torch.float32"):
        load(folder, notes)
