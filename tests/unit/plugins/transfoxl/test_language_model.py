"""Which model the options name, and what is wrong with others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

import kd_transfoxl
from kd_transfoxl import Options
from kd_transfoxl.language_model import prepare
from kd_transfoxl.model import TransfoXLConfig
from kdcli.api import Corpus, DataError, GeneratorSettings, MissingError, QuietReporter

TRAIN = ["a good film about a dog", "the plot is very dull", "rare fun", "it was bad", "the dog is good"] * 4
CORPUS = Corpus("single", TRAIN, ["the plot is very dull"])
PUBLISHED = Path(__file__).parent / "reference/wt103"


@pytest.fixture
def notes():
    return QuietReporter()


def sampler(folder, notes):
    return kd_transfoxl.load(
        folder, GeneratorSettings(Options(), "single", seed=1, device="cpu", precision="fp32"), notes
    )


def copied(folder, *left_out):
    """Copy the folder of the published form, with safetensors for weights and vocab.txt for words unless left out."""
    shutil.copytree(PUBLISHED, folder, ignore=shutil.ignore_patterns(*left_out))
    return folder


def test_the_papers_recipe_and_model_are_the_default():
    options = Options()
    assert (options.model, options.lr, options.weight_decay, options.batch_size) == ("wt103", 5e-5, 1e-3, 48)
    assert (options.epochs, options.warmup, options.max_length) == (3, 0.1, 80)
    config = TransfoXLConfig()
    assert (config.n_layer, config.d_model, config.d_embed, config.n_head, config.d_head) == (18, 1024, 1024, 16, 64)
    assert (config.d_inner, config.div_val, config.mem_len, config.clamp_len) == (4096, 4, 1600, 1000)


def test_profiles_of_earlier_versions(notes):
    assert Options(min_freq=2, n_layer="auto", cutoffs="auto", from_scratch=False, max_size=0) == Options()
    for name, value in (("n_layer", 4), ("from_scratch", True)):
        with pytest.raises(ValidationError):
            Options(**{name: value})


def test_no_memory_but_words_that_see_nothing_else(tmp_path, notes):
    folder = copied(tmp_path / "wt103")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mem_len": 0}))
    with pytest.raises(DataError, match="mem_len is 0") as error:
        prepare(Options(model=str(folder)), CORPUS, notes)
    assert str(folder) in str(error.value)


def test_options_that_make_no_model():
    for name, value in (("words", "none"), ("max_length", 1)):
        with pytest.raises(ValidationError):
            Options(**{name: value})


def test_a_vocabulary_that_is_another_models(tmp_path, notes):
    folder = copied(tmp_path / "wt103", "vocab.*")
    (folder / "vocab.txt").write_text("<eos>\n<unk>\na\n")
    for attempt in (lambda: prepare(Options(model=str(folder)), CORPUS, notes), lambda: sampler(folder, notes)):
        with pytest.raises(DataError, match="it has 3 words, the model knows 301"):
            attempt()


def test_another_kind_of_model(tmp_path, notes):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(DataError, match="a gpt2 model is not a Transformer-XL"):
        prepare(Options(model=str(tmp_path)), CORPUS, notes)
    with pytest.raises(MissingError) as error:
        prepare(Options(model=str(tmp_path / "none")), CORPUS, notes)
    assert error.value.key == "generators.transfoxl.model"


def test_probabilities_that_are_no_numbers(tmp_path, notes):
    folder = copied(tmp_path / "wt103", "pytorch_model.bin")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.layers.1.dec_attn.r_net.weight"][0, 0] = np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"its probabilities are not finite in torch.float32"):
        sampler(folder, notes)
