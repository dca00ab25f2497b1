import json
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings, strategies as st
from made_teacher import Hostile, raw_logits, rewrite
from notes import Notes
from raising import raising
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.teacher.logits import label_positions as positions
from kdcli.teacher.model import TeacherSource

SHARED = Path(__file__).resolve().parents[4] / "shared/data"
PAIR = Task("same", "pair", ("no", "yes"))
TEXTS = ["a good film", "", "bad", "the plot is dull but the actors not", "bad", "it was very very good", "xyz"]


alone = partial(raw_logits, max_length=32)


def load(folder, task, *, max_length=32, long_texts="cut", **how):
    return TeacherSource(str(folder), max_length=max_length, long_texts=long_texts).load(task, **how)


@pytest.mark.parametrize("batch", [1, 3, 128])
def test_logits_are_those_of_each_text_alone(tiny_teacher, films, batch):
    folder, shown = tiny_teacher(), Notes()
    got = load(folder, films, reporter=shown).logits([TEXTS], batch)
    assert (shown.total, shown.rows) == ((len(TEXTS), len(TEXTS)) if batch < len(TEXTS) else (None, 0))
    expected = alone(folder, TEXTS)
    assert got.dtype == np.float32 and got.shape == (7, 2)
    assert np.abs(got - expected).max() < 1e-5
    assert np.ptp(expected, axis=0).min() > 0.1  # the texts do differ


def test_logits_of_pairs_tell_first_from_second_with_token_types_or_without(tiny_teacher):
    folder = tiny_teacher(labels=("no", "yes"))
    columns = [TEXTS, TEXTS[::-1]]
    got = load(folder, PAIR).logits(columns, 2)
    assert np.abs(got - alone(folder, *columns)).max() < 1e-5
    assert np.abs(got - alone(folder, *columns[::-1])).max() > 0.1
    teacher = load(tiny_teacher(labels=("no", "yes"), type_vocab_size=1), PAIR)
    assert "token_type_ids" not in teacher.loaded.inputs
    assert np.isfinite(teacher.logits(columns)).all()


def test_mask_is_the_tokenizers_own(tiny_teacher, films):
    folder = tiny_teacher(mask="<mask>")
    got = load(folder, films).logits([["a [MASK] film", "a film"]])
    expected = alone(folder, ["a <mask> film", "a film"])
    assert np.abs(got - expected).max() < 1e-5
    assert np.abs(got[0] - alone(folder, ["a [MASK] film"])).max() > 0.1  # an unknown word, untranslated


def test_outputs_in_another_order_are_reordered_and_said(tiny_teacher, films, notes):
    folder = tiny_teacher(labels=("POSITIVE", "NEGATIVE"))
    got = load(folder, films, reporter=notes).logits([TEXTS])
    assert np.abs(got - alone(folder, TEXTS)[:, ::-1]).max() < 1e-5
    assert any("another order (POSITIVE, NEGATIVE)" in warning for warning in notes.warnings)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["a", "b", "c", "not_a", "not a"]), max_size=4))
def test_positions_match_once_each_or_not_at_all(found):
    order = positions(found, Task("t", "single", ("a", "b")))
    assert (order is not None) == (found.count("a") == 1 and found.count("b") == 1)


def test_stored_half_precision_is_raised_to_the_one_asked_for(tiny_teacher, films):
    folder = tiny_teacher(dtype=torch.float16)
    stored = load_file(folder / "model.safetensors")
    teacher = load(folder, films)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert {parameter.dtype for parameter in teacher.loaded.model.parameters()} == {torch.float32}
    for name, parameter in teacher.loaded.model.named_parameters():
        assert torch.equal(parameter, stored[name].float())


def test_counts_and_sizes_also_of_weights_of_the_d_bert_era(tiny_teacher, films):
    folder = tiny_teacher()
    teacher = load(folder, films)
    tensors = load_file(folder / "model.safetensors")
    tables = [name for name in tensors if name.endswith("_embeddings.weight")]
    assert len(tables) == 3
    assert teacher.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert teacher.parameters - teacher.parameters_without_embeddings == sum(tensors[name].numel() for name in tables)
    assert teacher.megabytes == (folder / "model.safetensors").stat().st_size / 1e6
    expected = alone(folder, TEXTS)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    teacher = load(folder, films)
    assert np.abs(teacher.logits([TEXTS]) - expected).max() < 1e-5
    assert teacher.megabytes == (folder / "pytorch_model.bin").stat().st_size / 1e6


@pytest.mark.parametrize("long_texts", ["cut", "mean"])
def test_the_positions_decide_where_a_tokenizer_has_no_limit(tiny_teacher, films, long_texts):
    folder = tiny_teacher()
    for limit in (1e30, None):
        rewrite(folder, "tokenizer_config.json", model_max_length=limit)
        teacher = load(folder, films, max_length=0, long_texts=long_texts)
        assert teacher.loaded.max_length == 32
        assert np.isfinite(teacher.logits([["good bad " * 100, "good"]])).all()
        assert teacher.read == {"texts": 2, "cut": 1}


@pytest.mark.skipif(not SHARED.exists(), reason="the data beside the repository is not there")
def test_a_real_teacher_is_right_and_does_not_depend_on_batches(films):
    lines = (SHARED / "glue/SST-2/dev.tsv").read_text("utf-8").splitlines()[1:41]
    texts, gold = zip(*(line.split("\t") for line in lines), strict=True)
    teacher = load(SHARED / "teacher-sst2", films, max_length=128)
    logits = teacher.logits([texts])
    assert (logits.argmax(1) == np.array(gold, int)).mean() > 0.8
    assert np.abs(logits - teacher.logits([texts], 3)).max() < 1e-4


@pytest.mark.parametrize(
    ("id2label", "label2id", "order"),
    [
        (..., {"positive": 0, "negative": 1}, [1, 0]),
        ({"0": "LABEL_0", "1": "LABEL_1"}, {"positive": 0, "negative": 1}, [1, 0]),
        ({"0": "positive", "1": "negative"}, ..., [1, 0]),
        ({"0": "positive", "1": "negative"}, {"LABEL_0": 0, "LABEL_1": 1}, [1, 0]),
        ({"0": "positive", "1": "negative"}, {"negative": 0, "positive": 1}, None),
    ],
)
def test_label_names_come_from_either_of_two_places(tiny_teacher, films, id2label, label2id, order):
    folder = tiny_teacher()
    plain = load(folder, films).logits([TEXTS])
    rewrite(folder, id2label=id2label, label2id=label2id)
    if order is None:
        with raising(DataError, key="label2id", file=folder / "config.json"):
            load(folder, films)
    else:
        np.testing.assert_array_equal(load(folder, films).logits([TEXTS]), plain[:, order])


@pytest.mark.parametrize("labels", [("negative", "positive"), ("relevance",)])
def test_the_logits_are_those_of_the_head_whatever_a_training_wrote(tiny_teacher, films, labels):
    """A forward pass with labels writes problem_type, by which the library's pipeline chooses its function."""
    folder = tiny_teacher(labels=labels)
    task = films if len(labels) == 2 else Task("relevance", "single", (), score_range=(0, 1), metric="pearson")
    plain = load(folder, task).logits([TEXTS])
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    kind = torch.long if len(labels) == 2 else torch.float
    model(input_ids=torch.tensor([[2, 5, 3]]), labels=torch.ones(1, dtype=kind))
    model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())["problem_type"]
    assert written == ("single_label_classification" if len(labels) == 2 else "regression")
    teacher = load(folder, task)
    assert teacher.loaded.labels == (labels if len(labels) == 2 else ())
    np.testing.assert_array_equal(teacher.logits([TEXTS]), plain)
    assert plain.shape == (len(TEXTS), len(labels)) and (plain < 0).any() and (abs(plain) > 1).any()


def test_the_limit_is_the_models_own_and_texts_that_are_cut_are_counted(tiny_teacher, films, notes):
    folder = tiny_teacher()
    texts = ["good " * words for words in (1, 29, 30, 31, 100)]
    whole = load(folder, films, max_length=0)
    assert whole.loaded.max_length == 32
    np.testing.assert_allclose(whole.logits([texts]), alone(folder, texts), atol=1e-5)
    assert whole.read == {"texts": 5, "cut": 2}
    whole.warn_of_cuts(notes)
    assert len(notes.warnings) == 1 and "2 of 5" in notes.warnings[0]
    pairs = load(folder, PAIR.__class__("p", "pair", ("negative", "positive")), max_length=8)
    pairs.logits([["good"] * 3, ["bad " * words for words in (3, 4, 5)]])
    assert pairs.read == {"texts": 3, "cut": 1}


def test_a_tokenizer_of_another_model_shows_before_the_work(tiny_teacher, films):
    folder = tiny_teacher()
    rewrite(folder, "tokenizer_config.json", model_max_length=64)
    rewrite(folder, max_position_embeddings=32)
    teacher = load(folder, films)
    teacher.loaded.model.bert.embeddings.position_embeddings = torch.nn.Embedding(8, 16)
    with raising(DataError, key="teacher.max_length"):
        teacher.try_out()


FILMS = ["a good film", "", "bad", "the plot is dull but the actors not"]


@pytest.mark.parametrize(
    ("labels", "task", "what"),
    [
        (("happy", "sad"), Task("f", "single", ("0", "1"), ("negative", "positive")), "not the task's"),
        (("LABEL_1", "LABEL_0"), Task("f", "single", ("0", "1")), "not the task's"),
        (("negative", "neutral", "positive"), Task("f", "single", ("negative", "positive")), "3 outputs"),
        (("negative", "positive"), Task("f", "single", (), metric="pearson"), "2 outputs"),
    ],
)
def test_labels_of_another_task_are_an_error(tiny_teacher, labels, task, what):
    with pytest.raises(DataError, match=what):
        load(tiny_teacher(labels=labels), task)


@pytest.mark.parametrize(
    "model_class",
    [
        transformers.BertModel,
        transformers.BertForMaskedLM,
        transformers.BertForTokenClassification,
        transformers.GPT2LMHeadModel,
        transformers.T5ForConditionalGeneration,
    ],
)
def test_a_model_without_a_head_is_an_error_that_names_what_it_is(tiny_teacher, films, model_class):
    folder = tiny_teacher()
    small = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "d_kv": 8}
    model_class(model_class.config_class(**small, d_ff=16, intermediate_size=16)).save_pretrained(folder)
    rewrite(folder, "tokenizer_config.json", pad_token=None)  # the head is what matters
    with raising(DataError, key="architectures", file=folder / "config.json"):
        load(folder, films)


def test_a_head_that_is_not_in_the_weights_and_a_model_of_no_text(tiny_teacher, films):
    folder = tiny_teacher(model_class=transformers.BertModel)
    for architectures in (None, ["BertForSequenceClassification"]):
        rewrite(folder, architectures=architectures)
        with raising(DataError, r"classifier\.(bias|weight)", hint="teacher.train = true"):
            load(folder, films)
    folder = tiny_teacher()
    transformers.ViTConfig().save_pretrained(folder)
    with raising(DataError, "vit", key="architectures"):
        load(folder, films)


def test_pickled_code_in_weights_is_refused(tiny_teacher, films, tmp_path):
    folder = tiny_teacher()
    (folder / "model.safetensors").unlink()
    for save in (lambda value, file: file.write(pickle.dumps(value)), torch.save):
        with (folder / "pytorch_model.bin").open("wb") as file:
            save({"weight": Hostile(tmp_path / "ran")}, file)
        with pytest.raises(DataError, match="cannot be read"):
            load(folder, films)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error(tiny_teacher, films, value):
    folder = tiny_teacher()
    weights = load_file(folder / "model.safetensors")
    word = transformers.AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("dull")
    weights["bert.embeddings.word_embeddings.weight"][word] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    teacher = load(folder, films)
    assert np.isfinite(teacher.logits([FILMS[:3]])).all()
    with raising(DataError, file=folder, hint=("--precision", "weights")):
        teacher.logits([FILMS])


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_teacher_of_sets_of_labels_is_for_such_a_task_alone(tiny_teacher, films, multi_label):
    folder, metric = tiny_teacher(), "micro_f1" if multi_label else "accuracy"
    task = replace(films, multi_label=multi_label, metric=metric)
    rewrite(folder, problem_type="single_label_classification" if multi_label else "multi_label_classification")
    with raising(DataError, key="task.multi_label", file=folder):
        load(folder, task)
    for problem in ("multi_label_classification" if multi_label else "single_label_classification", None):
        rewrite(folder, problem_type=problem)
        assert load(folder, task).logits([["a text"]]).shape == (1, task.outputs)


def test_several_scores_are_refused(tiny_teacher, films):
    folder = tiny_teacher()
    rewrite(folder, problem_type="regression")
    with raising(DataError, key="problem_type", file=folder / "config.json", hint="remove problem_type"):
        load(folder, films)
