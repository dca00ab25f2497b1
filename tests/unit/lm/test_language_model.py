import json
import math
from dataclasses import replace

import pytest
import torch
from decoding import nats_one_by_one
from filelock import FileLock
from notes import Notes
from raising import raising
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, GPT2Config

from kdcli.api import Corpus, DataError, QuietReporter, UsageError
from kdcli.errors import KdError
from kdcli.lm.fine_tune import one_training
from kdcli.lm.language_model import LanguageModel, fine_tune_language_model

TRAIN = ["a good film about a bad dog", "the plot is very dull , and the actors are great", "naïve but great fun"]
TRAIN += ["a great film , and very good fun", "it was dull", "the dog is good and the film is bad", "very bad", "fun !"]
TRAIN *= 3
DEV = ["a very good dog", "the actors are dull and the plot is bad", "great !"]
TEST = ["the fun is great", "a dog"]
CORPUS = Corpus("single", TRAIN, DEV, TEST)
RECIPE = {"lr": 1e-2, "epochs": 3, "batch_size": 8, "max_length": 60}


@pytest.fixture
def make_start(tokenizer):
    def make(config=None, tokenizer=tokenizer, max_length=60, **sizes):
        end, small = tokenizer.eos_token_id, {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
        ends = {"bos_token_id": end, "eos_token_id": end}
        config = config or GPT2Config(**{"vocab_size": len(tokenizer), **small, **ends, **sizes})
        return LanguageModel("generators.tiny", tokenizer, config, None, max_length)

    return make


@pytest.fixture
def train(tmp_path, make_start, make_settings, notes):
    def run(name="model", start=None, corpus=CORPUS, reporter=notes, **settings):
        settings = make_settings(**{**RECIPE, **settings})
        return fine_tune_language_model(start or make_start(), corpus, tmp_path / name, settings, reporter)

    return run


def weights(folder):
    return torch.cat([value.flatten() for _, value in sorted(load_file(folder / "model.safetensors").items())])


def naive_fit(folder, texts):
    """Compute bits a character and word perplexity from a saved model, a token at a time."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    whole = [[*tokens, tokenizer.eos_token_id] for tokens in tokenizer(texts)["input_ids"]]
    nats = sum(nats_one_by_one(model, tokens) for tokens in whole)
    words = sum(len(text.split()) + 1 for text in texts)
    return nats / math.log(2) / sum(map(len, texts)), math.exp(nats / words)


def test_it_learns_and_reports_the_scores_of_the_saved_model(tmp_path, train, notes):
    result = train()
    for name, texts in (("dev", DEV), ("test", TEST)):
        bits, perplexity = naive_fit(tmp_path / "model", texts)
        assert result[f"{name}_bits_per_character"] == pytest.approx(bits, rel=1e-5)
        assert result[f"{name}_word_perplexity"] == pytest.approx(perplexity, rel=1e-4)
    bits = [values["bits_per_character"] for *_, values in notes.points]
    assert len(bits) == 3 and bits[2] < bits[1] < bits[0] < 8
    assert (result["updates"], result["epochs"], result["best_epoch"]) == (9, 3, 3)
    assert (result["batch_size"], result["at_once"], result["lr"]) == (8, 8, 1e-2)
    assert result["parameters"] == sum(map(torch.numel, load_file(tmp_path / "model/model.safetensors").values()))
    assert json.loads((tmp_path / "model/metrics.json").read_text()) == result
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["model"]
    (tmp_path / "other").touch()
    assert {file.stat().st_mode for file in (tmp_path / "model").iterdir()} == {(tmp_path / "other").stat().st_mode}
    assert notes.warnings == []


def test_other_texts_or_settings_start_again(tmp_path, train, notes):
    other = Corpus("single", TRAIN, TEST)
    for change, said in (({"lr": 1e-3}, "generators.tiny.lr"), ({"corpus": other}, "dev texts")):
        with pytest.raises(KeyboardInterrupt):
            train(reporter=Notes(kill_at=5), save_steps=1)
        notes.updates = 0
        train(**{"epochs": 3, **change})
        assert notes.updates == 9
        assert notes.warnings[-1].startswith(f"{said} changed")


def test_bf16_and_gradient_checkpointing_on_a_cpu(tmp_path, train, make_start):
    plain, half = train("plain"), train("half", precision="bf16", gradient_checkpointing=True)
    assert half["dev_bits_per_character"] == pytest.approx(plain["dev_bits_per_character"], rel=0.05)
    saved, exact = weights(tmp_path / "half"), weights(tmp_path / "plain")
    assert saved.dtype == torch.float32 and not torch.equal(saved, saved.bfloat16().float())
    torch.testing.assert_close(saved, exact, atol=0.05, rtol=0)


def test_bad_input_is_refused_before_the_training(tmp_path, train, make_start, tokenizer, notes):
    for wrong, name in ((replace(CORPUS, train=[]), "train"), (replace(CORPUS, dev=[]), "dev")):
        with pytest.raises(DataError, match=f"there are no {name} texts"):
            train(corpus=wrong)
    with pytest.raises(DataError, match=r"the tokenizer is another model's: .* 200"):
        train(start=make_start(vocab_size=200))
    with pytest.raises(UsageError, match="fp16"):
        train(precision="fp16")
    assert not list(tmp_path.iterdir())
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2, eos_token_id=0)
    with pytest.raises(DataError, match="BloomForCausalLM cannot be sampled from"):
        train(start=make_start(config))
    assert notes.updates == 0


HALF = "run/model/config.json"


def killed(work, fingerprint):
    with pytest.raises(KeyboardInterrupt), one_training(work, fingerprint, True, QuietReporter(), "generator"):
        (work / "run/model").mkdir(parents=True)
        (work / HALF).touch()
        raise KeyboardInterrupt


def found(work, fingerprint, *, resume=True):
    """Return what the next training finds of the last one, and what it says."""
    said = Notes()
    with one_training(work, fingerprint, resume, said, "generator"):
        there = (work / HALF).exists()
    assert not work.exists(), "a training that ended well leaves nothing"
    return there, said.infos, said.warnings


def test_a_killed_training_continues_or_starts_again_with_the_reason(tmp_path, monkeypatch):
    killed(tmp_path / "work", {"lr": (1, 2), "seed": 3})
    there, said, warnings = found(tmp_path / "work", {"lr": [1, 2], "seed": 3})
    assert there and said == ["continuing the interrupted training"] and warnings == []
    assert found(tmp_path / "work", {"seed": 3}) == (False, [], [])
    killed(tmp_path / "work", {"lr": 1, "seed": 3})
    there, _, warnings = found(tmp_path / "work", {"lr": 2, "seed": 3, "batch": 4})
    changes = ["lr changed (1 -> 2)", "batch changed (None -> 4)"]
    assert not there and warnings == [f"{change}: starting again" for change in changes]
    killed(tmp_path / "work", {"seed": 3})
    assert found(tmp_path / "work", {"seed": 3}, resume=False) == (False, [], [])
    killed(tmp_path / "work", {"seed": 3})
    monkeypatch.setattr("torch.__version__", "0.1")
    assert found(tmp_path / "work", {"seed": 3})[2][0].startswith("torch changed")


def test_one_training_at_a_time_and_files_of_the_user_stay(tmp_path):
    killed(tmp_path / "work", {})
    busy = pytest.raises(KdError, match="another process trains this generator already")
    training = one_training(tmp_path / "work", {}, True, QuietReporter(), "generator")
    with FileLock(tmp_path / ".work.lock"), busy, training:
        raise AssertionError
    assert (tmp_path / "work" / HALF).exists()
    assert found(tmp_path / "work", {})[0], "the lock is free again"
    work = tmp_path / "work"
    killed(work, {"lr": 1})
    (work / "notes.txt").write_text("mine")
    for fingerprint, resume in (({"lr": 2}, True), ({"lr": 1}, False)):  # the folder would be emptied
        training = one_training(work, fingerprint, resume, QuietReporter(), "teacher")
        with raising(DataError, file=work / "notes.txt"), training:
            raise AssertionError
        assert (work / HALF).exists()
    with one_training(work, {"lr": 1}, True, QuietReporter(), "teacher"):
        assert (work / HALF).exists()
    assert [path.name for path in work.rglob("*")] == ["notes.txt"], "only what kd made is removed"
