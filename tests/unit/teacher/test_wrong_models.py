"""Models that cannot be a teacher: what is wrong, in which file and key, and what to do."""

import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForTokenClassification,
    BertModel,
    GPT2LMHeadModel,
    T5ForConditionalGeneration,
    ViTConfig,
)

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.teacher.model import TeacherSource

TEXTS = ["a good film", "", "bad", "the plot is dull but the actors not"]


def load(folder, task, **how):
    return TeacherSource(str(folder), max_length=32).load(task, **how)


def rewrite(folder, name="config.json", **values):
    path = folder / name
    content = {key: value for key, value in (json.loads(path.read_text()) | values).items() if value is not ...}
    path.write_text(json.dumps(content))


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
    "model_class", [BertModel, BertForMaskedLM, BertForTokenClassification, GPT2LMHeadModel, T5ForConditionalGeneration]
)
def test_a_model_without_a_head_is_an_error_that_names_what_it_is(tiny_teacher, films, model_class):
    folder = tiny_teacher()
    small = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "d_kv": 8}
    model_class(model_class.config_class(**small, d_ff=16, intermediate_size=16)).save_pretrained(folder)
    rewrite(folder, "tokenizer_config.json", pad_token=None)  # the head is what matters
    with pytest.raises(DataError, match=model_class.__name__) as caught:
        load(folder, films)
    assert (caught.value.file, caught.value.key) == (str(folder / "config.json"), "architectures")
    assert "teacher.train = true" in caught.value.hint and "ForSequenceClassification" in caught.value.hint


def test_a_head_that_is_not_in_the_weights_is_an_error(tiny_teacher, films):
    folder = tiny_teacher(model_class=BertModel)
    for architectures in (None, ["BertForSequenceClassification"]):
        rewrite(folder, architectures=architectures)
        with pytest.raises(DataError, match=r"classifier\.(bias|weight)") as caught:
            load(folder, films)
        assert "teacher.train = true" in caught.value.hint


def test_a_model_of_no_text_is_an_error(tiny_teacher, films):
    folder = tiny_teacher()
    ViTConfig().save_pretrained(folder)
    with pytest.raises(DataError, match="vit") as caught:
        load(folder, films)
    assert (caught.value.exit_code, caught.value.key) == (4, "architectures")


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


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
    word = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("dull")
    weights["bert.embeddings.word_embeddings.weight"][word] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    teacher = load(folder, films)
    assert np.isfinite(teacher.logits([TEXTS[:3]])).all()
    with pytest.raises(DataError, match="'the plot is dull but the actors not' are not finite") as caught:
        teacher.logits([TEXTS])
    assert (caught.value.exit_code, caught.value.file) == (4, str(folder))
    assert "--precision" in caught.value.hint and "weights" in caught.value.hint


def test_a_folder_without_a_tokenizer_is_an_error(tiny_teacher, films):
    folder = tiny_teacher()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(DataError, match="tokenizer") as caught:
        load(folder, films)
    assert (caught.value.exit_code, caught.value.file) == (4, str(folder))
    assert "tokenizer.json" in caught.value.hint


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_teacher_of_sets_of_labels_is_for_such_a_task_alone(tiny_teacher, films, multi_label):
    folder, metric = tiny_teacher(), "micro_f1" if multi_label else "accuracy"
    task = replace(films, multi_label=multi_label, metric=metric)
    rewrite(folder, problem_type="single_label_classification" if multi_label else "multi_label_classification")
    with pytest.raises(DataError) as caught:
        load(folder, task)
    assert (caught.value.file, caught.value.key) == (str(folder), "task.multi_label")
    for problem in ("multi_label_classification" if multi_label else "single_label_classification", None):
        rewrite(folder, problem_type=problem)
        assert load(folder, task).logits([["a text"]]).shape == (1, task.outputs)


def test_several_scores_are_refused(tiny_teacher, films):
    folder = tiny_teacher()
    rewrite(folder, problem_type="regression")
    with pytest.raises(DataError) as caught:
        load(folder, films)
    assert (caught.value.file, caught.value.key) == (str(folder / "config.json"), "problem_type")
    assert "remove problem_type" in caught.value.hint
