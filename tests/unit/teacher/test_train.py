import errno
import json

import numpy as np
import polars as pl
import pytest
import torch
from made_teacher import raw_logits
from notes import Notes
from raising import raising
from safetensors.torch import load_file

from kdcli.api import QuietReporter, Task
from kdcli.config.schema import TeacherSettings
from kdcli.errors import KdError, ProfileError
from kdcli.lm.trainer import ByLengthTrainer
from kdcli.teacher.train import prepare_encoder, train_teacher

TINY = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY |= {"intermediate_size": 32, "max_position_embeddings": 32, "initializer_range": 0.1}
SINGLE = Task("films", "single", ("0", "1"), names=("negative", "positive"))
PAIR = Task("same", "pair", ("no", "yes"))


def table(task, rows, seed=0):
    """Make rows whose class is told by one of two words; a pair is the same when both texts have the same word."""
    random = np.random.default_rng(seed)
    words = np.array(["the", "film", "with", "a", "plot", "and", "some", "people", "in", "it"])

    def text(good):
        around = random.choice(words, random.integers(1, 9)).tolist()
        around.insert(random.integers(len(around) + 1), ("awful", "great")[good])
        return " ".join(around)

    first, second = random.integers(0, 2, (2, rows))
    columns = {"index": [str(row) for row in range(rows)], "sentence": [text(good) for good in first]}
    label = [task.labels[good] for good in first]
    if task.kind == "pair":
        columns = {"sentence1": columns["sentence"], "sentence2": [text(good) for good in second]}
        label = [task.labels[int(one == two)] for one, two in zip(first, second, strict=True)]
    return pl.DataFrame({**columns, "label": label})


def fit(output, task=SINGLE, *, rows=96, reporter=None, seed=3, precision="fp32", **settings):
    own = {"model": "config", "config": TINY, "lr": 1e-2, "epochs": 2, "batch_size": 16, "max_length": 24}
    return train_teacher(
        train=table(task, rows),
        dev=table(task, 40, seed=1),
        task=task,
        settings=TeacherSettings(**own | settings),
        seed=seed,
        device="cpu",
        precision=precision,
        output=output,
        reporter=reporter,
    )


def dev_logits(folder, task):
    dev = table(task, 40, seed=1)
    return raw_logits(folder, *(dev[name].to_list() for name in task.columns)), dev["label"].to_list()


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A folder with a tiny encoder whose weights are stored in float16 and know nothing of our labels."""
    folder = tmp_path_factory.mktemp("models") / "encoder"
    settings = TeacherSettings(model="config", config=TINY)
    texts = [table(SINGLE, 96)["sentence"]]
    encoder = prepare_encoder(settings, SINGLE, texts, QuietReporter())
    encoder.build(7).base_model.half().save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder


def test_output_is_a_hugging_face_folder_that_scores_what_it_says(tmp_path, capfd):
    result = fit(tmp_path / "teacher", epochs=4)
    captured = capfd.readouterr()
    logits, labels = dev_logits(tmp_path / "teacher", SINGLE)
    assert captured == ("", "")
    assert result.metrics["accuracy"] == np.mean(logits.argmax(1) == np.array(labels).astype(int))
    assert result.metrics["accuracy"] > 0.9
    assert result.updates == 24 and result.epochs == 4 and result.batch_size == 16
    config = json.loads((tmp_path / "teacher/config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["problem_type"] == "single_label_classification"
    assert json.loads((tmp_path / "teacher/metrics.json").read_text())["metrics"] == result.metrics
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["teacher"]
    assert {path.suffix for path in (tmp_path / "teacher").glob("[!.]*")} == {".json", ".safetensors"}
    (tmp_path / "other").touch()
    assert {file.stat().st_mode for file in (tmp_path / "teacher").iterdir()} == {(tmp_path / "other").stat().st_mode}


@pytest.mark.parametrize("from_folder", [False, True])
def test_every_parameter_is_trained(tmp_path, pretrained, from_folder):
    model = {"model": str(pretrained)} if from_folder else {}
    result = fit(tmp_path / "teacher", weight_decay=0.0, epochs=1, seed=5, **model)
    settings = TeacherSettings(**({"config": TINY, "model": "config", "max_length": 24} | model))
    encoder = prepare_encoder(settings, SINGLE, [table(SINGLE, 96)["sentence"]], QuietReporter())
    before, after = encoder.build(5).state_dict(), weights(tmp_path / "teacher")
    assert before.keys() == after.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert result.parameters == sum(value.numel() for value in after.values())
    assert {value.dtype for value in after.values()} == {torch.float32}


def test_pretrained_weights_are_where_it_starts(tmp_path, pretrained):
    fit(tmp_path / "teacher", model=str(pretrained), lr=1e-9, max_steps=1)
    start, end = weights(pretrained), weights(tmp_path / "teacher")
    for name, value in start.items():
        torch.testing.assert_close(end[f"bert.{name}"], value.float(), atol=1e-6, rtol=0)


def test_a_checkpoint_cut_short_is_passed_over(tmp_path):
    fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", save_steps=2, reporter=Notes(6))
    folder = tmp_path / "killed.training/lr-0.01"
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5/model.safetensors").write_bytes(b"half")
    fit(tmp_path / "killed", save_steps=2)
    assert (tmp_path / "killed/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_grid_keeps_the_best_rate_and_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "teacher", lr=(1e-6, 1e-2), epochs=4, reporter=Notes(32))
    notes = Notes()
    result = fit(tmp_path / "teacher", lr=(1e-6, 1e-2), epochs=4, reporter=notes)
    single = fit(tmp_path / "single", lr=1e-2, epochs=4)
    assert notes.updates == 18, "the first rate was finished, and an epoch of the second one too"
    assert result.lr == 1e-2
    assert result.grid == {"1e-06": result.grid["1e-06"], "0.01": single.metrics["accuracy"]}
    assert result.grid["1e-06"] < result.grid["0.01"]
    assert (tmp_path / "teacher/model.safetensors").read_bytes() == (tmp_path / "single/model.safetensors").read_bytes()


def test_a_loss_that_is_no_number_stops_and_keeps_the_best_model(tmp_path, monkeypatch, notes):
    fit(tmp_path / "one", epochs=1, warmup=0.0)
    step = ByLengthTrainer.training_step

    def broken(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        return loss * torch.nan if self.state.global_step >= 7 else loss

    monkeypatch.setattr(ByLengthTrainer, "training_step", broken)
    result = fit(tmp_path / "teacher", epochs=4, warmup=0.0, reporter=notes)
    assert (result.best_epoch, result.updates) == (1, 6)
    assert "teacher.epochs" in notes.warnings[0] and "update 10" in notes.warnings[1]
    assert notes.updates == 10
    logits, labels = dev_logits(tmp_path / "teacher", SINGLE)
    assert result.metrics["accuracy"] == np.mean(logits.argmax(1) == np.array(labels).astype(int))


def test_a_rate_that_breaks_down_at_once_is_an_error_unless_another_holds(tmp_path):
    with raising(KdError, "broke down", exit_code=1, hint="lower"):
        fit(tmp_path / "teacher", lr=1e30)
    assert not (tmp_path / "teacher").exists()
    result = fit(tmp_path / "teacher", lr=(1e30, 1e-2))
    assert result.grid["1e+30"] is None and result.lr == 1e-2


def test_limits_and_the_rows_that_are_drawn_at_random_by_the_seed(tmp_path, monkeypatch, notes):
    result = fit(tmp_path / "teacher", max_steps=4, max_rows=33, max_length=99, reporter=notes)
    assert result.updates == 4
    assert result.epochs == pytest.approx(4 / 3)
    assert "32" in notes.warnings[0]
    taken = []

    def stop(settings, task, texts, reporter):
        taken.append(texts[0].to_list())
        raise KeyboardInterrupt

    monkeypatch.setattr("kdcli.teacher.train.prepare_encoder", stop)
    for seed in (3, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "teacher", max_rows=30, seed=seed)
    texts = table(SINGLE, 96)["sentence"].to_list()
    assert taken[0] == taken[1] != taken[2]
    for rows in taken:
        assert len(rows) == 30 and set(rows) <= set(texts)
        assert rows != texts[:30]


def test_a_full_disk_leaves_the_old_teacher_whole(tmp_path, monkeypatch):
    fit(tmp_path / "teacher", epochs=1)
    before = (tmp_path / "teacher/model.safetensors").read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(KdError, match="disk is full"):
        fit(tmp_path / "teacher", epochs=2)
    assert (tmp_path / "teacher/model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("config", "key", "said"),
    [
        ({}, "teacher.config.model_type", "needs a model_type"),
        ({"model_type": "brt"}, "teacher.config.model_type", "brt"),
        ({**TINY, "hiden_size": 8}, "teacher.config.hiden_size", "hiden_size"),
        ({**TINY, "num_attention_heads": 3}, "teacher.config", "multiple of"),
    ],
)
def test_wrong_configurations(tmp_path, config, key, said):
    with raising(ProfileError, said, key=key):
        fit(tmp_path / "teacher", config=config)


def test_tokenizer_from_the_training_texts_pads_the_rows():
    texts = [table(PAIR, 50)[name] for name in PAIR.columns]
    settings = TeacherSettings(model="config", config=TINY, vocab_size=60, max_length=32)
    tokenizer = prepare_encoder(settings, PAIR, texts, QuietReporter()).tokenizer
    ids = tokenizer("A [MASK] film ##m", "Great!")
    assert len(tokenizer) <= 60
    pieces = ["[CLS]", "a", "[MASK]", "film", "[UNK]", "[UNK]", "m", "[SEP]", "great", "[UNK]", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(ids["input_ids"]) == pieces
    assert ids["token_type_ids"] == [0] * 8 + [1] * 3
    assert (tokenizer.pad_token_id, tokenizer.mask_token) == (0, "[MASK]")
    assert prepare_encoder(settings, PAIR, texts, QuietReporter()).tokenizer.get_vocab() == tokenizer.get_vocab()
    texts = table(PAIR, 30)
    columns = [texts["sentence1"], texts["sentence2"]]
    settings = TeacherSettings(model="config", config=TINY, max_length=12)
    encoder = prepare_encoder(settings, PAIR, columns, QuietReporter())
    rows = encoder.encode(texts.select(PAIR.columns), np.arange(30), QuietReporter())
    chosen = [4, 1, 17]
    how = {"truncation": True, "max_length": 12, "padding": True, "return_tensors": "pt"}
    expected = encoder.tokenizer(*([column[row] for row in chosen] for column in columns), **how)
    batch = rows.batch(chosen)
    assert batch.keys() == {*expected.keys(), "labels"}
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert batch["labels"].tolist() == chosen
