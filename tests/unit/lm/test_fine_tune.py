import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from notes import Notes
from raising import raising
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from torch.nn import functional

from kdcli.api import QuietReporter
from kdcli.errors import KdError, ProfileError
from kdcli.lm.fine_tune import Recipe, fine_tune
from kdcli.lm.texts import TokenRows
from kdcli.lm.trainer import ByLength, ByLengthTrainer, Diverged

WORDS = 40
RECIPE = {"lr": 1e-2, "epochs": 3, "max_steps": 0, "batch_size": 12, "halve": False, "weight_decay": 1e-3}
RECIPE |= {"warmup": 0.1, "save_steps": 0, "seed": 5, "device": "cpu", "precision": "fp32"}
ENDS = {"vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **ENDS)
STILL = transformers.GPT2Config(**GPT2.to_dict() | {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0})
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = transformers.LlamaConfig(**ENDS, **SMALL)


class Texts:
    """Texts that count upwards; each epoch of training drops another number of words at their start.

    Labels stand at their tokens, as in Hugging Face; with ``ahead``, one position before, where they are predicted.
    """

    def __init__(self, rows, seed, *, changing=True, ahead=False):
        random = np.random.default_rng(seed)
        starts, lengths = random.integers(1, 10, rows), random.integers(6, 30, rows)
        self.texts = [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        self.changing = changing
        self.ahead = ahead
        self.start(0)

    def start(self, epoch):
        drops = np.random.default_rng(epoch).integers(0, 4, len(self.texts)) * self.changing
        kept = [text[drop:] for text, drop in zip(self.texts, drops, strict=True)]
        tokens, starts = np.concatenate(kept).astype(np.int32), np.cumsum([0, *map(len, kept)])
        labels = tokens.copy()
        labels[starts[:-1]] = -100
        labels = np.roll(labels, -1) if self.ahead else labels
        padding = {"input_ids": 0, "labels": -100}
        self.rows = TokenRows({"input_ids": tokens, "labels": labels}, padding, starts)


def nats(logits, labels, ahead):
    logits, labels = (logits, labels) if ahead else (logits[:, :-1], labels[:, 1:])
    return functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1)


class Writer:
    """A language model that is trained on ``Texts``; it keeps what it is given to score."""

    stage = "generator"
    key = "generators.tiny"
    metric = "nats_per_token"
    greater_is_better = False

    def __init__(self, config=GPT2, rows=56, *, changing=True, ahead=False):
        self.config = config
        self.train = Texts(rows, seed=1, changing=changing, ahead=ahead)
        self.dev = Texts(20, seed=2, changing=False, ahead=ahead)
        vocabulary = {str(number): number for number in range(WORDS)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="0"))
        self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="0")
        self.seen = []

    def build(self, seed):
        transformers.set_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(self.config)

    def loss(self, outputs, labels, num_items_in_batch):
        return nats(outputs["logits"], labels, self.train.ahead).sum() / num_items_in_batch

    def reduce(self, logits, labels):
        return nats(logits, labels, self.train.ahead)

    def score(self, predictions, labels):
        self.seen.append((predictions, labels))
        return {"nats_per_token": predictions.sum().item() / (labels != -100).sum().item()}


def train(folder, learner=None, reporter=None, **recipe):
    return fine_tune(folder, learner or Writer(), Recipe(**RECIPE | recipe), reporter or QuietReporter())


def weights(folder):
    return torch.cat([value.flatten() for _, value in sorted(load_file(folder / "model/model.safetensors").items())])


def same(folder, other):
    return (folder / "model/model.safetensors").read_bytes() == (other / "model/model.safetensors").read_bytes()


@torch.no_grad()
def losses(model, text):
    """Compute the nats of each token of a text but the first, one by one."""
    chances = model(text[None]).logits[0].softmax(-1)
    return np.array([-chances[place, word].log().item() for place, word in enumerate(text[1:])])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training") / "whole"
    return folder, train(folder)


@pytest.mark.parametrize(("kill_at", "left"), [(3, 13), (6, 10), (15, 1)])
def test_a_killed_training_ends_with_the_same_weights(tmp_path, whole, kill_at, left):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", save_steps=2, reporter=Notes(kill_at))
    assert not (tmp_path / "killed/model").exists()
    notes = Notes()
    outcome = train(tmp_path / "killed", reporter=notes)
    assert (notes.updates, outcome) == (left, whole[1])
    assert same(tmp_path / "killed", whole[0])


def test_the_learning_rate_of_a_point_is_that_of_its_update(tmp_path):
    killed, notes = Notes(kill_at=13), Notes()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "x", reporter=killed, lr=0.13, warmup=0.4, max_steps=14)
    train(tmp_path / "x", reporter=notes, lr=0.13, warmup=0.4, max_steps=14)
    # Six updates of warm-up, then a straight line to 0 after the last one; update 1 has the rate 0.
    expected = {5: 0.13 * 4 / 6, 10: 0.13 * 5 / 8, 14: 0.13 * 1 / 8}
    assert {step: values["lr"] for _, step, values in killed.points + notes.points} == pytest.approx(expected)
    assert {values["peak_lr"] for *_, values in notes.points} == {0.13}
    assert notes.infos[-1].endswith("after epoch 2.8 of 2.8")


def test_every_epoch_has_its_own_rows(tmp_path, whole):
    learner = Writer()
    epochs = []
    start, learner.train.start = learner.train.start, lambda epoch: epochs.append(epoch) or start(epoch)
    train(tmp_path / "again", learner)
    assert epochs == [0, 1, 2] and same(tmp_path / "again", whole[0])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", learner, Notes(8), save_steps=1)
    epochs.clear()
    train(tmp_path / "killed", learner)
    assert epochs == [1, 2]
    train(tmp_path / "unchanging", Writer(changing=False))
    assert not same(tmp_path / "unchanging", whole[0])


def test_the_saved_model_has_the_score_of_the_outcome(whole):
    folder, outcome = whole
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    assert transformers.AutoTokenizer.from_pretrained(folder / "model").eos_token == "0"
    expected = np.concatenate([losses(model, torch.from_numpy(text)) for text in Writer().dev.texts]).mean()
    assert outcome.metrics == {"nats_per_token": pytest.approx(expected, abs=1e-5)}
    assert expected < 3 < np.log(WORDS)
    assert outcome.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (outcome.updates, outcome.epochs, outcome.batch_size, outcome.at_once) == (15, 3, 12, 12)
    assert {path.name for path in folder.iterdir()} == {"model", "outcome.json"}


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("config", [STILL, LLAMA], ids=["gpt2", "llama"])
def test_the_loss_is_the_mean_over_the_real_tokens_of_an_update(tmp_path, config, ahead):
    learner = Writer(config, ahead=ahead)
    model = learner.build(RECIPE["seed"])
    rows = list(ByLength(learner.train, 12, RECIPE["seed"]))[:12]
    assert len(set(learner.train.rows.lengths[rows])) > 1, "padding has to matter"
    texts = [learner.train.rows.batch([row])["input_ids"] for row in rows]
    expected = np.concatenate([losses(model, text[0]) for text in texts]).mean()
    for at_once in (12, 5, 1):
        notes = Notes()
        outcome = train(tmp_path / str(at_once), learner, notes, max_steps=1, at_once=at_once)
        assert outcome.at_once == {12: 12, 5: 4, 1: 1}[at_once]
        assert notes.points[0][2]["loss"] == pytest.approx(expected, rel=1e-5)


def test_auto_halves_what_goes_at_once(tmp_path, monkeypatch, notes):
    train(tmp_path / "whole", Writer(STILL), batch_size=48, halve=True, lr=1e-3)
    forward = ByLengthTrainer.compute_loss

    def limited(self, model, inputs, *args, **kwargs):
        if model.training and len(inputs["labels"]) > 10:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(ByLengthTrainer, "compute_loss", limited)
    outcome = train(tmp_path / "halved", Writer(STILL), notes, batch_size=48, halve=True, lr=1e-3)
    assert (outcome.batch_size, outcome.at_once, outcome.updates) == (48, 6, 6)
    assert [re.findall(r"(\d+) from here on", warning) for warning in notes.warnings] == [["24"], ["12"], ["6"]]
    torch.testing.assert_close(weights(tmp_path / "halved"), weights(tmp_path / "whole"), atol=2e-5, rtol=0)
    with raising(KdError, key="generators.tiny.batch_size", hint="generators.tiny.batch_size"):
        train(tmp_path / "fixed")


def test_gradient_checkpointing_changes_nothing_but_memory_and_a_model_may_not_have_it(tmp_path, whole, monkeypatch):
    forward, checkpointing = transformers.GPT2LMHeadModel.forward, set()

    def spying(self, *args, **kwargs):
        checkpointing.add((self.training, self.is_gradient_checkpointing))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(transformers.GPT2LMHeadModel, "forward", spying)
    train(tmp_path / "training", gradient_checkpointing=True)
    assert (True, True) in checkpointing and (True, False) not in checkpointing
    torch.testing.assert_close(weights(tmp_path / "training"), weights(whole[0]), atol=1e-5, rtol=0)
    learner = Writer()
    model = learner.build(0)
    model.supports_gradient_checkpointing = False
    monkeypatch.setattr(learner, "build", lambda seed: model)
    with raising(ProfileError, "GPT2LMHeadModel", key="generators.tiny.gradient_checkpointing"):
        train(tmp_path / "without", learner, gradient_checkpointing=True)


@pytest.mark.parametrize("greater", [False, True])
def test_the_best_score_is_the_lowest_or_the_greatest(tmp_path, monkeypatch, greater):
    learner, notes, seen = Writer(), Notes(), []
    learner.greater_is_better, best = greater, (1.0, 2.0)[greater]

    def scripted(predictions, labels):
        seen.append(predictions)
        return {"nats_per_token": [3 - best, best, 1.5][len(seen) - 1]}

    monkeypatch.setattr(learner, "score", scripted)
    outcome = train(tmp_path / "training", learner, notes)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "training/model").eval()
    expected = [losses(model, torch.from_numpy(text)).sum() for text in learner.dev.texts]
    np.testing.assert_allclose(np.sort(seen[1]), np.sort(expected), rtol=1e-4)
    assert not np.allclose(np.sort(seen[2]), np.sort(expected), rtol=1e-3)
    assert (outcome.metrics, outcome.best_epoch, outcome.epochs) == ({"nats_per_token": best}, 2, 3)
    assert notes.shown["best"] == f"{best:.4f}"
    assert greater or all(values["dev_loss"] == values["nats_per_token"] for *_, values in notes.points), "not the loss"
    scores = [("generator", 5, 3 - best), ("generator", 10, best), ("generator", 15, 1.5)]
    assert [(stage, step, values["nats_per_token"]) for stage, step, values in notes.points] == scores


def test_a_score_that_is_no_number_ends_the_training(tmp_path, monkeypatch):
    learner, notes = Writer(), Notes()

    def broken(predictions, labels):
        if notes.updates > 5:
            raise Diverged("the bits are no number any more")
        return {"nats_per_token": 1.0}

    monkeypatch.setattr(learner, "score", broken)
    outcome = train(tmp_path / "training", learner, notes)
    assert (outcome.updates, outcome.best_epoch, outcome.metrics) == (5, 1, {"nats_per_token": 1.0})
    assert notes.warnings[0].startswith("training at 0.01 stopped: the bits are no number any more; best model before")


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys; from pathlib import Path; from test_fine_tune import STILL, Writer, train\n"
        "from kdcli.api import QuietReporter; from kdcli.lm.fine_tune import join_processes\n"
        "join_processes('cpu', None)\n"
        "train(Path(sys.argv[1]), Writer(STILL, rows=48), lr=1e-3, epochs=2, at_once=3)\n"
    )
    folders = Path(__file__).parents
    environment = os.environ | {"PYTHONPATH": f"{folders[0]}{os.pathsep}{folders[2]}", "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for command, name in ((torchrun, "two"), ([sys.executable], "one")):
        subprocess.run([*command, str(script), str(tmp_path / name)], check=True, env=environment, timeout=200)
    torch.testing.assert_close(weights(tmp_path / "two"), weights(tmp_path / "one"), atol=2e-5, rtol=0)
