import json

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig

import kd_gpt2
from kd_gpt2 import SIZES, Options, prepare, train_bpe
from kdcli.api import Corpus, GeneratorSettings, Part

TRAIN = ["a good film about a dog", "the plot is very dull", "naïve fun", "it was bad", "the dog is good"] * 4
CORPUS = Corpus("single", TRAIN, ["a good plot", "very dull"], ["the fun"])

END = "<|endoftext|>"


def settings_of(*, seed=2, precision="fp32", rows=16, **options):
    recipe = {"model": "tiny", "vocab_size": 280, "lr": 5e-3, "batch_size": 5, "epochs": 2, "max_length": 40}
    options = Options(**{**recipe, **options})
    return GeneratorSettings(options, "single", seed=seed, device="cpu", precision=precision, batch_size=rows)


@pytest.fixture
def tokenizer():
    return train_bpe(TRAIN, 280)


@pytest.fixture
def make_folder(tmp_path, tokenizer):
    """Return a function that saves a tiny model, of whatever architecture, with a tokenizer."""

    def make(config=None, name="pretrained", model_class=AutoModelForCausalLM, tokenizer=tokenizer):
        if config is None:
            end, small = tokenizer.eos_token_id, {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
            config = GPT2Config(vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end, **small)
        torch.manual_seed(0)
        model_class.from_config(config).save_pretrained(tmp_path / name)
        if tokenizer is not None:
            tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


def llama(tokenizer, **more):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 64, **more}
    return LlamaConfig(vocab_size=len(tokenizer) + 7, bos_token_id=0, eos_token_id=0, **sizes)


def fine_tune(folder, notes, corpus=CORPUS, **settings):
    return kd_gpt2.fine_tune(corpus, folder, settings_of(**settings), notes)


def drawn(sampler, count=40):
    prefixes = json.loads(json.dumps(sampler.prefixes(CORPUS)))
    found = sampler.sample(prefixes, Part(0, count, 1))
    assert len(found.texts) + sum(found.rejected.values()) == count
    return found


@pytest.mark.parametrize(
    ("size", "parameters", "heads"), [("117M", 124_439_808, (12, 12)), ("345M", 354_823_168, (24, 16))]
)
def test_the_papers_sizes(size, parameters, heads, notes):
    model = prepare(Options(model=size, from_scratch=True), CORPUS, notes)
    assert (model.config.n_layer, model.config.n_head) == heads and model.config.n_positions == 1024
    model.config.vocab_size = 50257
    with torch.device("meta"):
        built = model.build(1)
    assert sum(weights.numel() for weights in built.parameters()) == parameters
    assert {weights.dtype for weights in built.parameters()} == {torch.float32}


def test_the_tiny_one_learns_from_scratch_and_samples(tmp_path, notes):
    result = fine_tune(tmp_path / "model", notes, epochs=4)
    assert notes.scores[-1] < notes.scores[0] and result["vocabulary"] <= 280
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert {name: config[name] for name in SIZES["tiny"]} == SIZES["tiny"]
    sampler = kd_gpt2.load(tmp_path / "model", settings_of(), notes)
    found = drawn(sampler)
    assert found == drawn(kd_gpt2.load(tmp_path / "model", settings_of(rows=3), notes))
    assert found.texts and all(END not in text for text in found.texts)
    bits = sampler.bits(CORPUS.dev).sum() / sum(map(len, CORPUS.dev))
    assert bits == pytest.approx(result["dev_bits_per_character"], rel=1e-5)
    half = kd_gpt2.load(tmp_path / "model", settings_of(precision="bf16"), notes)
    assert half.bits(CORPUS.dev).sum() == pytest.approx(sampler.bits(CORPUS.dev).sum(), rel=0.02)
    assert notes.warnings == []


def test_the_tokenizer_that_is_trained_is_a_byte_level_bpe_and_one_of_two_files_is_kept(tokenizer, tmp_path, notes):
    assert len(train_bpe(TRAIN, 262)) == 262 and tokenizer.eos_token == END
    for text in ("naïve — 你好\ta\u2028b", " two  spaces ", "🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TRAIN, vocab_size=270, special_tokens=[END], show_progress=False)
    bpe.save_model(str(folder))
    assert {path.name for path in folder.iterdir()} == {"vocab.json", "merges.txt"}
    fine_tune(tmp_path / "model", notes, tokenizer=str(folder), epochs=1)
    kept = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert kept.get_vocab() == bpe.get_vocab() and kept.eos_token == END
    assert kept("the plot is dull")["input_ids"] == bpe.encode("the plot is dull").ids
    assert json.loads((tmp_path / "model/config.json").read_text())["vocab_size"] == 270
    assert drawn(kd_gpt2.load(tmp_path / "model", settings_of(), notes))


def test_it_starts_from_the_weights_of_the_folder_or_from_random_ones(make_folder, tokenizer, notes):
    folder = make_folder(llama(tokenizer, pad_token_id=5))
    saved = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    kept = prepare(Options(model=str(folder)), CORPUS, notes)
    assert all(torch.equal(value, saved[name]) for name, value in kept.build(3).state_dict().items())
    fresh = prepare(Options(model=str(folder), from_scratch=True, vocab_size=270), CORPUS, notes)
    one, again, other = (fresh.build(seed).state_dict() for seed in (3, 3, 4))
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name])
    assert not torch.equal(one[name], saved[name])
    assert one["model.embed_tokens.weight"].shape[0] == len(fresh.tokenizer) == 270
    assert one["model.embed_tokens.weight"].abs().sum(1).min() > 0, "no row is another vocabulary's padding"
    assert kept.identity() != fresh.identity()
