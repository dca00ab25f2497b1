import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from made_student import KINDS, MAX_LENGTH, PAIR, SCORE, SINGLE, TEXTS, columns, make_student
from safetensors.numpy import load_file, save_file

import kdcli
from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.student import loaded
from kdcli.student.answers import Prediction, Score, predictions
from kdcli.student.folder import LoadedStudent
from kdcli.student.folder import load_student as load_module
from kdcli.student.loaded import FastStudent, load_student

each_kind = pytest.mark.parametrize("task", KINDS, ids=lambda task: f"{task.kind}-{task.outputs}")

PLAIN = "from kd_bilstm import Options, build\napi_version = 2\npairs = scores = True\n__all__ = ['Options', 'build']\n"


@each_kind
def test_logits_are_the_modules(tmp_path, task):
    folder = make_student(tmp_path / "student", task)
    fast, module = load_student(folder), load_module(folder)
    assert isinstance(fast, FastStudent) and isinstance(module, LoadedStudent)
    texts = columns(task, TEXTS * 20)  # more than are encoded one by one
    expected = module.logits(texts)
    assert expected.std() > 0.1
    logits = fast.logits(texts)
    assert logits.dtype == np.float32 and logits.shape == (len(TEXTS) * 20, task.outputs)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    for rows in (1, 3):
        part = [column[:rows] for column in texts]
        np.testing.assert_allclose(fast.logits(part), expected[:rows], rtol=0, atol=1e-5)
    assert fast.logits([[] for _ in task.columns]).shape == (0, task.outputs)


@each_kind
def test_batches_make_no_difference(tmp_path, task, monkeypatch):
    student = load_student(make_student(tmp_path / "student", task))
    texts = columns(task, TEXTS * 10)
    expected = student.logits(texts)
    sizes, compute = [], student.compute
    monkeypatch.setattr(loaded, "CELLS", 40)
    student = replace(student, compute=lambda words, lengths: sizes.append(words) or compute(words, lengths))
    np.testing.assert_allclose(student.logits(texts), expected, rtol=0, atol=1e-5)
    assert len(sizes) > 3
    assert all(len(words[0]) * max(column.shape[1] for column in words) <= 40 for words in sizes)


def test_attributes(tmp_path):
    folder = make_student(tmp_path / "student", SINGLE)
    student = load_student(str(folder))
    assert student.task == SINGLE
    assert student.config["max_length"] == MAX_LENGTH
    assert student.metrics["dev"]["accuracy"] == 0.75
    assert student.tokenizer.get_vocab_size() == student.config["vocabulary_size"]


def test_predictions_of_texts(tmp_path):
    student = kdcli.load_student(make_student(tmp_path / "student", SINGLE))
    found = student.predict(TEXTS)
    logits = student.logits([TEXTS]).astype(np.float64)
    probabilities = 1 / (1 + np.exp(logits[:, ::-1] - logits))  # of two classes, softmax is a sigmoid
    assert [list(each.probabilities) for each in found] == [["no", "yes"]] * len(TEXTS)
    np.testing.assert_allclose([list(each.probabilities.values()) for each in found], probabilities, atol=1e-7)
    assert [each.label for each in found] == [SINGLE.labels[number] for number in logits.argmax(1)]
    assert {each.label for each in found} == {"no", "yes"}
    assert student.predict(TEXTS[:1])[0].label == found[0].label
    assert student.predict([]) == []


def test_predictions_of_pairs(tmp_path):
    one, two = columns(PAIR)
    student = load_student(make_student(tmp_path / "student", PAIR))
    found = student.predict(list(zip(one, two, strict=True)))
    assert [each.label for each in found] == [PAIR.labels[number] for number in student.logits([one, two]).argmax(1)]
    assert all(sum(each.probabilities.values()) == pytest.approx(1) for each in found)


def test_scores_stay_in_their_range():
    logits = np.array([[-1.0], [2.5], [7.0]], np.float32)
    assert predictions(logits, SCORE) == [Score(0.0), Score(2.5), Score(5.0)]
    assert predictions(logits, Task("free", "single", ())) == [Score(-1.0), Score(2.5), Score(7.0)]


def test_probabilities_of_large_logits():
    (found,) = predictions(np.array([[1000.0, -1000.0]], np.float32), SINGLE)
    assert found == Prediction("no", {"no": 1.0, "yes": 0.0})


@pytest.mark.parametrize(
    ("task", "texts", "message"),
    [
        (SINGLE, "a text", "one text alone"),
        (SINGLE, ["good", None], "this is not a text: None .row 2."),
        (SINGLE, [("good", "bad")], "this is not a text"),
        (SINGLE, ["good", "bad", "\ud800"], r"this is not a text: '\\ud800' .row 3."),
        (PAIR, ["ab"], "this is not a pair of texts: 'ab' .row 1."),
        (PAIR, [("good", "bad", "dull")], "this is not a pair"),
        (PAIR, [("good", 3)], "this is not a pair"),
        (PAIR, [7], "this is not a pair"),
    ],
)
@pytest.mark.parametrize("load", [load_student, load_module])
def test_what_is_no_text_is_refused(tmp_path, task, texts, message, load):
    student = load(make_student(tmp_path / "student", task))
    with pytest.raises(DataError, match=message) as caught:
        student.predict(texts)
    assert "predict([" in caught.value.hint


def test_both_forms_predict_alike(tmp_path):
    folder = make_student(tmp_path / "student", PAIR)
    pairs = list(zip(*columns(PAIR), strict=True))
    fast, slow = (load(folder).predict(pairs) for load in (load_student, load_module))
    for one, two in zip(fast, slow, strict=True):
        assert one.label == two.label
        assert one.probabilities == pytest.approx(two.probabilities, abs=1e-5)


def test_a_plugin_without_fast_predicts_by_its_module(tmp_path, make_plugin):
    folder = make_student(tmp_path / "student", SINGLE)
    expected = load_student(folder).logits([TEXTS])
    make_plugin("kd-plain", "[kdcli.students]\nplain = plain_loaded\n", PLAIN, module="plain_loaded")
    change(folder / "config.json", plugin="plain")
    student = load_student(folder)
    assert isinstance(student, LoadedStudent)
    np.testing.assert_allclose(student.logits([TEXTS]), expected, rtol=0, atol=1e-5)


FILES = ["config.json", "labels.json", "metrics.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("load", [load_student, load_module])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", [None, "", "[1]", "\xff\xfe"])
def test_a_file_that_is_missing_or_no_such_file(tmp_path, file, content, load):
    folder = make_student(tmp_path / "student")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        load(folder)
    assert caught.value.file == str(folder / file)
    assert caught.value.hint


@pytest.mark.parametrize("load", [load_student, load_module])
@pytest.mark.parametrize("file", ["labels.json", "tokenizer.json", "model.safetensors"])
def test_another_students_file(tmp_path, file, load):
    folder = make_student(tmp_path / "student", SINGLE)
    other = make_student(tmp_path / "other", PAIR, hidden=7)
    change(other / "tokenizer.json", added_tokens=[])
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["more"] = len(tokenizer["model"]["vocab"])
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    (other / file).replace(folder / file)
    with pytest.raises(DataError) as caught:
        load(folder)
    assert caught.value.file == str(folder / file)
    assert "another student" in caught.value.hint


@pytest.mark.parametrize("load", [load_student, load_module])
@pytest.mark.parametrize("resize", [lambda rows: rows[:-1], lambda rows: np.concatenate([rows, rows[:1]])])
def test_weights_of_another_vocabulary(tmp_path, resize, load):
    folder = make_student(tmp_path / "student", SINGLE)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: resize(value) if "embedding" in name else value for name, value in weights.items()},
        folder / "model.safetensors",
    )
    with pytest.raises(DataError, match="the weights cannot be read"):
        load(folder)


def test_weights_of_another_number_of_labels(tmp_path):
    folder = make_student(tmp_path / "student", SINGLE)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: value[:1] if name.startswith("logits") else value for name, value in weights.items()},
        folder / "model.safetensors",
    )
    with pytest.raises(DataError, match="the task has 2"):
        load_student(folder)


def test_a_config_that_is_not_whole(tmp_path):
    folder = make_student(tmp_path / "student")
    change(folder / "config.json", task={"name": "toy"})
    with pytest.raises(DataError, match=r"config\.json is not whole"):
        load_student(folder)


def test_another_folder_is_no_student(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match="not a folder of a student"):
        load_student(tmp_path)


def test_no_torch_and_a_package_that_costs_nothing(tmp_path):
    folder = make_student(tmp_path / "student", SINGLE)
    code = (
        "import sys, kdcli\n"
        "costly = {'torch', 'transformers', 'scipy', 'sklearn', 'pandas'}\n"
        "print({*costly, 'numpy', 'pyarrow', 'pydantic', 'tokenizers'} & set(sys.modules))\n"
        f"print(len(kdcli.load_student({str(folder)!r}).predict(['a good film', 'bad'])))\n"
        "print(costly & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["set()", "2", "set()", ""]


def test_the_package_has_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'load_teacher'"):
        kdcli.load_teacher  # noqa: B018


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
