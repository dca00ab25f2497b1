import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch as torch_library
from made_student import KINDS, PAIR, SCORE, SINGLE, TEXTS, columns, make_student
from made_teacher import rewrite
from raising import raising
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as torch_save

import kdcli
from kdcli import registry
from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.models.inference import Cores, read_weights
from kdcli.student import vocabulary
from kdcli.student.student import load_student
from kdcli.tasks.answers import Prediction, Score, predictions

each_kind = pytest.mark.parametrize("task", KINDS, ids=lambda task: f"{task.kind}-{task.outputs}")
each_form = pytest.mark.parametrize("torch", [False, True], ids=["numpy", "torch"])


@each_kind
def test_logits_are_the_modules_and_batches_make_no_difference(tmp_path, task, monkeypatch):
    folder = make_student(tmp_path / "student", task)
    fast, module = load_student(folder), load_student(folder, torch=True)
    assert fast.compute is not None and module.compute is None
    texts = columns(task, TEXTS * 20)  # more than are encoded one by one
    expected = module.logits(texts)
    assert expected.std() > 0.1
    logits = fast.logits(texts)
    assert logits.dtype == np.float32 and logits.shape == (len(TEXTS) * 20, task.outputs)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    for rows in (1, 3):
        part = [column[:rows] for column in texts]
        for student in (fast, module):
            np.testing.assert_allclose(student.logits(part), expected[:rows], rtol=0, atol=1e-5)
    assert fast.logits([[] for _ in task.columns]).shape == (0, task.outputs)
    sizes = {name: value.size for name, value in fast.weights.items()}
    inside = sum(size for name, size in sizes.items() if not name.startswith("embedding."))
    assert (fast.parameters, fast.parameters_without_embeddings) == (sum(sizes.values()), inside)
    asked, compute = [], fast.compute
    fast.compute = lambda words, lengths: asked.append(words) or compute(words, lengths)
    monkeypatch.setattr(vocabulary, "CELLS", 40)
    np.testing.assert_allclose(fast.logits(texts), expected, rtol=0, atol=1e-5)
    assert len(asked) > 3
    assert all(len(words[0]) * max(column.shape[1] for column in words) <= 40 for words in asked)
    asked.clear()
    fast.batch_rows = 7
    np.testing.assert_allclose(fast.logits(texts), expected, rtol=0, atol=1e-5)
    assert {len(words[0]) for words in asked} <= {7, 200 % 7}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_student_is_saved_again_and_a_folder_of_format_1_is_read(tmp_path):
    folder = make_student(tmp_path / "student", SINGLE)
    student = load_student(str(folder))
    assert student.task == SINGLE and student.config["format"] == "kd.student/2"
    student.save(tmp_path / "again")
    assert contents(folder) == contents(tmp_path / "again")
    expected = student.logits([TEXTS])
    rewrite(folder / "config.json", format="kd.student/1")
    (folder / "labels.json").write_text('{"labels": ["no", "yes"], "names": ["bad", "good"]}')
    assert np.array_equal(load_student(folder).logits([TEXTS]), expected)
    rewrite(folder / "config.json", format="kd.student/3")
    with raising(DataError, hint=("kd.student/3", "kd.student/2")):
        load_student(folder)


def test_what_float16_holds_takes_half_the_bytes(tmp_path):
    student = load_student(make_student(tmp_path / "student"))
    tables = [name for name in student.weights if name.startswith("embedding.")]
    narrow = {name: student.weights[name].astype(np.float16) for name in tables}
    student.weights = {**student.weights, **{name: value.astype(np.float32) for name, value in narrow.items()}}
    student.save(tmp_path / "narrow")
    stored = load_file(tmp_path / "narrow" / "model.safetensors")
    assert {name for name, value in stored.items() if value.dtype == np.float16} == set(tables)
    found = load_student(tmp_path / "narrow")
    assert all(np.array_equal(value, student.weights[name]) for name, value in found.weights.items())
    assert {value.dtype for value in found.weights.values()} == {np.dtype(np.float32)}
    expected = load_student(tmp_path / "narrow", torch=True).logits([TEXTS])
    np.testing.assert_allclose(found.logits([TEXTS]), expected, rtol=0, atol=1e-5)


def test_predictions_of_texts(tmp_path):
    student = kdcli.load_student(make_student(tmp_path / "student", SINGLE))
    assert isinstance(student, kdcli.Student)
    found = student.predict(TEXTS)
    logits = student.logits([TEXTS]).astype(np.float64)
    probabilities = 1 / (1 + np.exp(logits[:, ::-1] - logits))  # of two classes, softmax is a sigmoid
    assert [list(each.probabilities) for each in found] == [["no", "yes"]] * len(TEXTS)
    np.testing.assert_allclose([list(each.probabilities.values()) for each in found], probabilities, atol=1e-7)
    assert [each.label for each in found] == [SINGLE.labels[number] for number in logits.argmax(1)]
    assert {each.label for each in found} == {"no", "yes"}
    assert student.predict([]) == []
    assert predictions(np.array([[1000.0, -1000.0]], np.float32), SINGLE) == [Prediction("no", {"no": 1.0, "yes": 0.0})]
    logits = np.array([[-1.0], [2.5], [7.0]], np.float32)
    assert predictions(logits, SCORE) == [Score(0.0), Score(2.5), Score(5.0)]
    assert predictions(logits, Task("free", "single", ())) == [Score(-1.0), Score(2.5), Score(7.0)]


@pytest.mark.parametrize(
    ("task", "texts", "row"),
    [
        (SINGLE, "a text", None),
        (SINGLE, ["good", None], 2),
        (SINGLE, [("good", "bad")], 1),
        (SINGLE, ["good", "bad", "\ud800"], 3),
        (PAIR, ["ab"], 1),
        (PAIR, [("good", "bad", "dull")], 1),
    ],
)
def test_values_that_are_no_texts_are_refused(tmp_path, task, texts, row):
    student = load_student(make_student(tmp_path / "student", task))
    with raising(DataError, row=row, hint="predict(["):
        student.predict(texts)


@each_form
@pytest.mark.parametrize("file", ["config.json", "metrics.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_is_missing(tmp_path, file, torch):
    folder = make_student(tmp_path / "student")
    (folder / file).unlink()
    with raising(DataError, file=folder / file, hint=True):
        load_student(folder, torch=torch)


@each_form
@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors"])
def test_another_students_file(tmp_path, file, torch):
    folder = make_student(tmp_path / "student", SINGLE)
    other = make_student(tmp_path / "other", PAIR, hidden=7)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = []
    tokenizer["model"]["vocab"]["more"] = len(tokenizer["model"]["vocab"])
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    (other / file).replace(folder / file)
    with raising(DataError, file=folder / file, hint="another student"):
        load_student(folder, torch=torch)


@each_form
@pytest.mark.parametrize(
    ("part", "resize"),
    [
        ("embedding", lambda rows: rows[:-1]),
        ("embedding", lambda rows: np.concatenate([rows, rows[:1]])),
        ("logits", lambda rows: rows[:1]),
    ],
    ids=["fewer words", "more words", "fewer labels"],
)
def test_weights_of_another_size(tmp_path, part, resize, torch):
    folder = make_student(tmp_path / "student", SINGLE)
    weights = load_file(folder / "model.safetensors")
    resized = {name: resize(value) if name.startswith(part) else value for name, value in weights.items()}
    save_file(resized, folder / "model.safetensors")
    with raising(DataError, file=folder / "model.safetensors"):
        load_student(folder, torch=torch)


@each_form
@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "task", {"name": "toy"}),
        ("config.json", "task", {"name": "toy", "kind": "single", "labels": ["a", "a"]}),
        ("config.json", "task", {"name": "toy", "kind": "triple", "labels": ["a", "b"]}),
        ("config.json", "max_length", 0),
        ("config.json", "max_length", "128"),
        ("config.json", "vocabulary_size", True),
        ("config.json", "dimension", None),
        ("config.json", "options", []),
        ("config.json", "options", {"hidden": "many"}),
        ("metrics.json", "dev", {"accuracy": "good"}),
        ("metrics.json", "history", 3),
    ],
)
def test_a_wrong_value_is_named(tmp_path, file, key, value, torch):
    folder = make_student(tmp_path / "student", SINGLE)
    rewrite(folder / file, **{key: value})
    with raising(DataError, file=folder / file) as caught:
        load_student(folder, torch=torch)
    assert key in caught.value.key or "hidden" in caught.value.key


def reweight(folder, **values):
    weights = load_file(folder / "model.safetensors") | values
    save_file(weights, folder / "model.safetensors")


@each_form
@pytest.mark.parametrize("name", ["embedding.frozen.weight", "logits.bias", "rnn.weight_hh_l0"])
@pytest.mark.parametrize("damage", [np.nan, np.inf, np.int64, np.bool_, np.complex64])
def test_weights_that_are_no_finite_numbers(tmp_path, name, damage, torch):
    folder = make_student(tmp_path / "student", SINGLE)
    value = load_file(folder / "model.safetensors")[name]
    if isinstance(damage, float):
        value.flat[-1] = damage
    else:
        value = value.astype(damage)
    reweight(folder, **{name: value})
    with raising(DataError, key=name, file=folder / "model.safetensors"):
        load_student(folder, torch=torch)


@each_form
def test_weights_of_half_precision_are_read(tmp_path, torch):
    folder = make_student(tmp_path / "student", SINGLE)
    exact = load_student(folder, torch=torch).logits([TEXTS])
    weights = load_file(folder / "model.safetensors")
    for dtype in (torch_library.float16, torch_library.bfloat16, torch_library.float64):
        tensors = {key: torch_library.from_numpy(value).to(dtype) for key, value in weights.items()}
        torch_save(tensors, folder / "model.safetensors")
        rounded = {key: value.float().numpy() for key, value in tensors.items()}
        student = load_student(folder, torch=torch)
        assert all((student.weights[key] == value).all() for key, value in rounded.items())
        np.testing.assert_allclose(student.logits([TEXTS]), exact, atol=0.3)


def test_no_torch_and_a_package_that_costs_nothing(tmp_path):
    folder = make_student(tmp_path / "student", SINGLE)
    code = (
        "import sys, kdcli\n"
        "costly = {'torch', 'transformers', 'scipy', 'sklearn', 'pandas', 'polars', 'pyarrow'}\n"
        "print({*costly, 'numpy', 'pydantic', 'tokenizers'} & set(sys.modules))\n"
        f"print(len(kdcli.load_student({str(folder)!r}).predict(['a good film', 'bad'])))\n"
        "print(costly & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["set()", "2", "set()", ""]


@each_form
def test_large_weights_are_no_warning_and_their_logits_an_error(tmp_path, torch):
    folder = make_student(tmp_path / "student", SINGLE)
    for name in ("logits.bias", "logits.weight"):
        if name in (weights := load_file(folder / "model.safetensors")):
            reweight(folder, **{name: np.full_like(weights[name], 3e38)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_weights(folder / "model.safetensors")
    with warnings.catch_warnings(), raising(DataError, "not finite"):
        warnings.simplefilter("ignore")
        load_student(folder, torch=torch).logits([TEXTS])


def test_a_flag_of_the_processor_without_a_value_is_no_warning(tmp_path, monkeypatch):
    """Seen on one processor: its matrix products of finite numbers flagged an invalid value."""

    def flag(job=0):
        return float((np.array([np.inf]) - np.inf)[0])

    def fast(options, task, weights):
        def compute(words, lengths):
            if len(words[0]) > 1 or words[0][0, 0] >= len(weights["embedding.frozen.weight"]):
                cores = Cores()
                cores.count = 2
                cores.each(flag, [1, 2])
            flag()
            return real(words, lengths)

        real = found(options, task, weights)
        return compute

    folder = make_student(tmp_path / "student", SINGLE)
    found = registry.load("students", "bilstm").fast
    monkeypatch.setattr(registry.load("students", "bilstm"), "fast", fast)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            flag()
        assert np.isfinite(load_student(folder).logits([TEXTS])).all()
