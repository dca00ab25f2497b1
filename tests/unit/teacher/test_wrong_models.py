"""Models that cannot be a teacher: what is wrong, in which file and key, and what to do."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hostile import Hostile
from made_teacher import rewrite
from raising import raising
from safetensors.torch import load_file, save_file

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.teacher.model import TeacherSource

TEXTS = ["a good film", "", "bad", "the plot is dull but the actors not"]


def load(folder, task, **how):
    return TeacherSource(str(folder), max_length=32).load(task, **how)


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


def test_a_head_that_is_not_in_the_weights_is_an_error(tiny_teacher, films):
    folder = tiny_teacher(model_class=transformers.BertModel)
    for architectures in (None, ["BertForSequenceClassification"]):
        rewrite(folder, architectures=architectures)
        with raising(DataError, r"classifier\.(bias|weight)", hint="teacher.train = true"):
            load(folder, films)


def test_a_model_of_no_text_is_an_error(tiny_teacher, films):
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
    assert np.isfinite(teacher.logits([TEXTS[:3]])).all()
    with raising(DataError, file=folder, hint=("--precision", "weights")):
        teacher.logits([TEXTS])


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
