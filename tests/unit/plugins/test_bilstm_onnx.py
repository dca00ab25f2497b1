import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kd_bilstm import Options, build, onnx_graph, to_onnx
from kdcli.api import Batch, Task

SINGLE = Task("single", "single", ("0", "1"))
PAIR = Task("pair", "pair", ("a", "b", "c"))
SCORE = Task("score", "pair", (), score_range=(0.0, 5.0), metric="pearson")
WORDS, SIZE = 20, 6

each_variant = pytest.mark.parametrize(
    ("cell", "layers", "pooling"), list(itertools.product(["lstm", "gru"], [1, 2, 3], ["last", "max"]))
)
each_kind = pytest.mark.parametrize("task", [SINGLE, PAIR, SCORE], ids=lambda task: task.name)


def model(task=SINGLE, **options):
    options = Options(**{"hidden": 5, "fc": 4, **options})
    torch.manual_seed(1)
    module = build(options, task, WORDS, None, SIZE).eval()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -1, 1)
    return module, to_onnx(options, task, {name: value.numpy() for name, value in module.state_dict().items()})


def run(graph, columns):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return session.run(["logits"], dict(zip(names, itertools.chain(*columns), strict=True)))[0]


def columns_of(task, lengths, extra=0, seed=0):
    """Random texts for each column; what lies beyond a text is random too."""
    numbers = np.random.default_rng(seed)
    found = []
    for place in range(len(task.columns)):
        counts = np.roll(np.array(lengths, np.int64), place) + place
        found.append((numbers.integers(1, WORDS, (len(counts), counts.max() + extra)), counts))
    return found


def by_torch(module, columns, pooling):
    """Logits by PyTorch's own recurrence, one text at a time, without padding."""
    states = []
    for words, lengths in columns:
        states.append([])
        for text, length in zip(torch.from_numpy(words), lengths, strict=True):
            outputs, result = module.rnn(torch.cat(module.embedding(text[:length]), dim=-1)[:, None])
            hidden = result[0] if isinstance(module.rnn, nn.LSTM) else result
            last = torch.cat([hidden[-2, 0], hidden[-1, 0]])
            states[-1].append(last if pooling == "last" else outputs[:, 0].max(dim=0).values)
    one, *others = [torch.stack(column) for column in states]
    parts = [one, *(part for two in others for part in (two, (one - two).abs(), one * two))]
    return module.logits(torch.relu(module.fc(torch.cat(parts, dim=1)))).detach().numpy()


@each_kind
@each_variant
def test_logits_are_pytorchs_text_by_text(task, cell, layers, pooling):
    module, graph = model(task, cell=cell, layers=layers, pooling=pooling)
    for lengths, extra in (([1], 0), ([4, 1], 1), ([3, 1, 7, 3, 2, 1, 5], 0), (range(1, 33), 3)):
        columns = columns_of(task, lengths, extra)
        expected = by_torch(module, columns, pooling)
        assert len(expected) < 32 or expected.std(axis=0).min() > 5e-3
        np.testing.assert_allclose(run(graph, columns), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("embeddings", ["rand", "static", "non-static", "multichannel"])
def test_each_kind_of_embedding(embeddings):
    module, graph = model(embeddings=embeddings)
    columns = columns_of(SINGLE, [3, 5, 1])
    np.testing.assert_allclose(run(graph, columns), by_torch(module, columns, "last"), rtol=0, atol=1e-5)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 3), st.sampled_from(["last", "max"]))
def test_neighbours_and_padding_make_no_difference(lengths, extra, pooling):
    module, graph = model(PAIR, pooling=pooling)
    columns = columns_of(PAIR, lengths, extra)
    batch = Batch(*(tuple(map(torch.from_numpy, part)) for part in zip(*columns, strict=True)))
    np.testing.assert_allclose(run(graph, columns), module(batch).detach().numpy(), rtol=0, atol=1e-5)


def test_the_form_of_the_graph():
    for task, texts in ((SINGLE, [""]), (PAIR, ["1", "2"])):
        graph = model(task)[1]
        onnx.checker.check_model(graph, full_check=True)
        assert (graph.ir_version, [(one.domain, one.version) for one in graph.opset_import]) == (8, [("", 17)])
        shapes = {
            value.name: (
                value.type.tensor_type.elem_type,
                [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim],
            )
            for value in (*graph.graph.input, *graph.graph.output)
        }
        expected = {"logits": (onnx.TensorProto.FLOAT, ["batch", task.outputs])}
        for text in texts:
            expected[f"words{text}"] = (onnx.TensorProto.INT64, ["batch", f"time{text}"])
            expected[f"lengths{text}"] = (onnx.TensorProto.INT64, ["batch"])
        assert shapes == expected


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_order_of_the_gates_matters(cell, monkeypatch):
    columns = columns_of(SINGLE, [3, 5, 1])
    expected = run(model(cell=cell)[1], columns)
    monkeypatch.setitem(onnx_graph.GATES, cell, tuple(range(len(onnx_graph.GATES[cell]))))
    assert np.abs(run(model(cell=cell)[1], columns) - expected).max() > 1e-2
