import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from decoding import loud
from scipy.stats import chisquare
from transformers import AutoModelForMaskedLM, BertConfig, DistilBertConfig, PreTrainedTokenizerFast, RobertaConfig

import kd_mlm
from kd_mlm import INPUTS, Options, prepare
from kdcli.api import Corpus, DataError, GeneratorSettings, Part
from kdcli.lm.masked import MaskedTexts
from kdcli.lm.texts import SPECIAL, train_wordpiece

TRAIN = ["a Good film about a dog , and a very bad one", "the plot is VERY dull but the actors aren't bad"]
TRAIN += ["naïve fun", "it was bad", "the dog is good , the film about the dog is not"]
TRAIN *= 4
CORPUS = Corpus("single", TRAIN, ["a good plot", "very dull and bad"], ["the fun"])
PAIRS = Corpus("pair", [f"{a}\t{b}" for a, b in pairwise(TRAIN)], ["a good plot\tit is bad"], ["a dog\tfun"])


def settings_of(*, kind="single", seed=2, precision="fp32", rows=16, options=None, **sampling):
    recipe = {"model": "tiny", "vocab_size": 100, "lr": 5e-3, "batch_size": 5, "epochs": 2, "max_length": 40}
    options = Options(**{**recipe, **(options or {})})
    return GeneratorSettings(options, kind, seed=seed, device="cpu", precision=precision, batch_size=rows, **sampling)


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=train_wordpiece([TRAIN], 90), model_input_names=INPUTS, **SPECIAL)


def bert(tokenizer, kind=BertConfig, **more):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return kind(**{"vocab_size": len(tokenizer) + 3, "max_position_embeddings": 64, **sizes, **more})


@pytest.fixture
def make_folder(tmp_path, tokenizer):
    """Return a function that saves a tiny masked model of sharp random opinions, with its tokenizer."""

    def make(config=None, name="pretrained", tokenizer=tokenizer):
        torch.manual_seed(0)
        model = loud(AutoModelForMaskedLM.from_config(config or bert(tokenizer)), factor=15.0)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def folder(make_folder):
    return make_folder()


def fine_tune(folder, notes, corpus=CORPUS, seed=2, **options):
    return kd_mlm.fine_tune(corpus, folder, settings_of(kind=corpus.kind, seed=seed, options=options), notes)


def drawn(sampler, first=0, count=60, seed=1, corpus=CORPUS):
    prefixes = json.loads(json.dumps(sampler.prefixes(corpus)))
    found = sampler.sample(prefixes, Part(first, count, seed))
    assert len(found.texts) == count and not any(found.rejected.values())
    return found.texts


def test_masks_are_filled_one_after_another(folder, tokenizer, notes):
    """The second of two masks is drawn given the first: all pairs of pieces have their joint probability."""
    text, temperature = "bad dog", 1.5
    how = {"options": {"mask_share": 1.0}, "top_k": 3, "temperature": temperature}
    sampler = kd_mlm.load(folder, settings_of(rows=512, **how), notes)
    texts = drawn(sampler, count=3000, corpus=Corpus("single", [text], [text]))
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    inputs = tokenizer(text, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    plain = torch.tensor([not token.startswith("##") for token in tokens])
    plain[tokenizer.all_special_ids] = False

    @torch.no_grad()
    def top(tokens, place):
        ids = torch.tensor([[tokenizer.cls_token_id, *tokens, tokenizer.sep_token_id]])
        logits = model(**{**inputs, "input_ids": ids}).logits[0, place, : len(tokenizer)].double()
        best = logits.masked_fill(~plain, -torch.inf).topk(3)
        return zip(best.indices.tolist(), (best.values / temperature).softmax(0).tolist(), strict=True)

    mask = tokenizer.mask_token_id
    pairs = [(first, second, chance * other) for first, chance in top([mask, mask], 1)
             for second, other in top([first, mask], 2)]  # fmt: skip
    expected = {" ".join(tokenizer.convert_ids_to_tokens(pair)): 3000 * chance for *pair, chance in pairs}
    counts = Counter(texts)
    assert set(counts) <= set(expected)
    often = [name for name, number in expected.items() if number >= 5]
    rest = 3000 - sum(expected[name] for name in often)
    observed = [*(counts[name] for name in often), 3000 - sum(counts[name] for name in often)]
    kept = slice(None) if rest > 1 else slice(-1)
    values = np.array([*(expected[name] for name in often), rest][kept])
    assert len(values) > 3
    assert chisquare(observed[kept], values * sum(observed[kept]) / values.sum()).pvalue > 0.01


def test_texts_are_drawn_evenly_a_fifth_of_their_words_is_new_and_a_word_stays_one(folder, tokenizer, notes):
    corpus = Corpus("single", ["the dog is bad , the film is not .", "a b c d e", "it was a very good film ."], [])
    sampler = kd_mlm.load(folder, settings_of(rows=512, options={"mask_share": 0.2}), notes)
    texts = drawn(sampler, count=3000, corpus=corpus)
    words = Counter(len(text.split()) for text in texts)
    assert chisquare([words[10], words[5], words[7]]).pvalue > 0.01
    for text in corpus.train:
        original = text.split()
        found = [sample.split() for sample in texts if len(sample.split()) == len(original)]
        changed = np.array([[a != b for a, b in zip(sample, original, strict=True)] for sample in found])
        assert changed.sum(axis=1).max() <= -(-len(original) // 5)
        assert 0.1 < changed.mean() <= 0.2 + 3 * 0.4 / len(found) ** 0.5
        assert (changed.mean(axis=0) > 0.02).all(), "each word has its turn"
    sampler = kd_mlm.load(folder, settings_of(options={"mask_share": 1.0}), notes)
    word = max({word for text in TRAIN for word in text.split()}, key=lambda word: len(tokenizer.tokenize(word)))
    assert len(tokenizer.tokenize(word)) > 1
    texts = drawn(sampler, corpus=Corpus("single", [word], []), count=500)
    assert all(len(text.split()) == 1 and "##" not in text and "[" not in text for text in texts)
    assert len(set(texts)) > 100


def test_unused_tokens_and_those_that_are_no_plain_text_are_never_drawn(make_folder, notes):
    pieces = train_wordpiece([TRAIN], 90)
    pieces.add_tokens(["[unused1]", "\u2028", "\t", "\ufffd", "   "])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, model_input_names=INPUTS, **SPECIAL)
    sampler = kd_mlm.load(make_folder(bert(tokenizer), tokenizer=tokenizer), settings_of(), notes)
    banned = (~sampler.allowed.any(dim=0)).nonzero()[:, 0].tolist()
    assert banned == [*range(5), *range(len(tokenizer) - 5, len(tokenizer) + 3)]


@pytest.mark.parametrize("corpus", [CORPUS, PAIRS], ids=["single", "pair"])
def test_a_part_is_the_same_whatever_was_drawn_before(folder, notes, corpus):
    one = kd_mlm.load(folder, settings_of(kind=corpus.kind), notes)
    found = drawn(one, corpus=corpus)
    second = drawn(one, first=60, corpus=corpus)
    assert drawn(one, corpus=corpus) == found
    again = kd_mlm.load(folder, settings_of(kind=corpus.kind, rows=7), notes)
    assert drawn(again, count=120, corpus=corpus) == found + second
    assert found != second != drawn(one, seed=4, first=60, corpus=corpus)
    assert {text.count("\t") for text in found} == {int(corpus.kind == "pair")}
    assert drawn(one, count=0, corpus=corpus) == []


def test_the_tiny_one_learns_from_scratch_and_samples(tmp_path, notes):
    result = fine_tune(tmp_path / "model", notes, epochs=6)
    assert notes.scores[-1] < notes.scores[0] and result["vocabulary"] <= 100
    assert result["dev_bits_per_masked_token"] == min(notes.scores) and "test_bits_per_masked_token" in result
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"]) == (64, 2)
    found = drawn(kd_mlm.load(tmp_path / "model", settings_of(), notes))
    assert len(set(found) - set(TRAIN)) > 20
    half = kd_mlm.load(tmp_path / "model", settings_of(precision="bf16"), notes)
    assert half.model.dtype == torch.bfloat16 and drawn(half)
    assert notes.warnings == []
    assert not hasattr(half, "bits")


def test_dev_is_judged_by_the_saved_model_on_masks_that_stay(tmp_path, notes):
    result = fine_tune(tmp_path / "model", notes, epochs=1)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "model").eval()
    sampler = kd_mlm.load(tmp_path / "model", settings_of(), notes)
    bits = count = 0
    for row in range(len(CORPUS.dev)):
        made = MaskedTexts(CORPUS.dev, sampler.tokenizer, 40).rows.batch([row])
        labels = made.pop("labels")[0]
        with torch.no_grad():
            logs = model(**made).logits[0].double().log_softmax(-1)
        chosen = labels >= 0
        bits -= logs[chosen, labels[chosen]].sum() / np.log(2)
        count += int(chosen.sum())
    assert result["dev_bits_per_masked_token"] == pytest.approx(float(bits / count), rel=1e-5)


def test_models_of_other_kinds(tmp_path, make_folder, tokenizer, notes):
    sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 64}
    distil = DistilBertConfig(vocab_size=len(tokenizer), **sizes)
    for config in (distil, bert(tokenizer, RobertaConfig, pad_token_id=0, type_vocab_size=2)):
        folder = make_folder(config, config.model_type)
        before = AutoModelForMaskedLM.from_pretrained(folder).state_dict()
        model = prepare(Options(model=str(folder), max_length=40), PAIRS, notes)
        assert all(torch.equal(value, before[name]) for name, value in model.build(3).state_dict().items())
        result = fine_tune(tmp_path / "model", notes, PAIRS, model=str(folder), epochs=1)
        assert np.isfinite(result["dev_bits_per_masked_token"])
        sampler = kd_mlm.load(tmp_path / "model", settings_of(kind="pair"), notes)
        assert sampler.model.config.model_type == config.model_type
        assert all(text.count("\t") == 1 for text in drawn(sampler, corpus=PAIRS))
        shutil.rmtree(tmp_path / "model")


def test_another_models_tokenizer(make_folder, tmp_path, tokenizer, notes):
    folder = make_folder(bert(tokenizer, vocab_size=4))
    with pytest.raises(DataError, match=r"the tokenizer is another model's"):
        fine_tune(tmp_path / "model", notes, model=str(folder))
    with pytest.raises(DataError, match="does not read 40 mask tokens"):
        kd_mlm.load(folder, settings_of(), notes)


def test_texts_that_are_too_long_and_a_model_that_takes_fewer(folder, tmp_path, notes):
    corpus = replace(CORPUS, train=[*TRAIN, "very dull " * 60, "\u200b"])
    fine_tune(tmp_path / "model", notes, corpus, model=str(folder), max_length=100, epochs=1)
    assert notes.warnings[0].startswith("generators.mlm.max_length is 100, and the model reads 64 tokens")
    assert notes.warnings[1].startswith("1 of 22 train texts are longer than 64 tokens, and are cut there")
    notes.warnings.clear()
    sampler = kd_mlm.load(tmp_path / "model", settings_of(options={"max_length": 40}), notes)
    assert sampler.prefixes(corpus) == {"texts": TRAIN}
    assert notes.warnings == ["2 training texts have more than 40 tokens, or no word: no samples are drawn from them"]
    with pytest.raises(DataError, match="no training text has a word and at most 40 tokens"):
        sampler.prefixes(replace(corpus, train=corpus.train[-2:]))


def test_logits_that_are_no_numbers(folder, notes):
    model = AutoModelForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        model.cls.predictions.bias[3] = np.nan
    model.save_pretrained(folder)
    with pytest.raises(DataError, match="its logits are not finite"):
        kd_mlm.load(folder, settings_of(), notes)


@pytest.mark.parametrize(
    "prefixes", [{}, {"texts": []}, {"texts": "a"}, {"texts": ["a\tb"]}, {"texts": [1]}, {"tokens": [1]}]
)
def test_prefixes_of_another_kind(folder, notes, prefixes):
    with pytest.raises(DataError, match="not the prefixes of this generator"):
        kd_mlm.load(folder, settings_of(), notes).sample(prefixes, Part(0, 5, 1))
