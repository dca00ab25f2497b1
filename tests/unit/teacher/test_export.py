from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from raising import raising
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer
from xxhash import xxh3_64_intdigest

from kdcli.api import Task
from kdcli.config.schema import ExportSettings, StudentSettings
from kdcli.errors import DataError, KdError, UsageError
from kdcli.student.dataset import Examples, encode, load_examples
from kdcli.student.train import train_student
from kdcli.student.vocabulary import load_tokenizer
from kdcli.teacher import export
from kdcli.teacher.export import export_logits
from kdcli.teacher.join import join
from kdcli.teacher.logits import read_logits
from kdcli.teacher.model import Teacher, TeacherSource

TEXTS = [
    *("a good film ", "bad", "it was great", "a good film", "the plot is dull but the actors not", "bad", ""),
    *("very very very very good", "not", "film and film and film", "bad", "it is a good plot", "[MASK] film", "boring"),
]
DISTINCT = list(dict.fromkeys(TEXTS))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(export, "PART_ROWS", 4)


@pytest.fixture
def transfer(tmp_path):
    rows = "".join(f"{text}\t{'original' if row < 3 else 'lite'}\t\n" for row, text in enumerate(TEXTS))
    (tmp_path / "transfer.tsv").write_text("sentence\tsource\tlabel\n" + rows)
    return tmp_path / "transfer.tsv"


@pytest.fixture
def run(tmp_path, transfer, tiny_teacher, films, notes):
    """Return a function that exports, to ``logits.safetensors`` unless told otherwise."""
    folder = tiny_teacher()

    def run(output="logits.safetensors", *, batch_size=4, teacher=folder, max_length=32, **changes):
        source, settings = TeacherSource(str(teacher), max_length=max_length), ExportSettings(batch_size=batch_size)
        arguments = {"transfer": transfer, "teacher": source, "task": films, "settings": settings, "device": "cpu"}
        arguments |= {"precision": "fp32", "output": tmp_path / output, "reporter": notes}
        return export_logits(**{**arguments, **changes})

    run.folder = folder
    return run


def test_logits_of_each_distinct_text_in_order(run, tmp_path, films, transfer):
    result = run()
    tensors = load_file(tmp_path / "logits.safetensors")
    by_hand = [xxh3_64_intdigest(text.encode()) for text in DISTINCT]
    teacher = TeacherSource(str(run.folder), max_length=32).load(films)
    assert tensors["row_hash"].tolist() == by_hand
    assert np.abs(tensors["logits"] - np.concatenate([teacher.logits([[text]]) for text in DISTINCT])).max() < 1e-5
    assert (result.rows, result.distinct, result.batch_size) == (len(TEXTS), len(DISTINCT), 4)
    assert result.parameters == teacher.parameters
    metadata = read_logits(tmp_path / "logits.safetensors", films).metadata
    assert len(metadata["teacher_sha256"]) == 64 and metadata["kd"]
    own = {"format": "kd.logits/2", "labels": ["0", "1"], "rows": len(TEXTS), "max_length": 32, "precision": "fp32"}
    own |= {"transfer_sha256": sha256(transfer.read_bytes()).hexdigest(), "teacher": str(run.folder)}
    assert {name: metadata[name] for name in own} == own


@pytest.mark.parametrize(("batch_size", "rows"), [(1, 4), (3, 5), (128, 100), ("auto", 1)])
def test_order_and_values_do_not_depend_on_batches_and_parts(run, tmp_path, monkeypatch, batch_size, rows):
    run("one.safetensors")
    monkeypatch.setattr(export, "PART_ROWS", rows)
    run("two.safetensors", batch_size=batch_size)
    one, two = (load_file(tmp_path / name) for name in ("one.safetensors", "two.safetensors"))
    assert np.array_equal(one["row_hash"], two["row_hash"])
    assert np.abs(one["logits"] - two["logits"]).max() < 1e-5


def test_answers_that_are_known_are_not_asked_for_again(run, tmp_path, monkeypatch, tiny_teacher):
    pl.DataFrame({"sentence": TEXTS[3:8]}).write_parquet(tmp_path / "few.parquet")
    known, cut = tmp_path / "known.safetensors", {"max_length": 6}
    before = run("known.safetensors", transfer=tmp_path / "few.parquet", represent=True, **cut)
    whole = run("whole.safetensors", represent=True, **cut)
    read, represent = [], Teacher.represent

    def counted(self, columns, *rest, **how):
        read.extend(columns[0])
        return represent(self, columns, *rest, **how)

    monkeypatch.setattr(Teacher, "represent", counted)
    result = run(known=known, represent=True, **cut)
    tried = {"a", *("a " * words for words in (1, 6))}  # for the size, and what the longest input needs
    assert set(read) - tried == set(DISTINCT) - set(TEXTS[3:8])
    assert (result.distinct, result.cut) == (whole.distinct, whole.cut) and 0 < before.cut < whole.cut
    found, wanted = (load_file(tmp_path / name) for name in ("logits.safetensors", "whole.safetensors"))
    order, other = (np.argsort(each["row_hash"]) for each in (found, wanted))
    for name, close in (("row_hash", 0), ("logits", 1e-5), ("representation", 1e-2)):
        assert np.abs(found[name][order].astype(float) - wanted[name][other].astype(float)).max() <= close
    read.clear()
    run("again.safetensors", known=known, transfer=tmp_path / "few.parquet", represent=True, **cut)
    assert set(read) <= tried
    for other in ({"teacher": tiny_teacher("other", labels=("1", "0"))}, {"represent": False}, {"max_length": 32}):
        read.clear()
        run("other.safetensors", known=known, **{"represent": True, **cut, **other})
        assert set(read) >= set(DISTINCT)


def test_parts_made_otherwise_are_thrown_away_and_said(run, tmp_path, notes, monkeypatch):
    run("other.safetensors", precision="bf16")
    seen, represent = [], Teacher.represent

    def killed(self, columns, batch, **how):
        seen.append(batch)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return represent(self, columns, batch, **how)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Teacher, "represent", killed)
        run()
    run(precision="bf16")
    assert any("precision changed (fp32 -> bf16)" in warning for warning in notes.warnings)
    assert (tmp_path / "logits.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()


def test_precision_of_this_stage_alone(run, tmp_path):
    assert run(settings=ExportSettings(precision="bf16")).precision == "bf16"
    run("fp32.safetensors")
    half, full = (load_file(tmp_path / name)["logits"] for name in ("logits.safetensors", "fp32.safetensors"))
    assert half.dtype == np.float32 and 0 < np.abs(half - full).max() < 0.5


def test_auto_batch_size_is_halved_when_memory_does_not_suffice(run, tmp_path, films, notes, monkeypatch):
    represent = Teacher.represent

    def tight(self, columns, batch, **how):
        if batch > 2 and len(columns[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return represent(self, columns, batch, **how)

    monkeypatch.setattr(Teacher, "represent", tight)
    monkeypatch.setattr(export, "BATCH", 8)
    assert run(batch_size="auto").batch_size == 2
    assert read_logits(tmp_path / "logits.safetensors", films).metadata["batch_size"] == 2
    assert any("memory ran out" in warning for warning in notes.warnings)
    with raising(KdError, "not enough memory for 4 texts", hint="auto"):
        run("two.safetensors", batch_size=4)
    run("three.safetensors", batch_size=2)
    two, three = (load_file(tmp_path / name)["logits"] for name in ("logits.safetensors", "three.safetensors"))
    assert np.array_equal(two, three)


def test_largest_batch_is_looked_for_where_memory_is_the_devices(films):
    asked = []

    def logits(columns, batch):
        asked.append((len(columns), len(columns[0]), len(columns[0][0].split()), batch))
        if batch > 200:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return np.zeros((len(columns[0]), 2), np.float32)

    model = SimpleNamespace(task=films, loaded=SimpleNamespace(max_length=64), logits=logits)
    assert export._largest_batch(model, "cuda") == 128
    assert asked == [(1, 512, 64, batch) for batch in (512, 256, 128)]


def test_bad_input(run, tmp_path):
    for table, says, row in (
        (pl.DataFrame(schema={"sentence": pl.String, "source": pl.String}), "no rows", None),
        (pl.DataFrame({"text": ["bad"]}), "no column 'sentence'", None),
        (pl.DataFrame({"sentence": ["good", None]}), "no text", 2),
    ):
        table.write_parquet(tmp_path / "bad.parquet")
        with raising(DataError, says, row=row):
            run(transfer=tmp_path / "bad.parquet")
    with pytest.raises(UsageError, match=r"\.safetensors"):
        run("logits.npy")
    assert not (tmp_path / "logits.safetensors").exists()


SIX = ["a good film", "bad", "it was great", "a good film", "the plot is dull but the actors not", "[MASK] film"]


@pytest.fixture
def exported(tmp_path, tiny_teacher, films):
    """Export logits and representations; return the folder of the teacher and the files."""
    folder, transfer, logits = tiny_teacher(), tmp_path / "transfer.txt", tmp_path / "logits.safetensors"
    transfer.write_text("\n".join(SIX) + "\n")
    how = {"settings": ExportSettings(batch_size=3), "device": "cpu", "precision": "fp32", "represent": True}
    source = TeacherSource(str(folder), max_length=32)
    export_logits(transfer=transfer, teacher=source, task=films, output=logits, **how)
    return folder, transfer, logits


def hidden_means(folder, texts):
    """Average the last hidden states of each text alone, ``[texts, hidden]``."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return np.stack([model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts])


@pytest.fixture
def encoded(exported, films, tmp_path):
    """Join what is exported, and encode it; return the folder and what came of it."""
    _, transfer, logits = exported
    join(transfer=transfer, logits=logits, task=films, output=tmp_path / "joined.parquet")
    how = {"task": films, "settings": StudentSettings(), "seed": 1, "output": tmp_path / "encoded"}
    return tmp_path / "encoded", encode(joined=tmp_path / "joined.parquet", **how)


def test_they_follow_their_texts_from_the_teacher_to_the_student(exported, encoded, films, tmp_path):
    folder, transfer, logits = exported
    written = load_file(logits)["representation"]
    expected = hidden_means(folder, list(dict.fromkeys(SIX)))
    assert written.dtype == np.float16
    np.testing.assert_allclose(written, expected, atol=2e-3 * np.abs(expected).max())  # float16 has 11 bits
    examples = load_examples(encoded[0], films)
    assert encoded[1].representation == written.shape[1]
    assert (examples.states == written[[list(dict.fromkeys(SIX)).index(text) for text in SIX]]).all()
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


def test_a_student_learns_them_and_keeps_nothing_of_it(encoded, films, tmp_path):
    how = {"epochs": 40, "kd_weight": 1.0, "lr": 0.01}
    learned = train(tmp_path / "student", encoded[0], films, repr_weight=1.0, **how)
    train(tmp_path / "without", encoded[0], films, **how)
    assert learned.history[-1]["loss"] < learned.history[0]["loss"] / 2
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("student", "without"))
    assert weights.keys() == others.keys()
    assert any((weights[name] != others[name]).any() for name in weights)


def test_the_loss_is_that_of_standardised_values():
    from kdcli.student.optimize import Representation

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


def test_what_has_none_is_said(exported, encoded, films, tmp_path):
    pl.read_parquet(tmp_path / "joined.parquet").drop("representation").write_parquet(tmp_path / "plain.parquet")
    encode(joined=tmp_path / "plain.parquet", task=films, settings=StudentSettings(), seed=1, output=tmp_path / "e")
    with raising(KdError, key="student.repr_weight"):
        train(tmp_path / "student", tmp_path / "e", films, repr_weight=1.0)
    teacher = TeacherSource(str(exported[0]), max_length=32).load(Task("films", "single", films.labels, films.names))
    teacher.loaded = type("Plain", (), {"cut": 0, "labels": teacher.loaded.labels})()
    with raising(DataError, hint="student.repr_weight"):
        teacher.represent([["a"]])
