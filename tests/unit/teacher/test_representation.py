"""The teacher's representations from its hidden states to the student's training."""

import numpy as np
import polars as pl
import pytest
import torch
from raising import raising
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

from kdcli.api import Task
from kdcli.config.schema import ExportSettings, StudentSettings
from kdcli.errors import DataError, KdError
from kdcli.student.dataset import Examples, encode, load_examples
from kdcli.student.train import train_student
from kdcli.student.vocabulary import load_tokenizer
from kdcli.teacher.export import export_logits
from kdcli.teacher.join import join
from kdcli.teacher.model import TeacherSource

TEXTS = ["a good film", "bad", "it was great", "a good film", "the plot is dull but the actors not", "[MASK] film"]


@pytest.fixture
def exported(tmp_path, tiny_teacher, films):
    """Export logits and representations; return the folder of the teacher and the files."""
    folder, transfer, logits = tiny_teacher(), tmp_path / "transfer.txt", tmp_path / "logits.safetensors"
    transfer.write_text("\n".join(TEXTS) + "\n")
    how = {"settings": ExportSettings(batch_size=3), "device": "cpu", "precision": "fp32", "represent": True}
    source = TeacherSource(str(folder), max_length=32)
    export_logits(transfer=transfer, teacher=source, task=films, output=logits, **how)
    return folder, transfer, logits


def hidden_means(folder, texts):
    """Average the last hidden states of each text alone, ``[texts, hidden]``."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return np.stack([model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts])


def test_they_follow_their_texts_from_the_teacher_to_the_student(exported, films, tmp_path):
    folder, transfer, logits = exported
    written = load_file(logits)["representation"]
    expected = hidden_means(folder, list(dict.fromkeys(TEXTS)))
    assert written.dtype == np.float16
    np.testing.assert_allclose(written, expected, atol=2e-3 * np.abs(expected).max())  # float16 has 11 bits
    join(transfer=transfer, logits=logits, task=films, output=tmp_path / "joined.parquet")
    result = encode(
        joined=tmp_path / "joined.parquet", task=films, settings=StudentSettings(), seed=1, output=tmp_path / "encoded"
    )
    examples = load_examples(tmp_path / "encoded", films)
    assert result.representation == written.shape[1]
    assert (examples.states == written[[list(dict.fromkeys(TEXTS)).index(text) for text in TEXTS]]).all()
    with raising(DataError, key="representation"):
        join(transfer=transfer, logits=logits, task=films, output=tmp_path / "joined.tsv")


def train(folder, encoded, task, examples=None, **settings):
    rows = load_examples(encoded, task)
    return train_student(
        examples=rows if examples is None else examples,
        dev=Examples(rows.texts, labels=rows.labels if rows.labels is not None else rows.logits.argmax(1)),
        tokenizer=load_tokenizer(encoded),
        vectors=None,
        task=task,
        settings=StudentSettings(optimizer="adam", batch_size=3, dimension=8, patience=0, **settings),
        options={"hidden": 8, "fc": 8},
        seed=1,
        output=folder,
    )


def test_a_student_learns_them_and_keeps_nothing_of_it(exported, films, tmp_path):
    _, transfer, logits = exported
    join(transfer=transfer, logits=logits, task=films, output=tmp_path / "joined.parquet")
    encode(joined=tmp_path / "joined.parquet", task=films, settings=StudentSettings(), seed=1, output=tmp_path / "e")
    how = {"epochs": 40, "kd_weight": 1.0, "lr": 0.01}
    learned = train(tmp_path / "student", tmp_path / "e", films, repr_weight=1.0, **how)
    train(tmp_path / "without", tmp_path / "e", films, **how)
    assert learned.history[-1]["loss"] < learned.history[0]["loss"] / 2
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("student", "without"))
    assert weights.keys() == others.keys()
    assert any((weights[name] != others[name]).any() for name in weights)


def test_the_loss_is_that_of_standardised_values(exported, films, tmp_path):
    from kdcli.student.representation import Representation

    states = np.random.default_rng(1).normal(3, 2, (50, 4)).astype(np.float16)
    module = torch.nn.Module()
    module.logits = torch.nn.Linear(5, 2)
    logits = np.random.default_rng(2).normal(1, 3, (50, 2)).astype(np.float32)
    head = Representation(module, states, logits)
    features = torch.randn(50, 5)
    module.logits(features)
    wanted = (states - states.astype(np.float64).mean(0)) / states.astype(np.float64).std(0)
    predicted = features.numpy() @ head.predict.weight.detach().numpy().T + head.predict.bias.detach().numpy()
    expected = ((predicted - wanted) ** 2).mean() * logits.astype(np.float64).var(0).mean()
    assert head.loss(torch.from_numpy(states)).item() == pytest.approx(expected, rel=1e-4)


def test_what_has_none_is_said(exported, films, tmp_path, tiny_teacher):
    _, transfer, logits = exported
    join(transfer=transfer, logits=logits, task=films, output=tmp_path / "joined.parquet")
    pl.read_parquet(tmp_path / "joined.parquet").drop("representation").write_parquet(tmp_path / "plain.parquet")
    encode(joined=tmp_path / "plain.parquet", task=films, settings=StudentSettings(), seed=1, output=tmp_path / "e")
    with raising(KdError, key="student.repr_weight"):
        train(tmp_path / "student", tmp_path / "e", films, repr_weight=1.0)
    teacher = TeacherSource(str(exported[0]), max_length=32).load(Task("films", "single", films.labels, films.names))
    teacher.loaded = type("Plain", (), {"cut": 0, "labels": teacher.loaded.labels})()
    with raising(DataError, hint="student.repr_weight"):
        teacher.represent([["a"]])
