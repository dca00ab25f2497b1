import threading
import time

import numpy as np
import onnxruntime
import pytest
from threadpoolctl import ThreadpoolController

from kdcli.api import Task
from kdcli.models.inference import numpy_model, onnx_model, word_vectors

SINGLE = Task("single", "single", ("0", "1"))
PAIR = Task("pair", "pair", ("a", "b", "c"))

ENCODE = """
    column = Unsqueeze (present, axis)
    found = Gather (vectors, words)
    sum = MatMul (column, found)
    states = Squeeze (sum, axis)
"""


def weights(task, layers):
    numbers = np.random.default_rng(0)
    names = ("embedding.trained.weight", "embedding.frozen.weight")
    made = {name: numbers.normal(size=(9, 2)).astype(np.float32) for name in names}
    sizes = [4 if task.kind == "single" else 16, *(5,) * (len(layers) - 1), task.outputs]
    for name, before, after in zip(layers, sizes, sizes[1:], strict=False):
        made[f"{name}.weight"] = numbers.normal(size=(after, before)).astype(np.float32)
        made[f"{name}.bias"] = numbers.normal(size=after).astype(np.float32)
    return made


def batch(task):
    """Texts of different lengths in columns of different widths, with scrawls beyond their ends."""
    numbers = np.random.default_rng(1)
    lengths = [np.array([3, 1, 2, 5, 4]), np.array([1, 2, 2, 1, 3])][: len(task.columns)]
    return tuple(numbers.integers(1, 9, (5, counts.max() + 1)) for counts in lengths), tuple(lengths)


def one_by_one(task, made, layers, words, lengths):
    """Sums of word vectors, compared, through the layers, one row after the other."""
    table = np.hstack([made["embedding.trained.weight"], made["embedding.frozen.weight"]])
    logits = []
    for row in range(len(lengths[0])):
        states = [table[ids[row, : counts[row]]].sum(axis=0) for ids, counts in zip(words, lengths, strict=True)]
        if task.kind == "pair":
            one, two = states
            states += [abs(one - two), one * two]
        state = np.hstack(states)
        for name in layers:
            state = made[f"{name}.weight"] @ state + made[f"{name}.bias"]
            if name != layers[-1]:
                state = np.maximum(state, 0)
        logits.append(state)
    return np.array(logits)


each = pytest.mark.parametrize(
    ("task", "layers"),
    [(SINGLE, ["logits"]), (PAIR, ["logits"]), (SINGLE, ["fc", "logits"]), (PAIR, ["one", "head.two", "three"])],
)


@each
@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_numpy(task, layers, size):
    made, (words, lengths) = weights(task, layers), batch(task)
    seen = []

    def encode(texts, counts):
        seen.append(counts)
        assert texts.shape[1] == counts.max()
        present = np.arange(texts.shape[1]) < counts[:, None]
        return (word_vectors(made)[texts] * present[:, :, None]).sum(axis=1)

    found = numpy_model(encode, layers, made, words=size)(words, lengths)
    np.testing.assert_allclose(found, one_by_one(task, made, layers, words, lengths), rtol=1e-5, atol=1e-5)
    assert all(counts.sum() < size + 5 for counts in seen)
    assert sum(map(len, seen)) == 5 * len(words)


def test_numpy_in_threads(monkeypatch):
    """As many as BLAS would take; each keeps to its own texts."""
    monkeypatch.setattr(ThreadpoolController, "info", lambda self: [{"num_threads": 3}])
    made, (words, lengths) = weights(PAIR, ["logits"]), batch(PAIR)
    seen = set()

    def encode(texts, counts):
        seen.add(threading.get_ident())
        time.sleep(0.01)
        present = np.arange(texts.shape[1]) < counts[:, None]
        return (word_vectors(made)[texts] * present[:, :, None]).sum(axis=1)

    found = numpy_model(encode, ["logits"], made, words=1)(words, lengths)
    np.testing.assert_allclose(found, one_by_one(PAIR, made, ["logits"], words, lengths), rtol=1e-5, atol=1e-5)
    assert len(seen) > 1
    assert threading.get_ident() not in seen


@each
def test_onnx(task, layers):
    made, (words, lengths) = weights(task, layers), batch(task)
    graph = onnx_model("sums", task, ENCODE, layers, made)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    columns = [part for column in zip(words, lengths, strict=True) for part in column]
    names = [value.name for value in session.get_inputs()]
    assert names == ["words", "lengths"] if task is SINGLE else ["words1", "lengths1", "words2", "lengths2"]
    (found,) = session.run(["logits"], dict(zip(names, columns, strict=True)))
    np.testing.assert_allclose(found, one_by_one(task, made, layers, words, lengths), rtol=1e-5, atol=1e-5)


def test_other_constants_than_weights_and_a_missing_layer():
    encode = ENCODE.replace("states =", "twice =") + "states = Mul (twice, a_half)"
    made, (words, lengths) = weights(SINGLE, ["logits"]), batch(SINGLE)
    graph = onnx_model("halves", SINGLE, encode, ["logits"], {**made, "a.half": np.float32(0.5)})
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"words": words[0], "lengths": lengths[0]})
    halved = {name: value / 2 if name.startswith("embedding") else value for name, value in made.items()}
    np.testing.assert_allclose(found, one_by_one(SINGLE, halved, ["logits"], words, lengths), rtol=1e-5, atol=1e-5)
    with pytest.raises(KeyError, match=r"fc\.weight"):
        numpy_model(lambda words, lengths: words, ["fc", "logits"], weights(SINGLE, ["logits"]), words=1)
