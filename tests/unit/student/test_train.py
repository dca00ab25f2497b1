import errno
import json
import sys
from inspect import getsource
from pathlib import Path

import fake_plugin
import numpy as np
import polars as pl
import pytest
import torch
from notes import Notes
from raising import raising
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

import kdcli
from kdcli.api import QuietReporter, Task
from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError, KdError, PluginError, ProfileError
from kdcli.files import MARKER, sha256
from kdcli.student import build, optimize
from kdcli.student.build import round_tables
from kdcli.student.dataset import Examples, encode_table
from kdcli.student.student import load_student
from kdcli.student.train import Training, train_student
from kdcli.student.vectors import Vectors
from kdcli.student.vocabulary import train_vocabulary

TASK = Task("toy", "single", ("0", "1"), names=("bad", "good"))
PAIR = Task("toy", "pair", ("0", "1"))
SCORE = Task("toy", "single", (), score_range=(0.0, 1.0), metric="pearson")
OPTIONS = {"hidden": 4, "fc": 16, "embeddings": "rand"}  # with fewer, all ReLUs of a seed can be dead


def data(task=TASK, rows=60, seed=0):
    """Texts that are good if they hold more of the words a, b than of y, z; their teacher knows it."""
    numbers = np.random.default_rng(seed)
    texts = [numbers.choice(list("abyzm"), numbers.integers(1, 7)) for _ in range(rows)]
    margins = np.array([np.isin(text, ["a", "b"]).sum() - np.isin(text, ["y", "z"]).sum() for text in texts])
    labels = np.where(margins >= 0, "1", "0")
    columns = {name: [" ".join(text) for text in texts] for name in task.columns}
    table = pl.DataFrame({**columns, "label": labels})
    tokenizer = train_vocabulary([pl.Series(["a b y z m"])], max_size=100, min_freq=1, lowercase=True)
    examples = encode_table(table, tokenizer, task, 128)
    logits = margins[:, None] * np.linspace(-1, 1, 2)[-task.outputs :]
    return Examples(examples.texts, logits.astype(np.float32), examples.labels), tokenizer


HOW = ("vectors", "options", "seed", "max_updates", "resume", "reporter")
"""What ``train`` hands on to ``train_student``; the others are settings."""


def train(output, task=TASK, examples=None, **given):
    made, tokenizer = data(task)
    dev = data(task, seed=1)[0]
    how = {"vectors": None, "options": OPTIONS, "seed": 1, "reporter": Notes()}
    how |= {name: given.pop(name) for name in HOW if name in given}
    return train_student(
        examples=made if examples is None else examples,
        dev=Examples(dev.texts, labels=dev.labels),
        tokenizer=tokenizer,
        task=task,
        settings=StudentSettings(**{"batch_size": 10, "epochs": 3, "dimension": 6, **given}),
        output=output,
        **how,
    )


def weights_hash(folder):
    return sha256(folder / "model.safetensors")


def test_a_table_beyond_16_bits_stays_as_it_is():
    tables = torch.nn.ModuleList([torch.nn.Embedding(2, 3), torch.nn.Linear(3, 2), torch.nn.Embedding(2, 3)])
    weights = tables.state_dict()
    weights["0.weight"][0, 0] = 1e5
    rounded = round_tables(tables, weights)
    assert list(rounded) == list(weights)
    changed = {name for name, value in rounded.items() if not torch.equal(value, weights[name])}
    assert changed == {"2.weight"}
    np.testing.assert_allclose(rounded["2.weight"], weights["2.weight"], rtol=2**-11)


def test_it_learns_and_leaves_a_folder_that_predicts(tmp_path, notes):
    result = train(tmp_path / "student", reporter=notes, epochs=15, patience=0, optimizer="adam", lr=0.03)
    assert result.dev["accuracy"] >= 0.9
    assert result.dev.keys() == {"accuracy", "balanced_accuracy", "f1", "macro_f1", "mcc"}
    assert (result.updates, result.epochs, result.stopped) == (90, 15, "epochs")
    assert result.dev["accuracy"] == max(point["accuracy"] for point in result.history)
    assert [(stage, step) for stage, step, _ in notes.points] == [("student", 6 * k) for k in range(1, 16)]
    assert notes.points[-1][2]["loss"] < notes.points[0][2]["loss"]
    assert notes.rows == 15 * 60
    assert notes.shown["best"] == f"{result.dev['accuracy']:.4f}"
    student = load_student(tmp_path / "student")
    logits = student.logits([["a b", "y z y", "", "b " * 500]])
    assert logits.dtype == np.float32
    assert logits.argmax(1)[[0, 1, 3]].tolist() == [1, 0, 1]
    assert student.task == TASK
    assert student.metrics["updates"] == 90
    assert not list(tmp_path.glob(".student*"))


@pytest.mark.parametrize("optimizer", ["adadelta", "adam", "adamw"])
@pytest.mark.parametrize("eval_steps", [0, 4])
def test_stopped_and_started_again_ends_with_the_same_bytes(tmp_path, optimizer, eval_steps):
    lr, ema = (1.0, 0.0) if optimizer == "adadelta" else (0.01, 0.9)
    settings = {"optimizer": optimizer, "lr": lr, "eval_steps": eval_steps, "ema": ema}
    whole = train(tmp_path / "whole", epochs=4, clip=0.5, **settings)
    for stop_at in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped", reporter=Notes(kill_at_point=stop_at), epochs=4, clip=0.5, **settings)
        assert not (tmp_path / "stopped").exists()
    notes = Notes()
    resumed = train(tmp_path / "stopped", reporter=notes, epochs=4, clip=0.5, **settings)
    assert len(notes.infos) == 1 and len(notes.points) < len(whole.history)
    assert weights_hash(tmp_path / "stopped") == weights_hash(tmp_path / "whole")
    assert resumed.history == whole.history
    assert resumed.best_update == whole.best_update


def test_killed_between_two_evaluations(tmp_path, monkeypatch):
    train(tmp_path / "whole")
    update, done = Training._update, []

    def killed(self, rows):
        done.append(rows)
        if len(done) == 9:
            raise KeyboardInterrupt
        return update(self, rows)

    monkeypatch.setattr(Training, "_update", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped")
    train(tmp_path / "stopped")
    assert len(done) == 9 + 12  # the 3 updates after the first evaluation are done again
    assert weights_hash(tmp_path / "stopped") == weights_hash(tmp_path / "whole")


@pytest.mark.parametrize("why", ["changed", "broken", "another model's", "forgotten"])
def test_a_checkpoint_that_is_not_used(tmp_path, why):
    how, notes = {"lr": 0.5} if why == "changed" else {}, Notes()
    train(tmp_path / "whole", **how)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "student", reporter=Notes(kill_at_point=1))
    checkpoint = tmp_path / ".student.resume" / "checkpoint.safetensors"
    if why == "broken":
        checkpoint.write_bytes(b"\x08")
    if why == "another model's":
        with safe_open(checkpoint, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            tensors |= {name: value[:1].clone() for name, value in tensors.items() if name.startswith("model/")}
            save_file(tensors, checkpoint, file.metadata())
    train(tmp_path / "student", reporter=notes, resume=why != "forgotten", **how)
    assert [step for _, step, _ in notes.points] == [6, 12, 18]
    few = [warning for warning in notes.warnings if "student.epochs" in warning]
    assert len(few) == 1 and len(notes.warnings) == 1 + (why != "forgotten")
    assert why != "changed" or notes.warnings[0] == "student.lr changed (auto -> 0.5): starting again"
    assert weights_hash(tmp_path / "student") == weights_hash(tmp_path / "whole")


def test_seed_decides(tmp_path):
    before = torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tmp_path / name, seed=seed)
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b") != weights_hash(tmp_path / "c")
    assert torch.equal(before, torch.get_rng_state())


def test_best_model_is_kept_and_patience_ends_it(tmp_path, monkeypatch):
    scores = iter([0.5, 0.8, 0.8, 0.7, 0.9])
    states = []

    def evaluate(module, plugin, examples, task):
        states.append({name: value.clone() for name, value in module.state_dict().items()})
        return {"accuracy": next(scores)}

    monkeypatch.setattr(build, "evaluate", evaluate)
    result = train(tmp_path / "student", epochs=9, patience=2)
    assert (result.stopped, result.updates, result.best_update) == ("patience", 24, 12)
    assert result.dev == {"accuracy": 0.8}
    weights = load_file(tmp_path / "student" / "model.safetensors")
    assert all(torch.equal(value, states[1][name].to(value.dtype)) for name, value in weights.items())
    assert not all(torch.equal(value, states[3][name].to(value.dtype)) for name, value in weights.items())


@pytest.mark.parametrize(("limit", "max_steps", "updates"), [(7, 0, 7), (None, 8, 8), (7, 8, 7), (30, 0, 18)])
def test_updates_are_limited(tmp_path, limit, max_steps, updates):
    result = train(tmp_path / "student", max_updates=limit, max_steps=max_steps)
    assert result.updates == updates == result.history[-1]["update"]
    assert result.stopped == ("max_steps" if updates < 18 else "epochs")


@pytest.mark.parametrize(("limit", "updates"), [(None, 12), (4, 4)])
def test_learning_rate_falls_in_a_straight_line_to_the_last_update_there_can_be(tmp_path, notes, limit, updates):
    how = {"epochs": 2, "lr": 0.6, "decay": "linear", "eval_steps": 1, "patience": 0}
    result = train(tmp_path / "student", reporter=notes, max_updates=limit, **how)
    expected = {step: pytest.approx(0.6 * (updates + 1 - step) / updates) for step in range(1, updates + 1)}
    assert {step: values["lr"] for _, step, values in notes.points} == expected
    assert {point["update"]: point["lr"] for point in result.history} == expected


def test_nan_stops_says_so_and_keeps_the_best(tmp_path, monkeypatch, notes):
    train(tmp_path / "whole", epochs=1)
    update, done = Training._update, []

    def diverging(self, rows):
        done.append(rows)
        return float("nan") if len(done) >= 8 else update(self, rows)

    monkeypatch.setattr(Training, "_update", diverging)
    result = train(tmp_path / "student", reporter=notes)
    assert (result.stopped, result.updates, result.best_update) == ("nan", 7, 6)
    assert "the loss became nan at update 8" in notes.warnings[-1]
    assert weights_hash(tmp_path / "student") == weights_hash(tmp_path / "whole")


def test_numbers_that_are_not_finite_are_no_result(tmp_path, student):
    examples, _ = data()
    broken = Examples(examples.texts, np.full_like(examples.logits, np.nan), examples.labels)
    with raising(KdError, "the loss became nan at update 1", hint="student.lr"):
        train(tmp_path / "student", examples=broken)
    with pytest.raises(KdError, match=r"the loss became (inf|nan)"):
        train(tmp_path / "student", optimizer="adam", lr=1e30, eval_steps=1000)
    student("return logits", "return logits if len(logits) < 11 else logits / 0")  # those of dev
    with pytest.raises(KdError, match="not finite at update"):
        train(tmp_path / "student", model="mean", options={})
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize(
    ("task", "loss"),
    [(PAIR, {"kd_loss": "kl", "temperature": 2.0}), (PAIR, {"kd_weight": 0.0, "ce_weight": 1.0}), (SCORE, {})],
)
def test_tasks_and_losses(tmp_path, task, loss):
    result = train(tmp_path / "student", task, epochs=20, patience=0, optimizer="adam", lr=0.03, **loss)
    assert result.dev[task.metric] > 0.8
    student = load_student(tmp_path / "student")
    texts = ["a b", "z y z"]
    logits = student.logits([texts] * len(task.columns))
    assert logits[0, -1] > logits[1, -1]


def test_vectors_are_where_it_begins(tmp_path):
    matrix = np.linspace(-1.25, 1.25, 7 * 3, dtype=np.float32).reshape(7, 3)  # float16 holds them
    options = {**OPTIONS, "embeddings": "multichannel"}
    train(tmp_path / "student", vectors=Vectors(matrix, "file v.txt", 5), options=options)
    weights = load_file(tmp_path / "student" / "model.safetensors")
    assert np.array_equal(weights["embedding.frozen.weight"].numpy(), matrix)
    trained = weights["embedding.trained.weight"].numpy()
    assert not np.array_equal(trained, matrix)
    assert np.array_equal(trained[:2], matrix[:2])  # no text has a special word
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert (config["vectors"], config["words_with_vectors"], config["dimension"]) == ("file v.txt", 5, 3)


def test_folder(tmp_path):
    folder = tmp_path / "student"
    result = train(folder, kd_loss="kl", temperature=4.0, ce_weight=0.5)
    stored = load_file(folder / "model.safetensors")
    assert {name for name, value in stored.items() if value.dtype == torch.float16} == {"embedding.trained.weight"}
    files = {"model.safetensors", "config.json", "tokenizer.json", "metrics.json", "README.md", MARKER}
    assert {path.name for path in folder.iterdir()} == files
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["dev"] == result.dev
    assert metrics["history"] == result.history
    inside = 2 * (4 * 4 * (6 + 4) + 8 * 4) + 8 * 16 + 16 + 16 * 2 + 2
    assert (result.parameters_without_embeddings, result.parameters) == (inside, inside + 7 * 6)
    student = load_student(folder)
    assert (student.parameters_without_embeddings, student.parameters) == (inside, inside + 7 * 6)
    defaults = {"cell": "lstm", "layers": 1, "pooling": "last", "alignment": False, "dropout": 0.1}
    assert student.config["options"] == {**OPTIONS, **defaults}
    card = (folder / "README.md").read_text()
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    numbers = (f"{result.dev['accuracy']:.4f}", f"{inside + 42:,}", f"{inside:,}", f"{megabytes:.1f} MB", "seed 1")
    assert [number for number in numbers if number not in card] == []


@pytest.mark.parametrize("file", ["checkpoint", "model"])
def test_full_disk_leaves_what_was_there(tmp_path, monkeypatch, file):
    train(tmp_path / "student")
    before = weights_hash(tmp_path / "student")
    write = Path.write_bytes

    def full(path, content):
        if path.name.endswith(f"{file}.safetensors"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    def full_of_tensors(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    if file == "checkpoint":
        monkeypatch.setattr(optimize, "save_file", full_of_tensors)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(KdError, match="the disk is full"):
        train(tmp_path / "student", seed=2)
    assert weights_hash(tmp_path / "student") == before
    assert not list(tmp_path.rglob(".kd-*"))  # nothing half written


def test_what_cannot_be_trained(tmp_path, make_plugin):
    code = "from kd_bilstm import Options, build\napi_version = 2\npairs = scores = False\n"
    make_plugin("kd-plain", "[kdcli.students]\nplain = plain_student\n", code, module="plain_student")
    assert train(tmp_path / "student", model="plain").updates == 18
    labels_alone = {"kd_weight": 0.0, "ce_weight": 1.0}
    texts = data()[0].texts
    for error, says, how in (
        (ProfileError, "pairs", {"task": PAIR, "model": "plain"}),
        (ProfileError, "scores", {"task": SCORE, "model": "plain"}),
        (PluginError, "nothing", {"model": "nothing"}),
        (ProfileError, "hiden", {"options": {"hiden": 4}}),
        (DataError, "needs rows", {"examples": data(rows=0)[0]}),
        (DataError, "logits", {"examples": Examples(texts)}),
        (DataError, "label", {"examples": Examples(texts), **labels_alone}),
    ):
        with pytest.raises(error, match=says):
            train(tmp_path / "other", **how)
    bare = Examples(texts, labels=data()[0].labels)
    assert train(tmp_path / "labels", examples=bare, **labels_alone).updates == 18
    assert "Trained on labels alone" in (tmp_path / "labels" / "README.md").read_text()


STUDENT = getsource(fake_plugin)


@pytest.fixture
def student(make_plugin):
    """Install the fake student as ``mean`` of the distribution ``kd-mean``, changed as the test wants."""

    def install(old="", new="", version="1.0"):
        code = STUDENT.replace(old, new)
        assert code != STUDENT or not old
        make_plugin("kd-mean", "[kdcli.students]\nmean = kd_mean\n", code, module="kd_mean", version=version)

    return install


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("return Average()", "return Average", "builds no torch.nn.Module, but type"),
        ("return Average()", "return torch.nn.Flatten()", "builds a module without parameters to train"),
        ("return Average()", "return Average().requires_grad_(False)", "builds a module without parameters to train"),
        ("return Average()", "return torch.nn.Linear(options.width, 2)", "failed in build: AttributeError: 'Options'"),
        ("return logits", "return logits[:, :1]", r"gives float32 \[3, 1\] for logits float32 \[3, 2\]"),
        ("return logits", "return logits.double()", r"gives float64 \[3, 2\] for"),
        ("return logits", "return logits / 0", "gives numbers that are not finite, before any training"),
        ("return logits", "return (logits,)", "gives a tuple for"),
        ("return logits", "return self.nothing", "failed in forward: AttributeError: 'Average' object has no"),
    ],
)
def test_a_student_that_breaks_the_contract_is_found_before_it_is_trained(tmp_path, student, old, new, says):
    student(old, new)
    with raising(PluginError, says, hint=True, what="the student plugin kd-mean:mean "):
        train(tmp_path / "student", model="mean", options={})
    assert not list(tmp_path.glob("*student*")), "nothing is left"


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ("return logits.detach()", "failed in backward: RuntimeError: element 0 of tensors does not require grad"),
        ("return logits + {True: None}[self.training] if self.training else logits", "failed in forward: TypeError"),
        ("return logits if len(logits) < 11 else exit(3)", "failed in forward: SystemExit: 3"),  # those of dev
    ],
)
def test_a_student_that_fails_while_it_trains_is_named(tmp_path, student, new, says):
    student("return logits", new)
    with raising(PluginError, says, what="the student plugin kd-mean:mean "):
        train(tmp_path / "student", model="mean", options={})


def test_a_student_that_fails_while_it_predicts_and_one_whose_distribution_is_gone(tmp_path, student, monkeypatch):
    with monkeypatch.context() as context:
        path = list(sys.path)
        student(version="2.5")
        train(tmp_path / "student", model="mean", options={})
        loaded = load_student(tmp_path / "student")
        loaded.module.register_forward_pre_hook(lambda *given: exit(3))
        with pytest.raises(PluginError, match="kd-mean:mean failed in forward: SystemExit: 3"):
            loaded.predict(["a b"])
        context.setattr(sys, "path", path)
        file, hint = tmp_path / "student" / "config.json", "the student was made with kd-mean 2.5: pip install kd-mean"
        with raising(PluginError, "no student plugin is named mean", file=file, hint=hint):
            load_student(tmp_path / "student")
        config = json.loads(file.read_text())
        assert (config["plugin"], config["plugin_version"]) == ("mean", {"kd-mean": "2.5"})


def test_trying_a_student_out_changes_nothing(tmp_path, student, monkeypatch):
    student("self.logits(torch.cat", "torch.rand(()) + self.logits(torch.cat")  # draws, even when it does not train
    train(tmp_path / "one", model="mean", options={})
    monkeypatch.setattr(build, "try_out", lambda *given: None)
    train(tmp_path / "other", model="mean", options={})
    assert weights_hash(tmp_path / "one") == weights_hash(tmp_path / "other")


def test_a_file_that_is_changed_while_it_trains_is_told_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "mean.py"
    path.write_text(STUDENT)
    version = sha256(path)[:8]
    monkeypatch.setenv("KD_CODE", str(path))

    class Editor(QuietReporter):
        def metrics(self, stage, step, **values):
            path.write_text(STUDENT + "# changed\n")

    train(tmp_path / "student", model="mean", options={}, reporter=Editor())
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["plugin_version"] == {"mean.py": version} != {"mean.py": sha256(path)[:8]}
    with pytest.warns(UserWarning, match=f"mean.py has changed since .* {version} -> {sha256(path)[:8]}") as warned:
        load_student(tmp_path / "student")
        load_student(tmp_path / "student")
    assert len(warned) == 1
    monkeypatch.delenv("KD_CODE")
    with raising(PluginError, hint=("--code mean.py", 'load_student(folder, code="mean.py"), or set KD_CODE')):
        kdcli.load_student(tmp_path / "student")
    assert kdcli.load_student(tmp_path / "student", code=path).predict(["a b"])


def test_a_checkpoint_of_another_version_of_the_plugin_is_not_used(tmp_path, student):
    student(version="1.0")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "student", model="mean", options={}, reporter=Notes(kill_at_point=1))
    student(version="1.1")
    notes = Notes()
    train(tmp_path / "student", model="mean", options={}, reporter=notes)
    assert notes.warnings[0] == "kd-mean changed (1.0 -> 1.1): starting again"
